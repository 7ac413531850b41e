package uploader

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/crc64nvme"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lsst-dm/s3daemon/internal/store"
	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

// testPart is the smallest part that stores take.
const testPart = 5 << 20

// TestMain leaves the host's authorities out: each rig would read them all,
// which under the race detector is a third of the time that the tests take.
func TestMain(m *testing.M) {
	os.Unsetenv("AWS_CA_BUNDLE")
	os.Exit(m.Run())
}

// rig is an uploader in front of a real store that a test may spoil.
type rig struct {
	*Uploader
	store    *store.Store
	log      *lockedBuffer
	registry *prometheus.Registry
	dir      string
	cfg      Config
	stays    int // pushes that a test leaves in the journal
	// fault, if set, may answer a request in the store's place.
	fault atomic.Pointer[func(http.ResponseWriter, *http.Request, http.Handler)]
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{log: new(lockedBuffer), registry: prometheus.NewRegistry(), dir: t.TempDir()}
	s, err := store.Start([]string{"bucket"}, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			asked := req.Method == http.MethodHead && req.URL.Path == "/" // whether the store is there
			if f := r.fault.Load(); f != nil && !asked {
				(*f)(w, req, next)
				return
			}
			next.ServeHTTP(w, req)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": s.AccessKey, "AWS_SECRET_ACCESS_KEY": s.SecretKey, "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
	cfg := Config{
		Endpoint: s.URL, MaxConnections: 4, Attempts: 3, ConnectTimeout: time.Second, StallTimeout: 5 * time.Second,
		GiveUpAfter: time.Hour, QueueLimit: 1000, Journal: openJournal(t, filepath.Join(t.TempDir(), "data")),
		Log: slog.New(slog.NewJSONHandler(r.log, nil)), Metrics: r.registry,
	}
	for _, f := range change {
		f(&cfg)
	}
	r.cfg = cfg
	up, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	up.plan = plan{whole: testPart, minPart: testPart}
	if bySDK {
		up.putter = nil
	}
	up.retry.jitter = func(time.Duration) time.Duration { return 0 }
	up.retry.completes, up.retry.apart = 0, 0
	r.Uploader, r.store = up, s
	t.Cleanup(func() {
		if stay := up.Drain(context.Background()); stay != r.stays {
			t.Errorf("%d pushes stay in the journal, want %d", stay, r.stays)
		}
		if n := up.slots.inUse(); n != 0 {
			t.Errorf("%d slots are still held", n)
		}
		if strings.Contains(r.log.String(), s.SecretKey) {
			t.Error("the log has the secret key")
		}
	})
	return r
}

// Push waits for the end, as most callers do. What is done must have a proof,
// and the checksum of the file.
func (r *rig) Push(ctx context.Context, req push.Request) (push.Receipt, error) {
	receipt, err := r.Uploader.Push(ctx, req, push.Options{Wait: push.Forever})
	if err == nil && receipt.State == push.Done && (receipt.Verified == nil || receipt.Verified.Value == "" || receipt.Checksum == nil || *receipt.Checksum != r.checksumOf(req.File)) {
		err = fmt.Errorf("done, verified %+v, with the checksum %+v", receipt.Verified, receipt.Checksum)
	}
	if receipt.State.Ended() && !addsUp(receipt) {
		err = errors.Join(err, fmt.Errorf("the timing %+v does not add up to %v seconds", receipt.Timing, receipt.Seconds))
	}
	return receipt, err
}

func (r *rig) checksumOf(path string) push.Checksum {
	content, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	return push.Checksum{Algorithm: "crc64nvme", Value: crcText(crc64nvme.Checksum(content))}
}

// recorded returns the uploads that the journal has, when all that was submitted
// to it is on disk.
func (r *rig) recorded(t *testing.T) (left []*journal.Upload) {
	t.Helper()
	if err := onDisk(t.Context(), r.journal.Barrier); err != nil {
		t.Error(err)
	}
	if err := r.journal.EachUpload(func(u *journal.Upload) error { left = append(left, u); return nil }); err != nil {
		t.Error(err)
	}
	return left
}

// openJournal opens a journal that is closed after whatever uses it.
func openJournal(t testing.TB, dir string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(t.Context(), journal.Config{Dir: dir, HistoryAge: time.Hour, HistoryCount: 1000, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Errorf("close the journal: %v", err)
		}
	})
	return j
}

