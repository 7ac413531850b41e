package uploader

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/transport"
)

// fate is what becomes of a request: whether the store gets it, and what its
// sender hears then.
type fate struct {
	stored bool
	answer func(http.ResponseWriter) // nil: the store's own
}

var (
	breaksOff = func(w http.ResponseWriter) {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			conn.Close()
		}
	}
	failsInside = func(w http.ResponseWriter) {
		io.WriteString(w, "<Error><Code>InternalError</Code></Error>")
	}
	fails = func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }
)

// ends has the first request of an operation end so, and all others as they do,
// and returns the operations that were asked for.
func (r *rig) ends(operation string, how fate) (asked func() []string) {
	var mu sync.Mutex
	var all []string
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		mu.Lock()
		op := operationOf(req)
		met := op == operation && !slices.Contains(all, op)
		all = append(all, op)
		mu.Unlock()
		switch {
		case !met, how.answer == nil:
			next.ServeHTTP(w, req)
			return
		case how.stored:
			next.ServeHTTP(httptest.NewRecorder(), req)
		default:
			io.Copy(io.Discard, req.Body)
		}
		how.answer(w)
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// TestPutIsNotRepeatedBlindly: after a PutObject whose end does not say whether
// the store has the object, the store is asked before the file is sent again.
func TestPutIsNotRepeatedBlindly(t *testing.T) {
	for name, how := range map[string]fate{
		"breaks off": {answer: breaksOff}, "500": {answer: fails}, "an error in 200": {answer: failsInside},
	} {
		for _, how.stored = range []bool{true, false} {
			for _, size := range []int{0, 1000, inMemory + 1, 1 << 20} {
				for _, sdk := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s, stored %v, %d bytes, by the SDK %v", name, how.stored, size, sdk), func(t *testing.T) {
						r := newRig(t)
						if sdk {
							r.putter = nil
						}
						path, content := r.file(t, "f", size)
						asked := r.ends(putting, how)
						got, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k", Metadata: map[string]string{"a": "b"}})
						if err != nil {
							t.Fatal(err)
						}
						want, attempts := []string{putting, asking}, 1
						if !how.stored {
							want, attempts = append(want, putting), 2
						}
						if !slices.Equal(asked(), want) || got.Attempts != attempts {
							t.Errorf("asked for %q in %d attempts, want %q in %d", asked(), got.Attempts, want, attempts)
						}
						if v := got.Verified; v.What != "object" || v.Value != wantValue(v, content) || got.ETag != wantValue(&push.Verified{What: "object", Algorithm: "md5"}, content) {
							t.Errorf("the receipt is %+v, verified %+v", got, v)
						}
						r.wantObject(t, "k", content)
					})
				}
			}
		}
	}
}

// TestLastEndIsUnclear: a push does not fail whose last attempt made the object.
func TestLastEndIsUnclear(t *testing.T) {
	for _, stored := range []bool{true, false} {
		r := newRig(t, func(c *Config) { c.Attempts = 1 })
		path, content := r.file(t, "f", 1000)
		asked := r.ends(putting, fate{stored, fails})
		receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
		if (err == nil) != stored || receipt.Attempts != 1 {
			t.Errorf("stored %v: %v, %+v", stored, err, receipt)
		}
		if want := []string{putting, asking}; !slices.Equal(asked(), want) {
			t.Errorf("stored %v: %q, want %q", stored, asked(), want)
		}
		if stored {
			r.wantObject(t, "k", content)
		}
	}
}

// TestClearEndsAreNotAskedAbout: what the store refused it has not done.
func TestClearEndsAreNotAskedAbout(t *testing.T) {
	for _, status := range []int{http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusConflict} {
		r := newRig(t)
		path, content := r.file(t, "f", 1000)
		asked := r.ends(putting, fate{answer: func(w http.ResponseWriter) { w.WriteHeader(status) }})
		if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}); err != nil {
			t.Fatal(err)
		}
		if want := []string{putting, putting}; !slices.Equal(asked(), want) {
			t.Errorf("after %d: %q, want %q", status, asked(), want)
		}
		r.wantObject(t, "k", content)
	}
}

