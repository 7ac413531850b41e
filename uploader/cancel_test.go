package uploader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

func refuse(status int) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		io.Copy(io.Discard, req.Body)
		w.WriteHeader(status)
	}
}

// noBucket is a refusal that no later attempt changes.
func noBucket(w http.ResponseWriter, req *http.Request, _ http.Handler) {
	io.Copy(io.Discard, req.Body)
	w.WriteHeader(404)
	io.WriteString(w, "<Error><Code>NoSuchBucket</Code></Error>")
}

func breakOff(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }

// keepAndBreakOff stores the object and loses the answer.
func keepAndBreakOff(_ http.ResponseWriter, req *http.Request, next http.Handler) {
	next.ServeHTTP(discard{make(http.Header)}, req)
	panic(http.ErrAbortHandler)
}

// untilCancelled waits until a push that runs knows that it is cancelled, or has
// ended.
func (r *rig) untilCancelled(t *testing.T, id push.ID) {
	t.Helper()
	until(t, "the push knows that it is cancelled", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		e := r.live[id]
		return e == nil || e.task.cancelled
	})
}

// TestCancelRunning cancels pushes in every state of their one request. What
// the store has in the end must be what the receipt says.
func TestCancelRunning(t *testing.T) {
	const small, whole = 1000, testPart
	for _, tc := range []struct {
		name   string
		size   int
		unread bool // the store has not read the body when the push is cancelled
		answer func(http.ResponseWriter, *http.Request, http.Handler)
		head   func(http.ResponseWriter, *http.Request, http.Handler) // nil: the store's own
		want   push.State
	}{
		{"before the last byte", whole, true, pass, nil, push.Cancelled},
		{"all sent, and stored", whole, false, pass, nil, push.Done},
		{"all sent, and stored, a small file", small, true, pass, nil, push.Done},
		{"all sent, and refused", whole, false, refuse(403), nil, push.Cancelled},
		{"all sent, and refused for now", whole, false, refuse(503), nil, push.Cancelled},
		{"stored, and the answer lost", whole, false, keepAndBreakOff, nil, push.Done},
		{"stored, the answer lost, a store without checksums", small, false, keepAndBreakOff, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			next.ServeHTTP(withoutChecksum{w}, req)
		}, push.Done},
		{"not stored, and no answer", whole, false, breakOff, nil, push.Cancelled},
		{"not stored, no answer, another object there", small, false, breakOff, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Length", "1000")
			w.Header().Set("Etag", `"0123456789abcdef0123456789abcdef"`)
		}, push.Cancelled},
		{"no answer to anything", small, false, breakOff, refuse(500), push.Failed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			g := r.hold(t, tc.unread, tc.answer)
			held := *r.fault.Load()
			var puts atomic.Int32
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				switch {
				case req.Method == http.MethodPut:
					puts.Add(1)
					held(w, req, next)
				case req.Method == http.MethodHead && tc.head != nil:
					tc.head(w, req, next)
				default:
					next.ServeHTTP(w, req)
				}
			})
			path, content := r.file(t, "f", tc.size)
			waiting := make(chan error, 1)
			go func() {
				_, err := r.Push(context.Background(), push.Request{File: path, Destination: "s3://bucket/k"})
				waiting <- err
			}()
			<-g.arrived
			page, err := r.List(t.Context(), push.Filter{}, 0)
			if err != nil || len(page.Pushes) != 1 {
				t.Fatal(page, err)
			}
			id := parseID(t, page.Pushes[0].ID)
			cancelled := make(chan push.Receipt, 1)
			go func() {
				receipt, err := r.Cancel(context.Background(), id)
				if (err != nil) != (tc.want == push.Failed) {
					t.Errorf("cancel: %v", err)
				}
				cancelled <- receipt
			}()
			r.untilCancelled(t, id)
			if tc.want == push.Cancelled && tc.name == "before the last byte" {
				<-waiting // it does not need the store for that
				waiting <- push.Errorf(push.WasCancelled, "")
			}
			g.let()
			if receipt := <-cancelled; receipt.State != tc.want {
				t.Errorf("the receipt says %s, want %s", receipt.State, tc.want)
			}
			err = <-waiting
			switch tc.want {
			case push.Done:
				if err != nil {
					t.Errorf("the caller who waited: %v", err)
				}
				r.wantObject(t, "k", content)
			case push.Cancelled:
				wantCode(t, err, push.WasCancelled)
				if _, err := r.store.Get("bucket", "k"); err == nil {
					t.Error("the store has the object")
				}
			case push.Failed:
				wantCode(t, err, push.StoreUnreachable)
			}
			if puts.Load() != 1 {
				t.Errorf("%d requests carried the file, want the one that was cancelled", puts.Load())
			}
			_, err = r.Cancel(t.Context(), id)
			if tc.want == push.Cancelled {
				if err != nil {
					t.Errorf("cancelled once more: %v", err)
				}
			} else {
				wantCode(t, err, push.PushEnded)
			}
		})
	}
}