// depth returns how many pushes are queued and how many run.
func (u *Uploader) depth() (queued, running int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	running = u.queue.running[single] + u.queue.running[part]
	return u.queue.size - running, running
}

// bySDK has rigs leave all requests to the SDK.
var bySDK bool

// TestWithoutPutter repeats what putter could make different.
func TestWithoutPutter(t *testing.T) {
	bySDK = true
	defer func() { bySDK = false }()
	t.Run("delivers", TestPushDelivers)
	t.Run("odd keys", TestOddKeys)
	t.Run("optional fields", TestOptionalFieldsReachTheStore)
	t.Run("faults", TestFaultsAreRetried)
	t.Run("failures", TestFailuresSayWhy)
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func (r *rig) spoil(f func(http.ResponseWriter, *http.Request, http.Handler)) { r.fault.Store(&f) }

// file writes a file of that many bytes, the same for the same size.
func (r *rig) file(t *testing.T, name string, size int) (path string, content []byte) {
	t.Helper()
	content = make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)})
	source.Read(content)
	path = filepath.Join(r.dir, name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func (r *rig) wantObject(t *testing.T, key string, content []byte) {
	t.Helper()
	got, err := r.store.Get("bucket", key)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("object %q: %d bytes, %v, are not the file's %d", key, len(got), err, len(content))
	}
}

func TestPushDelivers(t *testing.T) {
	r := newRig(t)
	for _, tc := range []struct{ size, parts int }{
		{0, 1}, {1, 1}, {1000, 1}, {testPart, 1}, {testPart + 1, 2}, {3 * testPart, 3},
	} {
		t.Run(fmt.Sprint(tc.size), func(t *testing.T) {
			key := fmt.Sprintf("a/size %d", tc.size)
			path, content := r.file(t, "a file.fits", tc.size)
			receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/" + key, Label: "night 1"})
			if err != nil {
				t.Fatal(err)
			}
			r.wantObject(t, key, content)
			if receipt.State != push.Done || receipt.Size != int64(tc.size) || receipt.Parts != tc.parts || receipt.Attempts != 1 ||
				receipt.File != path || receipt.Bucket != "bucket" || receipt.Key != key || receipt.Label != "night 1" ||
				receipt.Destination != "s3://bucket/"+key || len(receipt.ID) != 36 || receipt.ID[14] != '7' {
				t.Errorf("receipt %+v", receipt)
			}
			if receipt.StartedAt.Before(receipt.AcceptedAt) || receipt.FinishedAt.Before(receipt.StartedAt) {
				t.Errorf("times run backwards: %+v", receipt)
			}
			if tc.parts == 1 {
				sum := md5.Sum(content)
				if receipt.ETag != hex.EncodeToString(sum[:]) {
					t.Errorf("etag %q", receipt.ETag)
				}
				if receipt.Checksum == nil || receipt.Checksum.Algorithm != "crc64nvme" {
					t.Errorf("checksum %v", receipt.Checksum)
				}
			}
		})
	}
}

func TestOddKeys(t *testing.T) {
	r := newRig(t)
	path, content := r.file(t, "f", 100)
	for _, key := range []string{
		"plain", "a b", "a+b", "a%b", "a%20b", "a//b", "/leading", "trailing/", "//", "a/./b", "a/b/../c", "ümläut/星", "a?b#c&d=e",
		`quo"te'<x>`, "a:b@c", "~tilde*!()", strings.Repeat("k", push.MaxKeyBytes), strings.Repeat("é", push.MaxKeyBytes/2),
	} {
		if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/" + key}); err != nil {
			t.Errorf("key %s: %v", push.Quote(key), err)
			continue
		}
		r.wantObject(t, key, content)
	}
}

