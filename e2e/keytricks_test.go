package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// wire stands between a daemon and a store, and has every byte that the daemon
// sends.
type wire struct {
	addr string
	mu   sync.Mutex // guards what follows
	sent []*sent
}

// sent is what came over one connection and has not been looked at.
type sent struct {
	bytes []byte
	over  bool // a request ended in the midst of its body
}

// newWire starts a wire to a store, which ends with the test.
func newWire(t testing.TB, s *realStore) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{addr: l.Addr().String()}
	var copies sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		copies.Wait()
	})
	copies.Go(func() {
		for {
			daemon, err := l.Accept()
			if err != nil {
				return
			}
			store, err := s.dial(context.Background())
			if err != nil {
				daemon.Close()
				continue
			}
			copies.Go(func() {
				io.Copy(io.MultiWriter(store, w.record()), daemon)
				store.Close()
			})
			copies.Go(func() {
				io.Copy(daemon, store)
				daemon.Close()
			})
		}
	})
	return w
}

// record returns what keeps the bytes of one more connection.
func (w *wire) record() io.Writer {
	w.mu.Lock()
	defer w.mu.Unlock()
	of := new(sent)
	w.sent = append(w.sent, of)
	return writerFunc(func(p []byte) (int, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		of.bytes = append(of.bytes, p...)
		return len(p), nil
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// requests returns those about an object or a bucket that came since the last
// time, read by a server's rules. Bytes that are none fail the test.
func (w *wire) requests(t testing.TB) (all []*http.Request) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.sent {
		for !conn.over {
			rest := bytes.NewReader(conn.bytes)
			reader := bufio.NewReader(rest)
			req, err := http.ReadRequest(reader)
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				break
			}
			if err != nil {
				t.Fatalf("the daemon sent what is no request: %v\n%q", err, tail(conn.bytes, 500))
			}
			if req.URL.Path != "/" {
				all = append(all, req)
			}
			_, err = io.Copy(io.Discard, req.Body)
			conn.over = err != nil
			conn.bytes = conn.bytes[len(conn.bytes)-rest.Len()-reader.Buffered():]
		}
	}
	return all
}

// mayBeSent are the headers that a request to the store may have.
var mayBeSent = []string{
	"Accept-Encoding", "Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "Authorization", "Content-Length", "Content-Md5", "Content-Type", "If-None-Match", "User-Agent",
	"X-Amz-Checksum-Algorithm", "X-Amz-Checksum-Crc64nvme", "X-Amz-Checksum-Mode", "X-Amz-Checksum-Type", "X-Amz-Content-Sha256", "X-Amz-Date", "X-Amz-Mp-Object-Size",
	"X-Amz-Sdk-Checksum-Algorithm", "X-Amz-Server-Side-Encryption", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", "X-Amz-Storage-Class", "X-Amz-Tagging",
}

// checkRequest checks that a request is about that object and no other, as its
// path is to the letter, and has nothing that nobody meant.
func (w *wire) checkRequest(t *testing.T, req *http.Request, bucket, key string) {
	t.Helper()
	path, _, _ := strings.Cut(req.RequestURI, "?")
	if got, err := url.PathUnescape(path); err != nil || got != "/"+bucket+"/"+key {
		t.Errorf("%s %s goes to %q, want %q", req.Method, req.RequestURI, got, "/"+bucket+"/"+key)
	}
	if strings.Trim(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/%") != "" {
		t.Errorf("the path %s has characters that are not encoded", path)
	}
	if req.Host != w.addr {
		t.Errorf("Host: %s", req.Host)
	}
	for name, values := range req.Header {
		if len(values) != 1 || !slices.Contains(mayBeSent, name) && !strings.HasPrefix(name, "X-Amz-Meta-") {
			t.Errorf("%s %s has the header %s: %q", req.Method, path, name, values)
		}
	}
}

// codeOf returns the code of an answer that is a problem.
func codeOf(a answer) string {
	p, err := a.problem()
	if err != nil {
		return err.Error()
	}
	return p.Code
}

// deep returns a key of n bytes beneath a directory, of names that file systems
// can hold.
func deep(dir string, n int) string {
	return (dir + strings.Repeat(strings.Repeat("k", 99)+"/", n/100+1))[:n-1] + "k"
}

// trickyKeys have what some part of the way may take for more than a name. The
// code is the daemon's where it takes none of them.
var trickyKeys = []struct{ key, code string }{
	{"in/plain", ""},
	{"../x", "invalid_destination"}, {"in/../../x", "invalid_destination"}, {"in/..", "invalid_destination"}, {"/../x", "invalid_destination"},
	{"./../x", "invalid_destination"}, {"in/a/../../../x", "invalid_destination"}, {"..", "invalid_destination"}, {"in//../../x", "invalid_destination"},
	{"in/../x", ""}, {"in/a/../b", ""}, {"in/a/../../b", ""}, {"in/./x", ""}, {"./in/x", ""}, {".", ""}, {"in/.", ""}, {"in//x", ""}, {"//in/x", ""}, {"in/x/", ""}, {"in/...", ""}, {"in/..x", ""}, {"in/x..", ""},
	{"in/%2e%2e/x", ""}, {"in/%2e%2e%2fx", ""}, {"in/..%2fx", ""}, {"%2e%2e/x", ""}, {"in/%252e%252e/x", ""}, {"in/%", ""}, {"in/%zz", ""}, {"in/%00", ""}, {"in/%0d%0aX-Injected:%201", ""},
	{`in/..\x`, ""}, {`in\..\..\x`, ""},
	{"in/x?acl", ""}, {"in/x?uploads", ""}, {"in/x?partNumber=1&uploadId=2", ""}, {"in/x#y", ""}, {"in/a+b", ""}, {"in/a b", ""}, {"in/ x ", ""}, {"in/a;b", ""}, {"in/a&b=c", ""}, {"in/a,b", ""}, {"in/*", ""},
	{"in/http://evil.example/x", ""}, {"in/@evil.example", ""}, {"in/<Key>&amp;", ""}, {"in/x HTTP/1.1", ""}, {"in/\u2028\u202e", ""}, {"in/\u0085", ""}, {"in/e\u0301", ""}, {"in/.s3daemon-probe-x", ""},
	{"in/\x00", "invalid_destination"}, {"in/\r\nX-Injected: 1", "invalid_destination"}, {"in/\n", "invalid_destination"}, {"in/\t", "invalid_destination"}, {"in/\x7f", "invalid_destination"}, {"in/x HTTP/1.1\r\nHost: evil\r\n\r\n", "invalid_destination"},
	{"in/\xff", "invalid_destination"}, {"in/\xc0\xaf..", "invalid_destination"}, {"in/\xed\xa0\x80", "invalid_destination"}, {"in/\ufffe", "invalid_destination"},
	{deep("in/", 1024), ""}, {deep("in/", 1025), "invalid_destination"}, {deep("in/", 4096), "invalid_destination"}, {"", "invalid_destination"},
}

// Whatever a key looks like, all requests of its push are about exactly that
// key, on stores that see in it what they like, in one request and in parts;
// and where pushes may go beneath a prefix only, none gets out of it.
func TestKeyTricks(t *testing.T) {
	for _, s := range []*realStore{versity(), fakeStore(t)} {
		for _, held := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, held to a prefix %v", s.name, held), func(t *testing.T) {
				bucket, other := s.newBucket(t), s.newBucket(t)
				w := newWire(t, s)
				env := s.env("http://"+w.addr, "auto", "S3DAEMON_ATTEMPTS=1")
				if held {
					env = append(env, "S3DAEMON_BUCKETS="+bucket+"/in/")
				}
				d := startDaemon(t, env...)
				small, large := makeFile(t, "small", 1000), makeFile(t, "large", oneRequest+1)
				taken := map[string]bool{} // by the store, perhaps: an upload that it refused may be aborted later
				try := func(file, destination, code, key string) (done bool) {
					t.Helper()
					a := d.pushForm(t, url.Values{"file": {file}, "destination": {destination}}.Encode())
					requests := w.requests(t)
					if code != "" {
						if codeOf(a) != code {
							t.Errorf("%.100q: %d %s, want %s", destination, a.status, a.body, code)
						}
						for _, r := range requests {
							if sentTo, _, _ := strings.Cut(r.RequestURI, "?"); !taken[sentTo] {
								t.Errorf("%.100q: %s %s", destination, r.Method, r.RequestURI)
							}
						}
						return false
					}
					if a.status != http.StatusOK && (a.status != http.StatusBadGateway || codeOf(a) != "store_refused") {
						t.Errorf("%.100q: %d %s", destination, a.status, a.body)
					}
					if len(requests) == 0 {
						t.Errorf("%.100q: no request", destination)
					}
					for _, r := range requests {
						sentTo, _, _ := strings.Cut(r.RequestURI, "?")
						if !taken[sentTo] {
							w.checkRequest(t, r, bucket, key)
						}
						taken[sentTo] = true
					}
					return a.status == http.StatusOK
				}
				for _, k := range trickyKeys {
					code := k.code
					climbs := slices.Contains(strings.Split(k.key, "/"), "..")
					if held && code == "" && (!strings.HasPrefix(k.key, "in/") || climbs) {
						code = "destination_not_allowed"
					}
					try(small, "s3://"+bucket+"/"+k.key, code, k.key)
					// A store that cleans keys may not find an upload again, to abort it.
					inParts := k.key == "in/plain" || !s.listsClean && slices.Contains([]string{"in/a/../b", "in/%2e%2e/x", "in/x?uploads"}, k.key)
					if try(small, "alias/"+bucket+"/"+k.key, code, k.key) && inParts {
						try(large, "s3://"+bucket+"/"+k.key, code, k.key)
					}
				}
				if held {
					for _, destination := range []string{"s3://" + other + "/in/x", "alias/" + other + "/in/x", bucket + "/" + other + "/in/x", "s3://" + strings.ToUpper(bucket) + "/in/x", "s3://t:" + bucket + "/in/x"} {
						try(small, destination, "destination_not_allowed", "")
					}
				}
				for _, key := range s.keys(t, bucket) {
					if held && !strings.HasPrefix(key, "in/") {
						t.Errorf("the store has %q", key)
					}
				}
				if keys := s.keys(t, other); len(keys) > 0 {
					t.Errorf("another bucket has %q", keys)
				}
				if held && s.name == "versitygw" {
					checkBeneath(t, filepath.Join(theStore.dir, bucket), "in")
				}
			})
		}
	}
}

