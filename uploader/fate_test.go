package uploader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// errTimeout is what a dial ends with that nobody answers.
var errTimeout = &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}

// leftBehind leaves n pushes of the file in the journal and returns their ids.
func (r *rig) leftBehind(t *testing.T, path string, n int) (ids []push.ID) {
	t.Helper()
	g := r.hold(t, true, breakOff)
	for i := range n {
		ids = append(ids, r.later(t, push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i)}))
	}
	<-g.arrived
	over, cancel := context.WithCancel(t.Context())
	cancel()
	r.stays = r.Drain(over)
	g.let()
	r.spoil(pass)
	return ids
}

// cancelHeld cancels a push whose object the store has been sent, and not
// answered yet.
func (r *rig) cancelHeld(t *testing.T, size int, answer func(http.ResponseWriter, *http.Request, http.Handler), meanwhile func(path string)) push.Receipt {
	t.Helper()
	g := r.hold(t, false, answer)
	held := *r.fault.Load()
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodPut {
			held(w, req, next)
			return
		}
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", size)
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	<-g.arrived
	cancelled := make(chan push.Receipt, 1)
	go func() {
		receipt, _ := r.Cancel(context.Background(), id)
		cancelled <- receipt
	}()
	r.untilCancelled(t, id)
	meanwhile(path)
	g.let()
	return <-cancelled
}

// TestCompletionNotTried: where no connection can be made for a completion, it is
// made later, and counts as what it was.
func TestCompletionNotTried(t *testing.T) {
	r := newRig(t)
	var closed, failOnce atomic.Bool
	r.Uploader = r.again(t, func(u *Uploader) { // before the pool is opened
		connect := u.endpoint.connect
		u.endpoint.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
			if failOnce.CompareAndSwap(true, false) {
				return nil, errTimeout
			}
			return connect(ctx, network, address)
		}
	})
	var parts, completes atomic.Int32
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodHead && completes.Load() == 0 {
			w.WriteHeader(403)
			return
		}
		if operationOf(req) == "CompleteMultipartUpload" {
			completes.Add(1)
		}
		w.Header().Set("Connection", "close")
		next.ServeHTTP(w, req)
		if strings.HasPrefix(operationOf(req), "UploadPart") && parts.Add(1) == 2 && closed.CompareAndSwap(false, true) {
			r.endpoint.mu.Lock()
			r.endpoint.trusted = time.Time{}
			r.endpoint.mu.Unlock()
			failOnce.Store(true)
		}
	})
	path, content := r.file(t, "f", testPart+1)
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	if err != nil || receipt.State != push.Done || completes.Load() != 1 {
		t.Errorf("%+v, %v after %d completions", receipt, err, completes.Load())
	}
	r.wantObject(t, "k", content)
}

// TestCancelledButStored: a file that changes while it is sent is no reason to
// call a push cancelled whose object the store has.
func TestCancelledButStored(t *testing.T) {
	overwrite := func(path string) {
		info, _ := os.Stat(path)
		os.WriteFile(path, make([]byte, info.Size()), 0o644)
	}
	for _, size := range []int{1000, testPart} {
		for name, answer := range map[string]func(http.ResponseWriter, *http.Request, http.Handler){"stored": pass, "stored, answer lost": keepAndBreakOff} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				r := newRig(t)
				receipt := r.cancelHeld(t, size, answer, overwrite)
				_, err := r.store.Get("bucket", "k")
				if receipt.State == push.Cancelled && err == nil {
					t.Errorf("the receipt says %s, and the store has the object", receipt.State)
				}
			})
		}
	}
}

// TestCancelledButCompletedLater has a completion go on after its answer was lost.
func TestCancelledButCompletedLater(t *testing.T) {
	r := newRig(t)
	arrived, open, stored := make(chan struct{}, 10), make(chan struct{}), make(chan struct{})
	ended := make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if operationOf(req) == "CompleteMultipartUpload" {
			body, _ := io.ReadAll(req.Body)
			arrived <- struct{}{}
			<-open
			again := req.Clone(context.WithoutCancel(req.Context()))
			again.Body = io.NopCloser(strings.NewReader(string(body)))
			go func() {
				<-ended
				next.ServeHTTP(discard{make(http.Header)}, again)
				close(stored)
			}()
			w.WriteHeader(504)
			return
		}
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", testPart+1)
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	<-arrived
	got := make(chan push.Receipt, 1)
	go func() { receipt, _ := r.Cancel(context.Background(), id); got <- receipt }()
	r.untilCancelled(t, id)
	close(open)
	receipt := <-got
	close(ended)
	<-stored
	_, err := r.store.Get("bucket", "k")
	if receipt.State == push.Cancelled && err == nil {
		t.Errorf("said %s; the store has the object a moment later", receipt.State)
	}
}

