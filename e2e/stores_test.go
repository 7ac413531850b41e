package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"
)

// The modes of S3DAEMON_CHECKSUM.
var modes = []string{"auto", "crc64nvme", "md5", "sha256"}

// proof is what a receipt says of how the bytes in the store were shown to be
// the file's, without the value.
type proof struct{ what, algorithm, by string }

var (
	wholeCRC = proof{"object", "crc64nvme", "daemon"}
	wholeMD5 = proof{"object", "md5", "daemon"}
	partsMD5 = proof{"parts", "md5", "daemon"}
)

// realStore is a store that the daemon must get right, and what is known of it.
// A store that changes for the better fails the tests, which is how one hears.
type realStore struct {
	name           string
	url            string // the endpoint for a daemon
	network, addr  string // where it listens
	access, secret string
	client         *s3.Client // for the tests, past every proxy
	kmsKey         string     // a key that it can encrypt with; "" where it has none

	one, parts    func(mode string) proof // of an object from one request, and from parts
	cannotHold    map[string]bool         // keys that it refuses
	listsClean    bool                    // lists keys as path.Clean has them
	keepsLess     bool                    // drops the tags of what comes in parts
	checksOnlyMD5 bool                    // and the signed body, so that it stores what a bare CRC64NVME tells to be wrong

	createsOnce       bool // checks If-None-Match when it makes the object, so that of two requests at once one is refused
	ignoresOnComplete bool // ignores it on CompleteMultipartUpload
}

// always has one proof for every mode.
func (p proof) always(string) proof { return p }

// knowsHeaders has one proof where CRC64NVME headers are sent, another where
// they are not.
func knowsHeaders(crc, other proof) func(string) proof {
	return func(mode string) proof {
		if mode == "md5" {
			return other
		}
		return crc
	}
}

// dial connects to the store, for a proxy.
func (s *realStore) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, s.network, s.addr)
}

// env is what a daemon needs to know of the store, by way of an endpoint.
func (s *realStore) env(endpoint, mode string, more ...string) []string {
	return append([]string{
		"S3_ENDPOINT_URL=" + endpoint, "S3DAEMON_CHECKSUM=" + mode,
		"AWS_ACCESS_KEY_ID=" + s.access, "AWS_SECRET_ACCESS_KEY=" + s.secret,
	}, more...)
}

// versity is the store of all the other tests.
func versity() *realStore {
	return &realStore{
		name: "versitygw", url: theStore.proxy.url(), network: "unix", addr: theStore.socket,
		access: accessKey, secret: secretKey, client: theStore.client,
		one: wholeCRC.always, parts: wholeCRC.always,
		// A key is a path in a file system to it.
		cannotHold:  map[string]bool{"slash at the end/": true},
		listsClean:  true,
		createsOnce: true,
	}
}

// fakeStore starts a gofakes3, which is the store of the demo and of the unit
// tests, in this process and with all it has in memory.
func fakeStore(t testing.TB) *realStore {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: gofakes3.New(s3mem.New(),
			gofakes3.WithV4Auth(map[string]string{accessKey: secretKey}),
			gofakes3.WithoutVersioning(),
		).Server(),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("gofakes3: %v", err)
		}
	})
	s := &realStore{
		name: "gofakes3", network: "tcp", addr: listener.Addr().String(), access: accessKey, secret: secretKey,
		one: knowsHeaders(wholeCRC, wholeMD5), parts: partsMD5.always,
	}
	s.connect(t, "http://"+s.addr)
	return s
}

// cephStore is the Ceph RGW that ceph/run.sh has started, or nil.
func cephStore(t testing.TB) *realStore {
	t.Helper()
	endpoint := os.Getenv("S3DAEMON_E2E_CEPH")
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" || u.Port() == "" {
		t.Fatalf("S3DAEMON_E2E_CEPH is %q, want http://HOST:PORT", endpoint)
	}
	s := &realStore{
		name: "ceph", network: "tcp", addr: u.Host,
		access: os.Getenv("S3DAEMON_E2E_CEPH_ACCESS_KEY"), secret: os.Getenv("S3DAEMON_E2E_CEPH_SECRET_KEY"),
		kmsKey: os.Getenv("S3DAEMON_E2E_CEPH_KMS_KEY"),
		one:    wholeMD5.always, parts: partsMD5.always,
		keepsLess: true, checksOnlyMD5: true,
		createsOnce: true, ignoresOnComplete: true,
	}
	s.connect(t, endpoint)
	return s
}

// connect gives the store a client of its own.
func (s *realStore) connect(t testing.TB, endpoint string) {
	s.url = endpoint
	transport := &http.Transport{MaxIdleConnsPerHost: 10}
	t.Cleanup(transport.CloseIdleConnections)
	options := clientOptions(endpoint, transport)
	options.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: s.access, SecretAccessKey: s.secret}, nil
	})
	s.client = s3.New(options)
}

// newBucket is the function of that name for any store. At the end the bucket
// is emptied and removed.
func (s *realStore) newBucket(t testing.TB) string {
	t.Helper()
	if s.client == theStore.client {
		return newBucket(t)
	}
	name, ctx := "e2e-"+strings.ToLower(rand.Text()), context.Background()
	if _, err := s.client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatalf("create bucket %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := poll(patience, func() error { // the janitor may be about to abort it
			left, err := s.client.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &name})
			if code := (smithy.APIError)(nil); errors.As(err, &code) && code.ErrorCode() == "NoSuchUpload" {
				return nil // gofakes3, of a bucket that never had one
			}
			if err == nil && len(left.Uploads) > 0 {
				err = fmt.Errorf("%d multipart uploads were left in %s, the first for the key %q", len(left.Uploads), name, aws.ToString(left.Uploads[0].Key))
			}
			return err
		}); err != nil {
			t.Error(err)
		}
		for _, key := range s.keys(t, name) {
			if _, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &name, Key: &key}); err != nil {
				t.Errorf("delete s3://%s/%s: %v", name, key, err)
			}
		}
		if _, err := s.client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: &name}); err != nil {
			t.Errorf("remove bucket %s: %v", name, err)
		}
	})
	return name
}

// keys returns what the store lists in a bucket, in order.
func (s *realStore) keys(t testing.TB, bucket string) (keys []string) {
	t.Helper()
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			t.Fatalf("list %s: %v", bucket, err)
		}
		for _, o := range page.Contents {
			keys = append(keys, aws.ToString(o.Key))
		}
	}
	slices.Sort(keys)
	return keys
}

// listed is the key as the store lists it.
func (s *realStore) listed(key string) string {
	if s.listsClean {
		return path.Clean(key)
	}
	return key
}
