package uploader

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/minio/crc64nvme"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lsst-dm/s3daemon/push"
)

// record keeps the heads of all requests that reach the store.
func (r *rig) record() (heads func() []*http.Request) {
	var mu sync.Mutex
	var all []*http.Request
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		mu.Lock()
		all = append(all, req.Clone(req.Context()))
		mu.Unlock()
		next.ServeHTTP(w, req)
	})
	return func() []*http.Request {
		mu.Lock()
		defer mu.Unlock()
		return append([]*http.Request(nil), all...)
	}
}

// operationOf names what a request asks of the store.
func operationOf(req *http.Request) string {
	query := req.URL.Query()
	switch {
	case req.Method == http.MethodHead:
		return "HeadObject"
	case query.Has("uploads"):
		return "CreateMultipartUpload"
	case req.Method == http.MethodGet && query.Has("uploadId"):
		return askingParts
	case query.Has("partNumber"):
		return "UploadPart " + query.Get("partNumber")
	case query.Has("uploadId"):
		return "CompleteMultipartUpload"
	}
	return "PutObject"
}

// TestHeadersOfEachRequest compares what each request of a push says, and what
// it must not say, since stores refuse it or it costs time: checksums that
// trail the body, checksums the SDK chose, and a question before the body.
func TestHeadersOfEachRequest(t *testing.T) {
	// Whatever the host's configuration says, the uploader decides.
	t.Setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
	t.Setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_supported")
	about := map[string]string{
		"Content-Type": "image/fits", "X-Amz-Storage-Class": "STANDARD_IA",
		"X-Amz-Meta-Camera": "R22", "X-Amz-Tagging": "a%20b=c",
	}
	sum := func(content []byte) string { return crcText(crc64nvme.Checksum(content)) }
	md5Of := func(content []byte) string {
		sum := md5.Sum(content)
		return base64.StdEncoding.EncodeToString(sum[:])
	}
	part := func(content []byte) map[string]string {
		return map[string]string{
			"X-Amz-Content-Sha256": unsignedPayload, "X-Amz-Checksum-Crc64nvme": sum(content), "Content-Md5": md5Of(content),
			"Content-Length": fmt.Sprint(len(content)), "X-Amz-Storage-Class": "", "X-Amz-Tagging": "",
		}
	}
	with := func(more map[string]string) map[string]string {
		all := maps.Clone(about)
		maps.Copy(all, more)
		return all
	}
	r := newRig(t)
	whole, one := r.file(t, "one", testPart) // above the SDK's 2 MiB for the question
	parts, several := r.file(t, "several", testPart+1)
	deliver := func(path string) {
		t.Helper()
		if _, err := r.Push(t.Context(), push.Request{
			File: path, Destination: "s3://bucket/k", ContentType: "image/fits", StorageClass: "STANDARD_IA",
			Metadata: map[string]string{"camera": "R22"}, Tags: map[string]string{"a b": "c"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	deliver(whole) // shows that PutObject verifies; UploadPart does not, on this store
	heads := r.record()
	deliver(whole)
	deliver(parts)
	r.putter = nil
	deliver(whole)
	want := map[string]map[string]string{
		"PutObject": with(map[string]string{
			"X-Amz-Content-Sha256": unsignedPayload, "X-Amz-Checksum-Crc64nvme": sum(one), "Content-Length": fmt.Sprint(testPart), "Content-Md5": "",
		}),
		"CreateMultipartUpload": with(map[string]string{
			"X-Amz-Checksum-Algorithm": "CRC64NVME", "X-Amz-Checksum-Type": "FULL_OBJECT",
		}),
		"UploadPart 1": part(several[:testPart]),
		"UploadPart 2": part(several[testPart:]),
		"CompleteMultipartUpload": {
			"X-Amz-Mp-Object-Size": fmt.Sprint(testPart + 1), "X-Amz-Checksum-Type": "FULL_OBJECT", "X-Amz-Checksum-Crc64nvme": sum(several),
		},
	}
	seen := make(map[string]int)
	for _, req := range heads() {
		name := operationOf(req)
		seen[name]++
		for header, value := range want[name] {
			if got := req.Header.Get(header); got != value {
				t.Errorf("%s: %s is %q, want %q", name, header, got, value)
			}
		}
		for _, header := range []string{
			"Expect", "Trailer", "X-Amz-Trailer", "Content-Encoding", "X-Amz-Decoded-Content-Length",
			"X-Amz-Sdk-Checksum-Algorithm", "X-Amz-Checksum-Crc32",
		} {
			if got := req.Header.Values(header); len(got) > 0 {
				t.Errorf("%s: has %s %q", name, header, got)
			}
		}
		if len(req.TransferEncoding) > 0 || len(req.Trailer) > 0 {
			t.Errorf("%s: transfer encoding %q, trailer %v", name, req.TransferEncoding, req.Trailer)
		}
	}
	if want := map[string]int{"PutObject": 2, "CreateMultipartUpload": 1, "UploadPart 1": 1, "UploadPart 2": 1, "CompleteMultipartUpload": 1, "HeadObject": 1}; !maps.Equal(seen, want) {
		t.Errorf("requests %v, want %v", seen, want)
	}
	// Requests that bring no checksum of ours would show these.
	o := r.client.Options()
	if o.RequestChecksumCalculation != aws.RequestChecksumCalculationWhenRequired ||
		o.ResponseChecksumValidation != aws.ResponseChecksumValidationWhenRequired {
		t.Errorf("the client's checksums: %v of requests, %v of answers", o.RequestChecksumCalculation, o.ResponseChecksumValidation)
	}
}

// forward hands requests on to the store with the Host that they came with,
// which their signatures cover.
func forward(t *testing.T, to string) http.Handler {
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(target)
		p.Out.Host = p.In.Host
	}}
}

// TestTLS has a store that offers HTTP/2, with a certificate that only
// AWS_CA_BUNDLE vouches for.
func TestTLS(t *testing.T) {
	for _, trusted := range []bool{true, false} {
		t.Run(fmt.Sprint("trusted ", trusted), func(t *testing.T) {
			var requests, others atomic.Int32
			r := newRig(t, func(c *Config) {
				store := forward(t, c.Endpoint)
				front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					requests.Add(1)
					if req.ProtoMajor != 1 {
						others.Add(1)
					}
					store.ServeHTTP(w, req)
				}))
				front.EnableHTTP2 = true
				front.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail
				front.StartTLS()
				t.Cleanup(front.Close)
				c.Endpoint = front.URL
				bundle := ""
				if trusted {
					bundle = filepath.Join(t.TempDir(), "ca.pem")
					certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
					if err := os.WriteFile(bundle, certificate, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				t.Setenv("AWS_CA_BUNDLE", bundle)
			})
			path, content := r.file(t, "f", 10)
			_, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
			var e *push.Error
			switch {
			case trusted && err != nil:
				t.Fatal(err)
			case trusted:
				r.wantObject(t, "k", content)
			case !errors.As(err, &e) || e.Code != push.StoreUnreachable || !strings.Contains(e.Detail, "certificate") || !strings.Contains(e.Detail, r.Endpoint()):
				t.Errorf("error %v", err)
			}
			if trusted != (requests.Load() > 0) || others.Load() > 0 {
				t.Errorf("%d requests, %d of them not by HTTP/1", requests.Load(), others.Load())
			}
		})
	}
}

// proxiedVariable names the file that the test binary pushes, in place of
// testing, when TestHTTPProxy starts it anew: a process reads the variables of
// proxies once, and what goes to loopback addresses has no proxy.
const proxiedVariable = "UPLOADER_TEST_PROXIED"

func TestHTTPProxy(t *testing.T) {
	const endpoint = "http://store.example"
	if path := os.Getenv(proxiedVariable); path != "" {
		up, err := New(t.Context(), Config{Endpoint: endpoint, MaxConnections: 1, Attempts: 1, ConnectTimeout: time.Second,
			GiveUpAfter: time.Hour, QueueLimit: 10, Journal: openJournal(t, t.TempDir()),
			Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		defer up.Drain(t.Context())
		if _, err := up.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}, push.Options{Wait: push.Forever}); err != nil {
			t.Fatal(err)
		}
		return
	}
	r := newRig(t)
	var asked atomic.Pointer[string]
	store := forward(t, r.store.URL)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked.Store(&req.RequestURI)
		store.ServeHTTP(w, req)
	}))
	t.Cleanup(proxy.Close)
	path, content := r.file(t, "f", 100)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), proxiedVariable+"="+path, "HTTP_PROXY="+proxy.URL, "http_proxy=", "NO_PROXY=", "no_proxy=",
		"REQUEST_METHOD=", "GORACE=atexit_sleep_ms=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := asked.Load(); got == nil || *got != endpoint+"/bucket/k" {
		t.Errorf("the proxy was asked for %v", got)
	}
	r.wantObject(t, "k", content)
}