// TestCancelAborts: a busy store has time to abort what was cancelled.
func TestCancelAborts(t *testing.T) {
	r := newRig(t)
	arrived, open := make(chan struct{}, 10), make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		switch {
		case req.URL.Query().Get("partNumber") == "2":
			arrived <- struct{}{}
			<-open
		case req.Method == http.MethodDelete:
			select {
			case <-time.After(3 * time.Second):
			case <-req.Context().Done():
				return
			}
		}
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", testPart+1)
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	<-arrived
	go func() { time.Sleep(50 * time.Millisecond); close(open) }()
	receipt, err := r.Cancel(t.Context(), id)
	if strings.Contains(r.log.String(), "parts are left behind") {
		t.Errorf("%s, %v, and the parts are left behind", receipt.State, err)
	}
}

// TestCancelNeverSent: where no connection could be made nothing was sent, and
// nobody need be asked. The one that is being made takes its time, so that the push
// is there to wait for it.
func TestCancelNeverSent(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = 1 })
	r.Uploader = r.again(t, func(u *Uploader) { // before the pool is opened
		u.endpoint.connect = func(context.Context, string, string) (net.Conn, error) {
			time.Sleep(100 * time.Millisecond)
			return nil, errTimeout
		}
	})
	path, _ := r.file(t, "f", 100)
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	until(t, "an attempt", func() bool {
		receipt, _ := r.Get(t.Context(), id, 0)
		return receipt.Attempts > 0 && receipt.State == push.Queued
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	receipt, err := r.Cancel(ctx, id)
	if receipt.State != push.Cancelled {
		r.stays = 1
		t.Errorf("after 2 s the cancelled push, of which nothing was ever sent, is %s, %v", receipt.State, err)
	}
	over, stop := context.WithCancel(t.Context())
	stop()
	if n := r.Drain(over); n != r.stays {
	}
}

// TestCancelTakenUpWithoutFile: an object that is not there is not there, whatever
// became of the file.
func TestCancelTakenUpWithoutFile(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 100)
	ids := r.leftBehind(t, path, 10)
	os.Remove(path)
	next := r.again(t, func(u *Uploader) { u.queue.paused = true })
	receipt, err := next.Cancel(t.Context(), ids[9])
	if receipt.State != push.Cancelled {
		t.Errorf("the store says 404, and the cancelled push is %s: %v", receipt.State, err)
	}
}

// TestTrialWithGoneFiles: pushes that never ask the store do not use up the trials
// of a bucket.
func TestTrialWithGoneFiles(t *testing.T) {
	r := newRig(t)
	r.spoil(refuse(503))
	r.retry.jitter = func(time.Duration) time.Duration { return time.Hour }
	path, _ := r.file(t, "f", 100)
	gone, _ := r.file(t, "gone", 100)
	for i := range failuresForTrial {
		r.later(t, push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i)})
	}
	until(t, "trial", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return len(r.queue.onTrial) == 1 })
	r.mu.Lock()
	r.kept = r.limit // no file is kept open
	r.mu.Unlock()
	for i := range 3 {
		r.later(t, push.Request{File: gone, Destination: fmt.Sprintf("s3://bucket/gone%d", i)})
	}
	last := r.later(t, push.Request{File: path, Destination: "s3://bucket/last"})
	os.Remove(gone)
	r.spoil(pass)
	begun := time.Now()
	r.ended(t, last, push.Done)
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("a healthy bucket took %v to come back behind 3 pushes whose file is gone", d)
	}
	if page, err := r.List(t.Context(), push.Filter{}, patience); err != nil || page.Pending != 0 {
		t.Errorf("those that failed come back with the bucket: %d are pending, %v", page.Pending, err)
	}
	r.mu.Lock()
	r.kept = 0
	r.mu.Unlock()
}