func TestOptionalFieldsReachTheStore(t *testing.T) {
	r := newRig(t)
	headers := make(chan http.Header, 1)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		headers <- req.Header.Clone()
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", 10)
	_, err := r.Push(t.Context(), push.Request{
		File: path, Destination: "s3://bucket/k", ContentType: "image/fits", StorageClass: "STANDARD_IA",
		Metadata: map[string]string{"camera": "R22 S11"}, Tags: map[string]string{"night": "2026-11-23", "a&b": "c=d e"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := <-headers
	for name, want := range map[string]string{
		"Content-Type": "image/fits", "X-Amz-Meta-Camera": "R22 S11", "X-Amz-Storage-Class": "STANDARD_IA",
		"X-Amz-Tagging": "a%26b=c%3Dd%20e&night=2026-11-23", "X-Amz-Content-Sha256": "UNSIGNED-PAYLOAD", "Content-Length": "10",
		"Expect": "", "Transfer-Encoding": "", "Content-Encoding": "",
	} {
		if got.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Get(name), want)
		}
	}
	if got.Get("X-Amz-Checksum-Crc64nvme") == "" {
		t.Error("no checksum header")
	}
}

// TestFaultsAreRetried spoils the first tries of each request of a push in
// several ways; the push must get through, whole, and say how often it tried.
func TestFaultsAreRetried(t *testing.T) {
	answer := func(status int, body string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
			io.Copy(io.Discard, req.Body)
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	faults := map[string]func(http.ResponseWriter, *http.Request, http.Handler){
		"500": answer(500, `<Error><Code>InternalError</Code></Error>`),
		"503": answer(503, `<Error><Code>SlowDown</Code></Error>`),
		"429": answer(429, ""),
		"reset": func(http.ResponseWriter, *http.Request, http.Handler) {
			panic(http.ErrAbortHandler)
		},
		"stored but not said": func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if req.Method == http.MethodPut { // a POST would begin or end an upload twice
				next.ServeHTTP(discard{make(http.Header)}, req)
			}
			panic(http.ErrAbortHandler)
		},
	}
	for name, fault := range faults {
		for _, size := range []int{1000, testPart + 1000} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				r := newRig(t)
				var mu sync.Mutex
				seen := make(map[string]int)
				r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
					mu.Lock()
					seen[req.Method+req.URL.String()]++
					n := seen[req.Method+req.URL.String()]
					mu.Unlock()
					// Completing is not repeated: TestUnclearCompletion.
					completes := req.Method == http.MethodPost && req.URL.Query().Has("uploadId")
					if n <= 2 && req.Method != http.MethodHead && !(completes && name != "429") {
						fault(w, req, next)
						return
					}
					next.ServeHTTP(w, req)
				})
				path, content := r.file(t, "f", size)
				receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
				want := 3
				switch {
				case size < testPart && name == "stored but not said":
					want = 1 // and a question
				case size > testPart:
					want = 1 + 1 + 3 // two failures of the first request, and two of each other
				}
				if err != nil || receipt.Attempts != want {
					t.Fatalf("%v, receipt %+v", err, receipt)
				}
				r.wantObject(t, "k", content)
			})
		}
	}
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