// TestConnectionsAreKept has as many callers at once as there are slots, twice:
// the second time no connection may be opened.
func TestConnectionsAreKept(t *testing.T) {
	const slots = 25
	r := newRig(t, func(c *Config) { c.MaxConnections = slots })
	var mu sync.Mutex
	connections := make(map[string]bool)
	path, _ := r.file(t, "f", 1000)
	for round := range 2 {
		arrived, release := make(chan struct{}, slots), make(chan struct{})
		let := sync.OnceFunc(func() { close(release) })
		t.Cleanup(let)
		r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			mu.Lock()
			connections[req.RemoteAddr] = true
			mu.Unlock()
			arrived <- struct{}{}
			<-release
			next.ServeHTTP(w, req)
		})
		var callers sync.WaitGroup
		for i := range slots {
			callers.Go(func() {
				if _, err := r.Push(t.Context(), push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i)}); err != nil {
					t.Error(err)
				}
			})
		}
		deadline := time.After(10 * time.Second)
		for range slots { // all are under way before the first is answered
			select {
			case <-arrived:
			case <-deadline:
				r.stop()
				t.Fatal("not every slot has its connection")
			}
		}
		let()
		callers.Wait()
		if len(connections) != slots {
			t.Errorf("round %d: %d connections in all for %d slots", round+1, len(connections), slots)
		}
	}
}