// TestCallersWhileItDrains: whoever asks for a push that stays is told so.
func TestCallersWhileItDrains(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = 1 })
	path, _ := r.file(t, "f", 100)
	g := r.hold(t, true, pass)
	r.later(t, push.Request{File: path, Destination: "s3://bucket/a"})
	<-g.arrived
	live := r.later(t, push.Request{File: path, Destination: "s3://bucket/b"})
	plain, err := r.Uploader.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/c"}, push.Options{IdempotencyKey: "key"})
	if err != nil {
		t.Fatal(err)
	}
	id := parseID(t, plain.ID)
	r.mu.Lock() // as it is in a long queue, or after a start: nobody has looked at it
	e := r.live[id]
	e.task = nil
	delete(r.live, id)
	r.mu.Unlock()
	drained := make(chan int, 1)
	go func() { drained <- r.Drain(context.Background()) }()
	<-r.leaving
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	begun := time.Now()
	_, err = r.Uploader.Push(ctx, push.Request{File: path, Destination: "s3://bucket/c"}, push.Options{IdempotencyKey: "key", Wait: push.Forever})
	wantCode(t, err, push.ShuttingDown)
	if time.Since(begun) > time.Second {
		t.Error("the caller of a repeated request is not told that the daemon stops")
	}
	receipt, err := r.Cancel(t.Context(), live)
	wantCode(t, err, push.ShuttingDown)
	if receipt.State != push.Queued {
		t.Errorf("a cancellation that nobody will carry out: %+v", receipt)
	}
	g.let()
	r.stays = <-drained
}

// TestCallerBehindBackoff: a caller hastens what stands before his push.
func TestCallerBehindBackoff(t *testing.T) {
	r := newRig(t)
	r.spoil(refuse(503))
	r.retry.jitter = func(time.Duration) time.Duration { return 20 * time.Second }
	path, content := r.file(t, "f", 100)
	a := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	until(t, "backoff", func() bool { x, _ := r.Get(t.Context(), a, 0); return !x.RetryAt.IsZero() })
	r.spoil(pass)
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	if err != nil {
		t.Errorf("attempts %d: %v", receipt.Attempts, err)
	} else {
		r.wantObject(t, "k", content)
	}
}

// TestPutBackMayBeThere: what an earlier life of a push may have stored counts in
// the next.
func TestPutBackMayBeThere(t *testing.T) {
	r := newRig(t)
	path, content := r.file(t, "f", 100)
	ids := r.leftBehind(t, path, 1)
	r.store.Put("bucket", "0", content) // which the earlier process delivered
	next := r.again(t, func(u *Uploader) { u.queue.paused = true })
	r.spoil(refuse(403)) // HEAD is not allowed for now
	_, err := next.Cancel(t.Context(), ids[0])
	wantCode(t, err, push.PushEnded) // whether it is there could not be found out
	r.spoil(pass)
	if _, err := next.Retry(t.Context(), ids[0]); err != nil {
		t.Fatal(err)
	}
	receipt, err := next.Cancel(t.Context(), ids[0])
	if err != nil {
		t.Error(err)
	}
	if receipt.State == push.Cancelled {
		t.Error("cancelled, without asking, though the store has the object")
	}
}

// TestDrainInAnOutage: a push that has nothing under way, and waits for the store
// to come back, does not hold up the end of the daemon; nor does one that was
// cancelled, and is to be asked about.
func TestDrainInAnOutage(t *testing.T) {
	for _, size := range []int{100, testPart + 1} {
		for _, cancelled := range []bool{false, true} {
			t.Run(fmt.Sprint(size, " cancelled ", cancelled), func(t *testing.T) {
				r := newRig(t, func(cfg *Config) { cfg.MaxConnections = 1 }) // which speaks for the store
				if r.stays = 1; cancelled && size > testPart {               // there was no request yet that makes an object
					r.stays = 0
				}
				r.endpoint.ask = func(context.Context) error { return errRefused }
				r.spoil(func(_ http.ResponseWriter, req *http.Request, _ http.Handler) {
					io.Copy(io.Discard, req.Body)
					panic(http.ErrAbortHandler)
				})
				path, _ := r.file(t, "f", size)
				id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
				until(t, "the store counts as away", func() bool { _, _, down := r.endpoint.down(); return down })
				if _, running := r.depth(); running != 1 {
					t.Fatalf("%d pushes run", running)
				}
				if cancelled {
					gone, cancel := context.WithCancel(t.Context())
					cancel()
					r.Cancel(gone, id)
				}
				ctx, stop := context.WithTimeout(t.Context(), patience)
				defer stop()
				if stay := r.Drain(ctx); ctx.Err() != nil {
					t.Errorf("the drain takes its whole time; %d pushes stay", stay)
				}
			})
		}
	}
}

