package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

// The store's only account. The secret is a word that nothing else would
// print, since tests look for it in everything the daemon says.
const (
	accessKey = "e2e-Access-never-shown"
	secretKey = "e2e-Secret/never+shown"
)

// theStore serves every test of this process.
var theStore *store

// store is a versitygw in a process of its own, which is this test binary
// started anew: its file system backend moves the process's working directory,
// and a store that can be killed by itself is what later tests want. It listens on a
// Unix socket, so that no port has to be guessed; daemons reach it through a
// proxy, the tests' own client directly.
type store struct {
	dir    string // the buckets are directories in it
	socket string
	cmd    *exec.Cmd
	out    *output   // it complains of requests that tests mean to be bad
	life   io.Closer // the store's standard input: it ends when this does
	proxy  *proxy    // for the daemons that bring none of their own
	client *s3.Client
}

// startStore starts a store that keeps all it has under dir.
func startStore(dir string) (*store, error) {
	s := &store{dir: filepath.Join(dir, "data"), socket: filepath.Join(dir, "s3.sock"), out: newOutput()}
	s.out.searched.leaks = newLeaks() // it may say what it likes: what it hears is signed
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s.cmd = exec.Command(self)
	s.cmd.Env = append(os.Environ(), storeDirEnv+"="+dir)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if s.life, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	err = poll(30*time.Second, func() error {
		conn, err := net.Dial("unix", s.socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err == nil {
		s.proxy, err = newProxy("unix", s.socket)
	}
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	s.client = s3.New(clientOptions("http://store", &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.socket)
		},
	}))
	return s, nil
}

// clientOptions are those of a client of the tests' own.
func clientOptions(endpoint string, transport *http.Transport) s3.Options {
	return s3.Options{
		BaseEndpoint: &endpoint,
		UsePathStyle: true,
		Region:       "us-east-1",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, nil
		}),
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		HTTPClient:                 &http.Client{Transport: transport},
	}
}

// stop ends the store and waits for it.
func (s *store) stop() error {
	if s.proxy != nil {
		s.proxy.close()
	}
	if s.client != nil {
		s.client.Options().HTTPClient.(*http.Client).CloseIdleConnections()
	}
	s.life.Close()
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("the store ended badly: %w\n%s", err, tail(s.out.bytes(), 8000))
	}
	return nil
}

// serveStore is the store's process. It serves until its standard input ends,
// which also happens when the tests die without stopping it.
func serveStore(dir string) error {
	signal.Ignore(syscall.SIGINT) // of a terminal: the tests get it too
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	data := filepath.Join(dir, "data")
	var metadata meta.MetadataStorer = meta.XattrMeta{}
	var opts posix.PosixOpts
	if err := (meta.XattrMeta{}).Test(data); err != nil {
		// Some file systems, those of containers among them, have no extended
		// attributes; files beside the data do as well.
		opts.SideCarDir = filepath.Join(dir, "meta")
		if err := os.MkdirAll(opts.SideCarDir, 0o755); err != nil {
			return err
		}
		sidecar, err := meta.NewSideCar(opts.SideCarDir)
		if err != nil {
			return err
		}
		metadata = sidecar
	}
	backend, err := posix.New(data, metadata, opts)
	if err != nil {
		return err
	}
	return embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
		RootUserAccess:    accessKey,
		RootUserSecret:    secretKey,
		Ports:             []string{filepath.Join(dir, "s3.sock")},
		MaxConnections:    1000,
		MaxRequests:       1000,
		MultipartMaxParts: 10000,
		KeepAlive:         true, // else it closes every connection after one request
		Quiet:             true,
	})
}

// storeProxy returns a proxy to the store for this test alone.
func storeProxy(t testing.TB) *proxy {
	t.Helper()
	p, err := newProxy("unix", theStore.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

var bucketNumber atomic.Int64

// newBucket makes a bucket. At the test's end no multipart upload may be left
// in it, since parts that nobody lists cost their owner money for ever.
func newBucket(t testing.TB) string {
	t.Helper()
	name := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "-"), "-")
	name = fmt.Sprintf("%.40s-%d", name, bucketNumber.Add(1))
	ctx := context.Background()
	if _, err := theStore.client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatalf("create bucket %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := poll(patience, func() error { // the janitor may be about to abort it
			left, err := listUploads(name)
			if n := len(left); n > 0 {
				return fmt.Errorf("%d multipart uploads were left in %s, the first for the key %q", n, name, aws.ToString(left[0].Key))
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		// Past the store: that is quicker than thousands of requests, and
		// what the disk never saw it need not write.
		if err := os.RemoveAll(filepath.Join(theStore.dir, name)); err != nil {
			t.Errorf("remove bucket: %v", err)
		}
	})
	return name
}