// write writes a file for one of the AWS variables and returns its path.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var scope = regexp.MustCompile(`Credential=([^/]+)/\d+/([^/]+)/s3/aws4_request`)

// TestAWSConfiguration has region, credentials and endpoint come from where the
// SDK's users keep them, and looks at where the requests go and how they are
// signed. The endpoint has a name, before which a bucket could stand.
func TestAWSConfiguration(t *testing.T) {
	for _, tc := range []struct {
		name   string
		env    map[string]string
		files  bool // all but the endpoint comes from files, and that too unless the configuration has one
		config string
		region string
	}{
		{"no region", nil, false, "", "us-east-1"},
		{"AWS_REGION", map[string]string{"AWS_REGION": "eu-north-1"}, false, "", "eu-north-1"},
		{"AWS_DEFAULT_REGION", map[string]string{"AWS_DEFAULT_REGION": "eu-west-3"}, false, "", "eu-west-3"},
		{"a profile", map[string]string{"AWS_PROFILE": "summit"}, true,
			"[default]\nregion = wrong-1\nendpoint_url = http://127.0.0.1:1\n[profile summit]\nregion = chile-2\nendpoint_url = ENDPOINT\n", "chile-2"},
		{"the default profile", nil, true, "[default]\nendpoint_url = ENDPOINT\n", "us-east-1"},
		{"ours before the profile's", map[string]string{"AWS_REGION": "eu-north-1"}, false,
			"[default]\nregion = wrong-1\nendpoint_url = http://127.0.0.1:1\n", "eu-north-1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var host, key string
			r := newRig(t, func(c *Config) {
				endpoint := strings.Replace(c.Endpoint, "127.0.0.1", "localhost", 1)
				host, key = strings.TrimPrefix(endpoint, "http://"), os.Getenv("AWS_ACCESS_KEY_ID")
				for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_DEFAULT_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} {
					t.Setenv(name, "")
				}
				t.Setenv("AWS_CONFIG_FILE", write(t, "config", strings.Replace(tc.config, "ENDPOINT", endpoint, 1)))
				c.Endpoint = endpoint
				if tc.files {
					c.Endpoint = ""
					keys := fmt.Sprintf("aws_access_key_id = %s\naws_secret_access_key = %s\n", key, os.Getenv("AWS_SECRET_ACCESS_KEY"))
					text := "[default]\n" + keys
					if tc.env["AWS_PROFILE"] != "" {
						text = "[default]\naws_access_key_id = wrong\naws_secret_access_key = wrong\n[" + tc.env["AWS_PROFILE"] + "]\n" + keys
					}
					t.Setenv("AWS_SHARED_CREDENTIALS_FILE", write(t, "credentials", text))
					t.Setenv("AWS_ACCESS_KEY_ID", "")
					t.Setenv("AWS_SECRET_ACCESS_KEY", "")
				}
				for name, value := range tc.env {
					t.Setenv(name, value)
				}
			})
			heads := r.record()
			small, content := r.file(t, "small", 10)
			if _, err := r.Push(t.Context(), push.Request{File: small, Destination: "s3://bucket/small"}); err != nil {
				t.Fatal(err)
			}
			r.wantObject(t, "small", content)
			// A large file is begun, which is the SDK's work; its bytes do not matter.
			large := filepath.Join(r.dir, "large")
			if err := errors.Join(os.WriteFile(large, nil, 0o644), os.Truncate(large, testPart+1)); err != nil {
				t.Fatal(err)
			}
			record := *r.fault.Load()
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				answer := httptest.NewRecorder()
				record(answer, req, next)
				if answer.Code != http.StatusOK {
					t.Errorf("the store answers %d: %s", answer.Code, answer.Body)
				}
				w.WriteHeader(http.StatusForbidden)
			})
			var e *push.Error
			if _, err := r.Push(t.Context(), push.Request{File: large, Destination: "s3://bucket/large"}); !errors.As(err, &e) || e.Code != push.StoreRefused {
				t.Errorf("error %v", err)
			}
			if n := len(heads()); n != 2 {
				t.Errorf("%d requests, want a PutObject and a CreateMultipartUpload", n)
			}
			for _, req := range heads() {
				name := operationOf(req)
				if req.Host != host || !strings.HasPrefix(req.URL.Path, "/bucket/") {
					t.Errorf("%s: asked %s for %s", name, req.Host, req.URL.Path)
				}
				if got := scope.FindStringSubmatch(req.Header.Get("Authorization")); got == nil || got[1] != key || got[2] != tc.region {
					t.Errorf("%s: signed %q, want region %s and key %s", name, got, tc.region, key)
				}
			}
		})
	}
}