// TestDrainOfPartsInAnOutage: nor does a file of which parts have arrived.
func TestDrainOfPartsInAnOutage(t *testing.T) {
	r := newRig(t)
	r.stays = 1
	r.endpoint.ask = func(context.Context) error { return errRefused }
	arrived := make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		switch req.URL.Query().Get("partNumber") {
		case "1":
			defer close(arrived)
		case "2":
			<-arrived
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", testPart+1)
	r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	until(t, "the store counts as away", func() bool { _, _, down := r.endpoint.down(); return down })
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if r.Drain(ctx); ctx.Err() != nil {
		t.Error("the drain takes its whole time")
	}
}

// TestDrainWithQuestions: a cancelled push that is being asked about does not hold
// up the end of the daemon.
func TestDrainWithQuestions(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 100)
	ids := r.leftBehind(t, path, 10)
	next := r.again(t, func(u *Uploader) {
		u.queue.paused = true
		u.endpoint.outage = &outage{since: time.Now(), cause: errTimeout, over: make(chan struct{})}
	})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	next.Cancel(gone, ids[9])
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	begun := time.Now()
	next.Drain(ctx)
	if d := time.Since(begun); d > time.Second {
		t.Errorf("nothing is in flight, and the drain takes its whole time: %v", d)
	}
}

// TestAbandonedAttempt: an attempt that is abandoned fails, also before its own
// context has ended: what was never sent is no success.
func TestAbandonedAttempt(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	d := &delivery{up: r.Uploader}
	if err := d.up.slots.acquire(ctx, &d.turn, single); err != nil {
		t.Fatal(err)
	}
	err := d.attempt(ctx, putting, single, func(inner context.Context, c *commitment) error {
		c.abandon() // as bind does once ctx ends, before it ends the attempt
		cancel(errCancelled)
		if inner.Err() != nil {
			t.Error("the attempt's context has ended: this shows nothing")
		}
		return c.commit()
	})
	if err != errCancelled {
		t.Errorf("it ended with %v", err)
	}
}

// TestCancelAtAnyMoment cancels pushes at random moments of their attempts, at a
// store that keeps what it does not answer. What is said to be cancelled is not
// there, and nothing hangs.
func TestCancelAtAnyMoment(t *testing.T) {
	r := newRig(t, func(c *Config) { c.QueueLimit = 100_000 })
	var n atomic.Int32
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodPut && n.Add(1)%3 == 0 {
			keepAndBreakOff(w, req, next)
		}
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", 100)
	var all sync.WaitGroup
	for caller := range 4 {
		all.Go(func() {
			for i := range 150 {
				key := fmt.Sprintf("%d-%d", caller, i)
				receipt, err := r.Uploader.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/" + key}, push.Options{})
				if err != nil {
					t.Error(err)
					return
				}
				for until := time.Now().Add(rand.N(1500 * time.Microsecond)); time.Now().Before(until); {
				}
				id, _ := push.ParseID(receipt.ID)
				receipt, err = r.Cancel(t.Context(), id)
				if e, ok := errors.AsType[*push.Error](err); err != nil && (!ok || e.Code != push.PushEnded) || err == nil && !receipt.State.Ended() {
					t.Errorf("%s: %+v, %v", key, receipt, err)
				}
				if _, err := r.store.Get("bucket", key); (err == nil) != (receipt.State == push.Done) {
					t.Errorf("%s is %s, and in the store: %v", key, receipt.State, err == nil)
				}
			}
		})
	}
	all.Wait()
}