func TestFailuresSayWhy(t *testing.T) {
	refuse := func(status int, code string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
			io.Copy(io.Discard, req.Body)
			w.Header().Set("X-Amz-Request-Id", "req-7")
			w.WriteHeader(status)
			fmt.Fprintf(w, "<Error><Code>%s</Code><Message>two\nlines</Message></Error>", code)
		}
	}
	for _, tc := range []struct {
		name, dest string
		fault      func(http.ResponseWriter, *http.Request, http.Handler)
		code       push.Code
		store      string // code in the store's answer
		tries      int
		says       string
	}{
		{"no bucket", "s3://nowhere/k", nil, push.StoreRefused, "NoSuchBucket", 1, "create the bucket"},
		{"denied", "s3://bucket/k", refuse(403, "AccessDenied"), push.StoreRefused, "AccessDenied", 2, "may not write"},
		{"bad signature", "s3://bucket/k", refuse(403, "SignatureDoesNotMatch"), push.StoreRefused, "SignatureDoesNotMatch", 1, "AWS_SECRET_ACCESS_KEY"},
		{"region", "s3://bucket/k", refuse(301, "PermanentRedirect"), push.StoreRefused, "PermanentRedirect", 1, "AWS_REGION"},
		{"overloaded for ever", "s3://bucket/k", refuse(503, "SlowDown"), push.StoreRefused, "SlowDown", 3, "later"},
		{"never an answer", "s3://bucket/k", func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) },
			push.StoreUnreachable, "", 3, "no usable answer from the store"},
		{"other bytes", "s3://bucket/k", func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
			io.Copy(io.Discard, req.Body)
			w.Header().Set("X-Amz-Checksum-Crc64nvme", "AAAAAAAAAAA=")
		}, push.ChecksumMismatch, "", 3, "other bytes"},
		{"name of another service", "s3://arn:aws:x/k", nil, push.StoreRefused, "NoSuchBucket", 1, "create the bucket"},
	} {
		for _, size := range []int{100, testPart + 1} {
			if tc.code == push.ChecksumMismatch && size > 100 {
				continue // that is TestPartsAreCompared
			}
			t.Run(fmt.Sprint(tc.name, " ", size), func(t *testing.T) {
				r := newRig(t)
				var tries atomic.Int32
				r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
					if req.Method != http.MethodGet { // what an earlier attempt may have begun is asked for
						tries.Add(1)
					}
					if tc.fault == nil {
						next.ServeHTTP(w, req)
						return
					}
					tc.fault(w, req, next)
				})
				path, _ := r.file(t, "f", size)
				receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: tc.dest})
				var e *push.Error
				if !errors.As(err, &e) {
					t.Fatalf("error %v", err)
				}
				if e.Code != tc.code || !strings.Contains(e.Detail, tc.says) || strings.ContainsAny(e.Detail, "\n\r") {
					t.Errorf("code %s, detail %q", e.Code, e.Detail)
				}
				// The answer to a question for an object has no body to name a code in.
				asked := size == 100 && tc.store == "SlowDown" && e.Store != nil && e.Store.Code == "ServiceUnavailable"
				if tc.store != "" && !asked && (e.Store == nil || e.Store.Code != tc.store || e.Store.RequestID == "") {
					t.Errorf("the store's answer: %+v", e.Store)
				}
				if int(tries.Load()) != tc.tries || receipt.Attempts != max(1, tc.tries) {
					t.Errorf("%d tries, the receipt says %d, want %d", tries.Load(), receipt.Attempts, tc.tries)
				}
				if receipt.ID == "" || receipt.State != push.Failed {
					t.Errorf("receipt %+v", receipt)
				}
				if got := testutil.ToFloat64(r.metrics.failures.WithLabelValues(string(tc.code))); got != 1 {
					t.Errorf("%v failures counted", got)
				}
			})
		}
	}
}