// TestOlderObject: an object of the same bytes that was there before, or has
// another description, was not made by the request whose end is unclear.
func TestOlderObject(t *testing.T) {
	for name, change := range map[string]func(*push.Request, http.Header){
		"written before": func(_ *push.Request, h http.Header) {
			h.Set("Last-Modified", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		},
		"another type":     func(r *push.Request, _ http.Header) { r.ContentType = "text/plain" },
		"without metadata": func(r *push.Request, _ http.Header) { r.Metadata = map[string]string{"a": "b"} },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			path, _ := r.file(t, "f", 1000)
			request := push.Request{File: path, Destination: "s3://bucket/k", ContentType: "image/fits"}
			if _, err := r.Push(t.Context(), request); err != nil {
				t.Fatal(err)
			}
			heads := make(http.Header)
			change(&request, heads)
			puts := 0
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				switch {
				case operationOf(req) == asking:
					answer := httptest.NewRecorder()
					next.ServeHTTP(answer, req)
					for name := range answer.Header() {
						w.Header().Set(name, answer.Header().Get(name))
					}
					for name := range heads {
						w.Header().Set(name, heads.Get(name))
					}
				case puts == 0:
					puts++
					io.Copy(io.Discard, req.Body)
					fails(w)
				default:
					puts++
					next.ServeHTTP(w, req)
				}
			})
			if _, err := r.Push(t.Context(), request); err != nil || puts != 2 {
				t.Errorf("%d requests, %v, want 2: it had to be sent again", puts, err)
			}
		})
	}
}

// TestQuestionUnanswered: a file is not sent again before the question whether it
// is there has been answered, be it by a refusal to say.
func TestQuestionUnanswered(t *testing.T) {
	for status, want := range map[int]string{
		http.StatusServiceUnavailable: "PutObject HeadObject HeadObject HeadObject", // which says that it is there
		http.StatusForbidden:          "PutObject HeadObject PutObject",
	} {
		r := newRig(t, func(c *Config) { c.Attempts = 5 })
		path, content := r.file(t, "f", 1000)
		var asked []string
		r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			op := operationOf(req)
			asked = append(asked, op)
			switch {
			case op == putting && len(asked) == 1:
				next.ServeHTTP(httptest.NewRecorder(), req)
				fails(w)
			case op == asking && len(asked) < 4:
				w.WriteHeader(status)
			default:
				next.ServeHTTP(w, req)
			}
		})
		if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}); err != nil {
			t.Errorf("%d: %v", status, err)
		}
		if got := strings.Join(asked, " "); got != want {
			t.Errorf("where a question is answered %d: %s, want %s", status, got, want)
		}
		r.wantObject(t, "k", content)
	}
}

// TestQuestionInVainIsTheLast: where the store has just not said whether it has the
// object, it is not asked again at once.
func TestQuestionInVainIsTheLast(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Attempts = 1 })
	path, _ := r.file(t, "f", 1000)
	if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/before"}); err != nil { // so that a connection is open
		t.Fatal(err)
	}
	var mu sync.Mutex
	var asked []string // guarded by mu
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		mu.Lock()
		asked = append(asked, operationOf(req))
		mu.Unlock()
		io.Copy(io.Discard, req.Body)
		if operationOf(req) == putting {
			breaksOff(w)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	if receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}); err == nil {
		t.Errorf("%+v", receipt)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{putting, asking}; !slices.Equal(asked, want) {
		t.Errorf("%q, want %q", asked, want)
	}
}

// brokenClient breaks the first requests as a connection does that was gone.
type brokenClient struct {
	s3.HTTPClient
	left atomic.Int32
}

func (c *brokenClient) Do(req *http.Request) (*http.Response, error) {
	if c.left.Add(-1) >= 0 {
		req.Body.Close()
		return nil, &transport.BrokenError{Reused: true, Untaken: true, Err: io.EOF}
	}
	return c.HTTPClient.Do(req)
}

// TestUntaken: what the store has not heard goes again at once, and is no attempt
// as often as there are connections; after that it is one. Nothing is asked first.
func TestUntaken(t *testing.T) {
	for _, tt := range []struct{ gone, attempts int32 }{
		{1, 1}, {4, 1}, {5, 2}, // of four connections
	} {
		for _, size := range []int{1000, inMemory + 1} {
			t.Run(fmt.Sprint(tt.gone, " ", size), func(t *testing.T) {
				r := newRig(t)
				broken := &brokenClient{HTTPClient: r.putter.options.HTTPClient}
				r.putter.options.HTTPClient = broken
				broken.left.Store(tt.gone)
				var asked atomic.Int32
				r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
					if req.Method == http.MethodHead {
						asked.Add(1)
					}
					next.ServeHTTP(w, req)
				})
				path, content := r.file(t, "f", size)
				receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
				if err != nil || receipt.Attempts != int(tt.attempts) || asked.Load() != 0 {
					t.Errorf("%+v, %v; the store was asked %d times", receipt, err, asked.Load())
				}
				r.wantObject(t, "k", content)
			})
		}
	}
}