// listUploads returns the multipart uploads that the store has in a bucket.
func listUploads(bucket string) (all []types.MultipartUpload, err error) {
	pages := s3.NewListMultipartUploadsPaginator(theStore.client, &s3.ListMultipartUploadsInput{Bucket: &bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			return nil, fmt.Errorf("list the multipart uploads in %s: %w", bucket, err)
		}
		all = append(all, page.Uploads...)
	}
	return all, nil
}

// untilNoUploads waits until no multipart upload is left in a bucket: daemons
// abort those that no push goes on with, soon and not at once. It returns those
// that stay.
func untilNoUploads(t testing.TB, bucket string) (left []types.MultipartUpload) {
	t.Helper()
	err := poll(patience, func() (err error) {
		if left, err = listUploads(bucket); err == nil && len(left) > 0 {
			err = errNotYet
		}
		return err
	})
	if err != nil {
		t.Errorf("%d multipart uploads are left in %s: %v", len(left), bucket, err)
		for _, u := range left[:min(len(left), 10)] {
			t.Errorf("for example %s for the key %q, begun %v", aws.ToString(u.UploadId), aws.ToString(u.Key), u.Initiated)
		}
	}
	return left
}

// abortUploads aborts the multipart uploads of a key and returns their number.
func abortUploads(t testing.TB, bucket, key string) int {
	t.Helper()
	ctx := context.Background()
	left, err := theStore.client.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &bucket, Prefix: &key})
	if err != nil {
		t.Fatalf("list the multipart uploads of %s: %v", key, err)
	}
	for _, u := range left.Uploads {
		if _, err := theStore.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: u.Key, UploadId: u.UploadId}); err != nil {
			t.Errorf("abort the upload of %s: %v", key, err)
		}
	}
	return len(left.Uploads)
}

// digest is what two equal streams of bytes have in common.
type digest struct {
	size   int64
	sha256 [sha256.Size]byte
}

// digestOf reads r to its end.
func digestOf(r io.Reader) (d digest, err error) {
	h := sha256.New()
	d.size, err = io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 1<<20))
	h.Sum(d.sha256[:0])
	return d, err
}

// checkObject reads an object back and compares it with a file, byte for byte.
func checkObject(t testing.TB, bucket, key, file string) {
	t.Helper()
	if err := compareObject(bucket, key, file); err != nil {
		t.Error(err)
	}
}

func compareObject(bucket, key, file string) error {
	return compareObjectIn(theStore.client, bucket, key, file)
}

// compareObjectIn is compareObject for any store.
func compareObjectIn(client *s3.Client, bucket, key, file string) error {
	type result struct {
		digest
		err error
	}
	wanted := make(chan result, 1)
	go func() { // at the same time, for the sake of large ones
		d, err := digestFile(file)
		wanted <- result{d, err}
	}()
	got, err := digestObjectIn(client, bucket, key)
	want := <-wanted
	if err := errors.Join(err, want.err); err != nil {
		return fmt.Errorf("compare s3://%s/%s with %s: %w", bucket, key, file, err)
	}
	if got != want.digest {
		return fmt.Errorf("s3://%s/%s has %d bytes with SHA-256 %x, %s has %d with %x",
			bucket, key, got.size, got.sha256, file, want.size, want.sha256)
	}
	return nil
}

func digestObject(bucket, key string) (digest, error) {
	return digestObjectIn(theStore.client, bucket, key)
}

func digestObjectIn(client *s3.Client, bucket, key string) (digest, error) {
	out, err := client.GetObject(context.Background(), &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return digest{}, err
	}
	defer out.Body.Close()
	return digestOf(out.Body)
}

func digestFile(path string) (digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return digest{}, err
	}
	defer f.Close()
	return digestOf(f)
}

// headObject asks the store about an object.
func headObject(t testing.TB, bucket, key string) *s3.HeadObjectOutput {
	t.Helper()
	out, err := theStore.client.HeadObject(context.Background(), &s3.HeadObjectInput{
		Bucket: &bucket, Key: &key, ChecksumMode: types.ChecksumModeEnabled,
	})
	if err != nil {
		t.Fatalf("head s3://%s/%s: %v", bucket, key, err)
	}
	return out
}

// listObjects returns what the store lists in the bucket, by key.
func listObjects(t testing.TB, bucket string) map[string]types.Object {
	t.Helper()
	objects := map[string]types.Object{}
	pages := s3.NewListObjectsV2Paginator(theStore.client, &s3.ListObjectsV2Input{Bucket: &bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			t.Fatalf("list %s: %v", bucket, err)
		}
		for _, o := range page.Contents {
			objects[aws.ToString(o.Key)] = o
		}
	}
	return objects
}