// TestUnclearCompletion loses the answer to completions that were carried out, on
// a store whose objects of parts have the MD5 of the whole: that is the proof, and
// no upload is begun or completed twice, nor aborted.
func TestUnclearCompletion(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"reset":          func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"504 of a proxy": func(w http.ResponseWriter) { w.WriteHeader(504) },
		"error inside":   func(w http.ResponseWriter) { io.WriteString(w, "<Error><Code>InternalError</Code></Error>") },
		"broken off":     func(w http.ResponseWriter) { io.WriteString(w, "<CompleteMult") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			var uploads, completions, aborts atomic.Int32
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				switch {
				case req.URL.Query().Has("uploads"):
					uploads.Add(1)
				case req.Method == http.MethodPost && req.URL.Query().Has("uploadId"):
					completions.Add(1)
					next.ServeHTTP(discard{make(http.Header)}, req)
					answer(w)
					return
				case req.Method == http.MethodDelete:
					aborts.Add(1)
				}
				next.ServeHTTP(w, req)
			})
			path, content := r.file(t, "f", testPart+1)
			receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
			if err != nil || *receipt.Verified != (push.Verified{What: "object", Algorithm: "md5", By: "daemon", Value: fmt.Sprintf("%x", md5.Sum(content))}) {
				t.Errorf("%v, verified %+v", err, receipt.Verified)
			}
			if completions.Load() != 1 || aborts.Load() != 0 || uploads.Load() != 1 {
				t.Errorf("%d uploads, %d completions, %d aborts, want one, one, none", uploads.Load(), completions.Load(), aborts.Load())
			}
			r.wantObject(t, "k", content)
		})
	}
}

// TestPartsAreCompared has the store claim another checksum for one part: the
// push must fail, and leave its upload to the janitor.
func TestPartsAreCompared(t *testing.T) {
	r := newRig(t)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.URL.Query().Get("partNumber") == "2" {
			io.Copy(io.Discard, req.Body)
			w.Header().Set("X-Amz-Checksum-Crc64nvme", "AAAAAAAAAAA=")
			w.Header().Set("Etag", `"x"`)
			return
		}
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", 2*testPart)
	_, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	var e *push.Error
	if !errors.As(err, &e) || e.Code != push.ChecksumMismatch {
		t.Errorf("error %v", err)
	}
	until(t, "the janitor has given up what was begun", func() bool { return len(r.recorded(t)) == 0 && len(r.uploadsLeft(t)) == 0 })
}

func TestChangedFileIsNeverDone(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(path string) error
		code   push.Code
	}{
		{"grown", func(p string) error { return os.WriteFile(p, make([]byte, testPart+5000), 0o644) }, push.FileChanged},
		{"truncated", func(p string) error { return os.Truncate(p, 10) }, push.FileChanged},
		{"rewritten", func(p string) error {
			if err := os.WriteFile(p, make([]byte, testPart+1000), 0o644); err != nil {
				return err
			}
			return os.Chtimes(p, time.Time{}, time.Unix(1, 0))
		}, push.FileChanged},
	} {
		for _, size := range []int{1000, testPart + 1000} {
			t.Run(fmt.Sprint(tc.name, " ", size), func(t *testing.T) {
				r := newRig(t)
				path, _ := r.file(t, "f", size)
				var once sync.Once
				r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
					once.Do(func() {
						if err := tc.change(path); err != nil {
							t.Error(err)
						}
					})
					next.ServeHTTP(w, req)
				})
				_, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
				var e *push.Error
				if !errors.As(err, &e) || e.Code != tc.code {
					t.Fatalf("error %v", err)
				}
				if size > testPart {
					if _, err := r.store.Get("bucket", "k"); err == nil {
						t.Error("an upload in parts of a changed file was completed")
					}
				}
			})
		}
	}
}

func TestRefusedIsNoPush(t *testing.T) {
	r := newRig(t)
	receipt, err := r.Push(t.Context(), push.Request{File: "/nowhere/f", Destination: "s3://bucket/k"})
	var e *push.Error
	if !errors.As(err, &e) || e.Code != push.FileNotFound || receipt.ID != "" {
		t.Errorf("%v, receipt %+v", err, receipt)
	}
	if n := testutil.ToFloat64(r.metrics.pushes.WithLabelValues("refused")); n != 1 {
		t.Errorf("%v refused", n)
	}
}