// checkBeneath checks that a directory has files nowhere but beneath another.
func checkBeneath(t *testing.T, dir, beneath string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err == nil && !entry.IsDir() && !strings.HasPrefix(rel, beneath+"/") && !strings.HasPrefix(rel, ".") { // its own
			t.Errorf("there is the file %s", rel)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A bucket is one path segment on the wire, to the letter, at the endpoint and
// nowhere else, or it is refused.
func TestBucketTricks(t *testing.T) {
	s := versity()
	w := newWire(t, s)
	d := startDaemon(t, s.env("http://"+w.addr, "auto", "S3DAEMON_ATTEMPTS=1")...)
	small, large := makeFile(t, "small", 1000), makeFile(t, "large", oneRequest+1)
	for _, b := range []struct{ bucket, code string }{
		{"..", "invalid_destination"}, {".", "invalid_destination"}, {"", "invalid_destination"}, {"ab", "invalid_destination"}, {"...", "invalid_destination"}, {"-abc", "invalid_destination"}, {".abc", "invalid_destination"},
		{"bucket?acl", "invalid_destination"}, {"bucket#x", "invalid_destination"}, {"user@bucket", "invalid_destination"}, {"bucket%2f..", "invalid_destination"}, {"b\u00fccket", "invalid_destination"}, {"buc\u212aet", "invalid_destination"},
		{"bu cket", "invalid_destination"}, {"bu\r\ncket", "invalid_destination"}, {"bu\x00cket", "invalid_destination"}, {"bu\xffcket", "invalid_destination"}, {`bu\cket`, "invalid_destination"}, {"s3:", "invalid_destination"}, {"[::1]", "invalid_destination"},
		{strings.Repeat("b", 256), "invalid_destination"},
		{"no-such-bucket", "store_refused"}, {"UPPER", "store_refused"}, {"10.0.0.1", "store_refused"}, {"evil.example", "store_refused"}, {"a..b", "store_refused"}, {"xn--bcket-kva", "store_refused"}, {"under_score", "store_refused"},
		{"tenant:bucket", "store_refused"}, {"arn:aws:s3:us-east-1:123456789012:accesspoint:ap", "store_refused"}, {"arn:aws:s3::123456789012:accesspoint:a.mrap", "store_refused"}, {strings.Repeat("b", 255), "store_refused"},
	} {
		for _, file := range []string{small, large} {
			a := d.pushForm(t, url.Values{"file": {file}, "destination": {"s3://" + b.bucket + "/in/x"}}.Encode())
			if codeOf(a) != b.code {
				t.Errorf("%.60q: %d %s, want %s", b.bucket, a.status, a.body, b.code)
			}
			requests := w.requests(t)
			if b.code == "invalid_destination" && len(requests) > 0 {
				t.Errorf("%.60q reached the store", b.bucket)
			}
			for _, r := range requests {
				w.checkRequest(t, r, b.bucket, "in/x")
			}
		}
	}
}

// No field of a push can put a line of its own into a request to the store, or
// change what the request is about.
func TestHeaderInjection(t *testing.T) {
	for _, s := range []*realStore{versity(), fakeStore(t)} {
		t.Run(s.name, func(t *testing.T) {
			bucket := s.newBucket(t)
			w := newWire(t, s)
			d := startDaemon(t, s.env("http://"+w.addr, "auto", "S3DAEMON_ATTEMPTS=1")...)
			file := makeFile(t, "file", 1000)
			push := func(key, field, value string) (answer, []*http.Request) {
				t.Helper()
				form := url.Values{"file": {file}, "destination": {"s3://" + bucket + "/" + key}, field: {value}}
				if field == "sse_kms_key_id" {
					form.Set("server_side_encryption", "aws:kms")
				}
				a := d.pushForm(t, form.Encode())
				requests := w.requests(t)
				return a, requests
			}
			const line = "\r\nX-Injected: 1"
			for _, f := range [][2]string{
				{"metadata.a" + line, "v"}, {"metadata.a\nb", "v"}, {"metadata.a b", "v"}, {"metadata.a:b", "v"}, {"metadata.", "v"}, {"metadata.\u00e4", "v"}, {"metadata.a\x00", "v"}, {"metadata.\xff", "v"},
				{"metadata.a", "v" + line}, {"metadata.a", "v\nX: 1"}, {"metadata.a", "v\rX: 1"}, {"metadata.a", "v\x00"}, {"metadata.a", "\u00e4"}, {"metadata.a", " v"}, {"metadata.a", "v\t"}, {"metadata.a", "\xff"}, {"metadata.a", "v\u010d\u010aX: 1"},
				{"tags.a" + line, "v"}, {"tags.a", "v" + line}, {"tags.a", "v\x00"}, {"tags.a", "\xff"}, {"tags.aws:a", "v"},
				{"content_type", "text/plain" + line}, {"content_type", "text/plain; a=\"b\r\n\""}, {"content_type", "text/plain\x00"}, {"content_type", "text/pl\u00e4in"}, {"content_type", "text"},
				{"storage_class", "STANDARD" + line}, {"storage_class", "STANDARD\n"}, {"storage_class", "STANDARD, X"}, {"storage_class", "standard"}, {"storage_class", "STANDARD\x00"},
				{"label", "l" + line}, {"label", "l\x00"}, {"label", "\xff"},
				{"server_side_encryption", "AES256" + line}, {"server_side_encryption", "aes256"},
				{"sse_kms_key_id", "key" + line}, {"sse_kms_key_id", "key\x00"}, {"sse_kms_key_id", "k\u00e4y"}, {"sse_kms_key_id", "a key"},
			} {
				a, requests := push("refused", f[0], f[1])
				if a.status != http.StatusBadRequest || codeOf(a) != "invalid_field" {
					t.Errorf("%q: %d %s", f, a.status, a.body)
				}
				for _, r := range requests {
					t.Errorf("%q: %s %s", f, r.Method, r.RequestURI)
				}
			}
			// What is allowed stays what it is.
			for i, f := range []struct{ field, value, header, want string }{
				{"metadata.host", "evil.example", "X-Amz-Meta-Host", "evil.example"},
				{"metadata.content-length", "0", "X-Amz-Meta-Content-Length", "0"},
				{"metadata.transfer-encoding", "chunked", "X-Amz-Meta-Transfer-Encoding", "chunked"},
				{"metadata.x-amz-acl", "public-read", "X-Amz-Meta-X-Amz-Acl", "public-read"},
				{"metadata.a", `%0d%0aX-Injected: 1, "\r\n"`, "X-Amz-Meta-A", `%0d%0aX-Injected: 1, "\r\n"`},
				{"tags.a&b=c", "d&x-amz-acl=public", "X-Amz-Tagging", "a%26b%3Dc=d%26x-amz-acl%3Dpublic"},
				{"tags.a", "%0d%0a", "X-Amz-Tagging", "a=%250d%250a"},
				{"content_type", `text/plain; charset="a, b"`, "Content-Type", `text/plain; charset="a, b"`},
			} {
				key := fmt.Sprintf("kept-%d", i)
				a, requests := push(key, f.field, f.value)
				if a.status != http.StatusOK && (a.status != http.StatusBadGateway || codeOf(a) != "store_refused") {
					t.Errorf("%q: %d %s", f.field, a.status, a.body)
				}
				if len(requests) == 0 || requests[0].Header.Get(f.header) != f.want {
					t.Errorf("%q: the request has not %s: %s", f.field, f.header, f.want)
				}
				for _, r := range requests {
					w.checkRequest(t, r, bucket, key)
				}
			}
		})
	}
}