// TestCredentialsAreNotTold has a program for credentials that fails in the
// midst of printing the secret.
func TestCredentialsAreNotTold(t *testing.T) {
	const secret = "kept+Between/Us"
	for name, script := range map[string]string{
		"broken JSON":   `echo '{"Version": 1, "AccessKeyId": "key", "SecretAccessKey": "` + secret + `", '`,
		"no JSON":       `echo '` + secret + `'`,
		"other version": `echo '{"Version": 2, "AccessKeyId": "key", "SecretAccessKey": "` + secret + `"}'`,
		"failure":       `echo '{"Version": 1, "AccessKeyId": "key", "SecretAccessKey": "` + secret + `"}'; exit 1`,
	} {
		for _, size := range []int{10, testPart + 1} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				var told lockedBuffer
				runs := filepath.Join(t.TempDir(), "runs")
				r := newRig(t, func(c *Config) {
					t.Setenv("AWS_ACCESS_KEY_ID", "")
					t.Setenv("AWS_SECRET_ACCESS_KEY", "")
					t.Setenv("AWS_CONFIG_FILE", write(t, "config", "[default]\ncredential_process = sh "+write(t, "keys", "echo run >>'"+runs+"'\n"+script+"\n")+"\n"))
					c.Log = slog.New(slog.NewJSONHandler(&told, &slog.HandlerOptions{Level: slog.LevelDebug}))
				})
				heads := r.record()
				path, _ := r.file(t, "f", size)
				receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
				var e *push.Error
				if !errors.As(err, &e) || e.Code != push.NoCredentials || receipt.Attempts != 1 {
					t.Fatalf("%v, receipt %+v", err, receipt)
				}
				for what, text := range map[string]string{"detail": e.Detail, "error": err.Error(), "log": told.String()} {
					if strings.Contains(text, secret) {
						t.Errorf("the %s has the secret: %s", what, text)
					}
				}
				if !strings.Contains(told.String(), "get credentials") {
					t.Errorf("the log does not say what failed: %s", told.String())
				}
				if ran, err := os.ReadFile(runs); err != nil || strings.Count(string(ran), "run") != 1 || len(heads()) != 0 {
					t.Errorf("the program ran %q, %v; %d requests reached the store", ran, err, len(heads()))
				}
				tried := testutil.ToFloat64(r.metrics.requests.WithLabelValues("PutObject", "error")) +
					testutil.ToFloat64(r.metrics.requests.WithLabelValues("CreateMultipartUpload", "error"))
				if tried != 1 {
					t.Errorf("%v attempts are counted", tried)
				}
			})
		}
	}
}