// TestPoolIsBounded pushes many files at once, small and large, through a small
// pool: the store must never see more requests than slots, and never more
// connections either; afterwards nothing is left running.
func TestPoolIsBounded(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("load", func(t *testing.T) {
		r := newRig(t)
		var now, most atomic.Int32
		r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			n := now.Add(1)
			defer now.Add(-1)
			for {
				m := most.Load()
				if n <= m || most.CompareAndSwap(m, n) {
					break
				}
			}
			next.ServeHTTP(w, req)
		})
		small, smallContent := r.file(t, "small", 10_000)
		large, largeContent := r.file(t, "large", 2*testPart+1)
		var pushes sync.WaitGroup
		for i := range 200 {
			pushes.Go(func() {
				path := small
				if i%40 == 0 {
					path = large
				}
				if _, err := r.Push(t.Context(), push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i)}); err != nil {
					t.Errorf("push %d: %v", i, err)
				}
			})
		}
		pushes.Wait()
		if most.Load() > 4 {
			t.Errorf("%d requests at once through 4 slots", most.Load())
		}
		for i := range 200 {
			want := smallContent
			if i%40 == 0 {
				want = largeContent
			}
			r.wantObject(t, fmt.Sprint(i), want)
		}
		if queued, running := r.depth(); queued+running != 0 {
			t.Errorf("%d pushes counted as queued, %d as running", queued, running)
		}
	})
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		stack := make([]byte, 1<<20)
		t.Errorf("%d goroutines, %d before:\n%s", n, before, stack[:runtime.Stack(stack, true)])
	}
}

// TestSmallGoesBetweenLarge holds up all parts that have a slot: a small file
// must be delivered all the same.
func TestSmallGoesBetweenLarge(t *testing.T) {
	r := newRig(t)
	hold := make(chan struct{})
	held := make(chan struct{}, 100)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.URL.Query().Has("partNumber") {
			held <- struct{}{}
			<-hold
		}
		next.ServeHTTP(w, req)
	})
	large, _ := r.file(t, "large", 3*testPart)
	small, _ := r.file(t, "small", 10)
	var pushes sync.WaitGroup
	for i := range 4 {
		pushes.Go(func() {
			if _, err := r.Push(t.Context(), push.Request{File: large, Destination: fmt.Sprintf("s3://bucket/large%d", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	for range 3 { // all that parts may have of 4 slots
		<-held
	}
	if _, err := r.Push(t.Context(), push.Request{File: small, Destination: "s3://bucket/small"}); err != nil {
		t.Error(err)
	}
	close(hold)
	pushes.Wait()
}

func TestHungUpCallerDoesNotCancel(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		cancel()
		<-left
		next.ServeHTTP(w, req)
	})
	path, content := r.file(t, "f", 100)
	receipt, err := r.Push(ctx, push.Request{File: path, Destination: "s3://bucket/k"})
	close(left)
	if err != nil || receipt.State != push.Running {
		t.Errorf("the caller who hung up got %+v, %v", receipt, err)
	}
	if _, err := r.List(t.Context(), push.Filter{}, time.Minute); err != nil {
		t.Error(err)
	}
	r.wantObject(t, "k", content)
}

func TestDrain(t *testing.T) {
	r := newRig(t)
	arrived, hold := make(chan struct{}, 10), make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		arrived <- struct{}{}
		<-hold
		next.ServeHTTP(w, req)
	})
	path, content := r.file(t, "f", 100)
	pushed := make(chan error)
	go func() {
		_, err := r.Push(context.Background(), push.Request{File: path, Destination: "s3://bucket/k"})
		pushed <- err
	}()
	<-arrived
	r.Close()
	_, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/late"})
	var e *push.Error
	if _, ready := r.Ready(); !errors.As(err, &e) || e.Code != push.ShuttingDown || ready == nil {
		t.Errorf("a late push: %v; ready: %v", err, ready)
	}
	close(hold)
	if stay := r.Drain(t.Context()); stay != 0 {
		t.Errorf("%d pushes stay", stay)
	}
	if err := <-pushed; err != nil {
		t.Errorf("the push in flight: %v", err)
	}
	r.wantObject(t, "k", content)
}

// TestDrainCutsOff lets the drain run out of time: running and waiting pushes
// must end at once, told why, with their uploads kept for the next daemon.
func TestDrainCutsOff(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = 2 })
	begun := make(chan struct{}, 100)
	stop := make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		switch {
		case req.URL.Query().Has("uploads"):
			next.ServeHTTP(w, req)
			begun <- struct{}{}
		case req.Method == http.MethodPut:
			<-stop
		default:
			next.ServeHTTP(w, req)
		}
	})
	defer close(stop)
	path, _ := r.file(t, "f", testPart+1)
	const n = 5
	failed := make(chan error, n)
	for i := range n {
		go func() {
			_, err := r.Push(context.Background(), push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i)})
			failed <- err
		}()
	}
	<-begun
	<-begun
	// The others wait for their turn, and both that run have read the answer.
	for queued := 0; queued < n-2 ||
		testutil.ToFloat64(r.metrics.requests.WithLabelValues("CreateMultipartUpload", "2xx")) < 2; queued, _ = r.depth() {
		runtime.Gosched()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r.stays = r.Drain(ctx); r.stays != n {
		t.Errorf("%d pushes stay in the journal, want %d", r.stays, n)
	}
	for range n {
		var e *push.Error
		if err := <-failed; !errors.As(err, &e) || e.Code != push.ShuttingDown {
			t.Errorf("a push that was cut off: %v", err)
		}
	}
	if left := r.recorded(t); len(left) != 2 || left[0].ID == "" || left[1].ID == "" {
		t.Errorf("the uploads that go on another time are %v, want those of the 2 that ran", left)
	}
}