// withoutChecksum hides the checksum that a store shows.
type withoutChecksum struct{ http.ResponseWriter }

func (w withoutChecksum) WriteHeader(status int) {
	for name := range w.Header() {
		if strings.HasPrefix(name, "X-Amz-Checksum") {
			w.Header().Del(name)
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// TestCancelParts cancels a push in parts: before it is completed nothing is
// left of it, and after that it is done.
func TestCancelParts(t *testing.T) {
	for _, tc := range []struct {
		name string
		at   func(*http.Request) bool // what is held
		want push.State
	}{
		{"at its creation", func(req *http.Request) bool { return req.URL.Query().Has("uploads") }, push.Cancelled},
		{"at a part", func(req *http.Request) bool { return req.URL.Query().Get("partNumber") == "2" }, push.Cancelled},
		{"at its completion", func(req *http.Request) bool {
			return req.Method == http.MethodPost && req.URL.Query().Has("uploadId")
		}, push.Done},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			arrived, open := make(chan struct{}, 100), make(chan struct{})
			var begun atomic.Int32
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if tc.at(req) {
					arrived <- struct{}{}
					<-open
				}
				if req.URL.Query().Has("uploads") {
					begun.Add(1)
				}
				next.ServeHTTP(w, req)
			})
			path, content := r.file(t, "f", 2*testPart+1)
			id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
			<-arrived
			cancelled := make(chan push.Receipt, 1)
			go func() {
				receipt, err := r.Cancel(context.Background(), id)
				if err != nil {
					t.Error(err)
				}
				cancelled <- receipt
			}()
			r.untilCancelled(t, id)
			close(open)
			if receipt := <-cancelled; receipt.State != tc.want {
				t.Errorf("%+v, want %s", receipt, tc.want)
			}
			if tc.want == push.Done {
				r.wantObject(t, "k", content)
				return
			}
			if begun.Load() != 1 {
				t.Errorf("%d uploads were begun", begun.Load())
			}
			until(t, "the janitor has given it up", func() bool { return len(r.recorded(t)) == 0 && len(r.uploadsLeft(t)) == 0 })
		})
	}
}

// TestCancelQueued cancels what waits: for a place, behind another push to its
// object, for another attempt.
func TestCancelQueued(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = 1 })
	r.retry.jitter = func(time.Duration) time.Duration { return time.Hour }
	g := r.hold(t, true, pass)
	path, _ := r.file(t, "f", 100)
	push1 := func(key string) push.ID {
		return r.later(t, push.Request{File: path, Destination: "s3://bucket/" + key})
	}
	running := push1("running")
	<-g.arrived
	waiting, behind, last := push1("waiting"), push1("running"), push1("running")
	for _, id := range []push.ID{waiting, behind} {
		if receipt, err := r.Cancel(t.Context(), id); err != nil || receipt.State != push.Cancelled || receipt.Problem == nil {
			t.Errorf("%+v, %v", receipt, err)
		}
	}
	g.let()
	r.ended(t, running, push.Done)
	r.ended(t, last, push.Done)
	var heads atomic.Int32
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodHead { // the store may have it from the attempt that failed
			heads.Add(1)
			next.ServeHTTP(w, req)
			return
		}
		refuse(503)(w, req, next)
	})
	failing := push1("failing")
	until(t, "it waits for another attempt", func() bool {
		receipt, err := r.Get(t.Context(), failing, 0)
		return err == nil && !receipt.RetryAt.IsZero() && receipt.Problem != nil && receipt.Attempts == 1
	})
	if receipt, err := r.Cancel(t.Context(), failing); err != nil || receipt.State != push.Cancelled || receipt.Attempts != 1 {
		t.Errorf("%+v, %v", receipt, err)
	}
	if heads.Load() != 1 {
		t.Errorf("the store was asked %d times", heads.Load())
	}
	// The same, but for the attempt whose answer was lost having stored it.
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodHead {
			next.ServeHTTP(w, req)
			return
		}
		next.ServeHTTP(discard{make(http.Header)}, req)
		w.WriteHeader(503)
	})
	stored := push1("stored")
	until(t, "it waits for another attempt", func() bool {
		receipt, err := r.Get(t.Context(), stored, 0)
		return err == nil && !receipt.RetryAt.IsZero()
	})
	if receipt, err := r.Cancel(t.Context(), stored); err != nil || receipt.State != push.Done || receipt.ETag == "" {
		t.Errorf("%+v, %v", receipt, err)
	}
	if queued, running := r.depth(); queued+running != 0 {
		t.Errorf("%d queued, %d running", queued, running)
	}
}