func TestNoCredentials(t *testing.T) {
	r := newRig(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	up, err := New(t.Context(), Config{Endpoint: r.store.URL, MaxConnections: 1, Attempts: 2, ConnectTimeout: time.Second, StallTimeout: 5 * time.Second,
		GiveUpAfter: time.Hour, QueueLimit: 10, Journal: openJournal(t, t.TempDir()),
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	path, _ := r.file(t, "f", 1)
	defer up.Drain(t.Context())
	_, err = up.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}, push.Options{Wait: push.Forever})
	var e *push.Error
	if !errors.As(err, &e) || e.Code != push.NoCredentials || !strings.Contains(e.Detail, "AWS_ACCESS_KEY_ID") {
		t.Errorf("error %v", err)
	}
}

// TestETagOfParts has a store that leaves the ETag out when it completes an
// upload, as Ceph 16 does: the receipt must have the one that it then shows.
func TestETagOfParts(t *testing.T) {
	r := newRig(t)
	var want string
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodPost && req.URL.Query().Has("uploadId") {
			next.ServeHTTP(discard{make(http.Header)}, req)
			io.WriteString(w, "<CompleteMultipartUploadResult><Key>k</Key><ETag></ETag></CompleteMultipartUploadResult>")
			return
		}
		if req.Method == http.MethodHead {
			w.Header().Set("Content-Length", strconv.Itoa(2*testPart+1))
			w.Header().Set("Etag", `"`+want+`"`)
			return
		}
		next.ServeHTTP(w, req)
	})
	path, content := r.file(t, "f", 2*testPart+1)
	want = wantValue(&push.Verified{What: "parts", Algorithm: "md5"}, content)
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	if err != nil || receipt.ETag != want {
		t.Errorf("%v, etag %q, want %q", err, receipt.ETag, want)
	}
}

func TestRegionThatIsNone(t *testing.T) {
	t.Setenv("AWS_REGION", "us east/1")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	_, err := New(t.Context(), Config{MaxConnections: 1, Attempts: 1, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("error %v", err)
	}
}