// TestCancelTakenUp cancels pushes that an earlier process left: it may have
// delivered them, so the store decides.
func TestCancelTakenUp(t *testing.T) {
	r := newRig(t)
	g := r.hold(t, true, breakOff)
	small, content := r.file(t, "small", 100)
	large, _ := r.file(t, "large", 2*testPart+1)
	var ids []push.ID
	for i, path := range []string{small, small, large} {
		ids = append(ids, r.later(t, push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i)}))
	}
	for range ids {
		<-g.arrived
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	r.stays = r.Drain(over)
	g.let()
	r.spoil(pass)
	if err := r.store.Put("bucket", "0", content); err != nil {
		t.Fatal(err)
	}
	next := r.again(t, func(u *Uploader) { u.queue.paused = true })
	for i, want := range []push.State{push.Done, push.Cancelled, push.Cancelled} {
		if receipt, err := next.Cancel(t.Context(), ids[i]); err != nil || receipt.State != want {
			t.Errorf("push %d: %+v, %v, want %s", i, receipt, err, want)
		}
	}
}

// TestRetryOfEnded puts failed and cancelled pushes back.
func TestRetryOfEnded(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 100)
	dest := "s3://bucket/k"
	r.spoil(noBucket)
	failed := r.later(t, push.Request{File: path, Destination: dest, Label: "L", Metadata: map[string]string{"a": "b"}})
	first := r.ended(t, failed, push.Failed)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err := r.Retry(t.Context(), failed)
	wantCode(t, err, push.FileNotFound)
	_, content := r.file(t, "f", 200) // another file by now, which is what is meant
	r.spoil(pass)
	again, err := r.Retry(t.Context(), failed)
	if err != nil || again.ID != first.ID || again.State.Ended() || again.Problem != nil || again.Size != 200 {
		t.Errorf("put back: %+v, %v", again, err)
	}
	done := r.ended(t, failed, push.Done)
	if done.Label != "L" || done.AcceptedAt != first.AcceptedAt || done.Attempts != 1 {
		t.Errorf("%+v, want the same push as %+v", done, first)
	}
	r.wantObject(t, "k", content)
	if about, err := r.store.Metadata("bucket", "k"); err != nil || about["X-Amz-Meta-A"] != "b" {
		t.Errorf("metadata %v, %v", about, err)
	}
	_, err = r.Retry(t.Context(), failed)
	wantCode(t, err, push.PushNotFailed)
	_, err = r.Retry(t.Context(), push.NewID(time.Now(), 0, [8]byte{1}))
	wantCode(t, err, push.PushNotFound)
}

// TestRetryIsSuperseded: an older file never overwrites a newer one, not even
// if somebody asks for it.
func TestRetryIsSuperseded(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 100)
	newer, content := r.file(t, "newer", 200)
	r.spoil(noBucket)
	old := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	r.ended(t, old, push.Failed)
	also := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	r.ended(t, also, push.Failed)
	g := r.hold(t, true, pass)
	young := r.later(t, push.Request{File: newer, Destination: "s3://bucket/k"})
	<-g.arrived
	_, err := r.Retry(t.Context(), old)
	wantCode(t, err, push.Superseded) // it runs
	g.let()
	r.ended(t, young, push.Done)
	_, err = r.Retry(t.Context(), also)
	wantCode(t, err, push.Superseded)
	r.wantObject(t, "k", content)

	// One that failed may have been delivered all the same, so it counts; one
	// that was cancelled does not.
	r.spoil(noBucket)
	first := r.later(t, push.Request{File: path, Destination: "s3://bucket/other"})
	r.ended(t, first, push.Failed)
	second := r.later(t, push.Request{File: newer, Destination: "s3://bucket/other"})
	r.ended(t, second, push.Failed)
	_, err = r.Retry(t.Context(), first)
	wantCode(t, err, push.Superseded)
	r.spoil(pass)
	if _, err := r.Retry(t.Context(), second); err != nil {
		t.Error(err)
	}
	r.ended(t, second, push.Done)
	r.wantObject(t, "other", content)
}

// TestRetryIsOvertaken has newer pushes accepted at the very moment at which an
// older one is put back.
func TestRetryIsOvertaken(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 100)
	newer, content := r.file(t, "newer", 200)
	for i := range 30 {
		dest := fmt.Sprintf("s3://bucket/%d", i)
		r.spoil(noBucket)
		old := r.later(t, push.Request{File: path, Destination: dest})
		r.ended(t, old, push.Failed)
		r.spoil(pass)
		pushed := make(chan push.ID, 1)
		go func() { pushed <- r.later(t, push.Request{File: newer, Destination: dest}) }()
		_, err := r.Retry(t.Context(), old)
		if e, ok := errors.AsType[*push.Error](err); err != nil && (!ok || e.Code != push.Superseded) {
			t.Errorf("put back: %v", err)
		}
		r.ended(t, <-pushed, push.Done)
		if _, err := r.List(t.Context(), push.Filter{}, patience); err != nil {
			t.Error(err)
		}
		r.wantObject(t, fmt.Sprint(i), content)
		if receipt, e := r.Get(t.Context(), old, 0); e != nil || (receipt.State == push.Done) != (err == nil) {
			t.Errorf("put back with %v: %+v, %v", err, receipt, e)
		}
	}
	if len(r.puttingBack) != 0 {
		t.Errorf("%v", r.puttingBack)
	}
}
