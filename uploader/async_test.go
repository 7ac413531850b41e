package uploader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsst-dm/s3daemon/push"
)

// patience ends tests that would hang.
const patience = 30 * time.Second

// later asks for a push and does not wait for it.
func (r *rig) later(t *testing.T, req push.Request) push.ID {
	t.Helper()
	receipt, err := r.Uploader.Push(t.Context(), req, push.Options{})
	if err != nil || receipt.State.Ended() {
		t.Fatalf("an asynchronous push: %+v, %v", receipt, err)
	}
	return parseID(t, receipt.ID)
}

func parseID(t *testing.T, s string) push.ID {
	t.Helper()
	id, err := push.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// ended waits for the end of a push.
func (r *rig) ended(t *testing.T, id push.ID, want push.State) push.Receipt {
	t.Helper()
	receipt, err := r.Get(t.Context(), id, patience)
	if err != nil || receipt.State != want {
		t.Fatalf("%s is %+v, %v, want %s", id, receipt, err, want)
	}
	return receipt
}

func wantCode(t *testing.T, err error, code push.Code) {
	t.Helper()
	if e, ok := errors.AsType[*push.Error](err); !ok || e.Code != code {
		t.Errorf("error %v, want %s", err, code)
	}
}

// gate holds requests to the store until it is opened.
type gate struct {
	arrived chan string
	open    chan struct{}
	let     func()
}

// hold has the store keep requests, before or after it has read their bodies,
// until the gate is opened; answer says what becomes of them then.
func (r *rig) hold(t *testing.T, unread bool, answer func(http.ResponseWriter, *http.Request, http.Handler)) *gate {
	t.Helper()
	g := &gate{arrived: make(chan string, 1000), open: make(chan struct{})}
	g.let = sync.OnceFunc(func() { close(g.open) })
	t.Cleanup(g.let)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if !unread {
			body, _ := io.ReadAll(req.Body)
			req.Body = io.NopCloser(bytes.NewReader(body))
		}
		g.arrived <- req.Method + " " + filepath.Base(req.URL.Path)
		<-g.open
		answer(w, req, next)
	})
	return g
}

func pass(w http.ResponseWriter, req *http.Request, next http.Handler) { next.ServeHTTP(w, req) }

func TestAsynchronousPush(t *testing.T) {
	r := newRig(t)
	g := r.hold(t, true, pass)
	path, content := r.file(t, "f", 100)
	req := push.Request{File: path, Destination: "x/bucket/k", Label: "night"}
	receipt, err := r.Uploader.Push(t.Context(), req, push.Options{})
	if err != nil || receipt.ID == "" || receipt.Destination != "s3://bucket/k" || receipt.Size != 100 || receipt.FinishedAt != (time.Time{}) {
		t.Fatalf("%+v, %v", receipt, err)
	}
	id := parseID(t, receipt.ID)
	<-g.arrived
	if receipt, err = r.Get(t.Context(), id, 0); err != nil || receipt.State != push.Running || receipt.StartedAt.IsZero() {
		t.Errorf("while it runs: %+v, %v", receipt, err)
	}
	waited, err := r.Uploader.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/other"}, push.Options{Wait: time.Millisecond})
	if err != nil || waited.State.Ended() || waited.ID == "" {
		t.Errorf("a caller who waits for a moment: %+v, %v", waited, err)
	}
	g.let()
	r.ended(t, id, push.Done)
	r.wantObject(t, "k", content)
	if _, err := r.Get(t.Context(), push.NewID(time.Now(), 0, [8]byte{}), 0); err == nil {
		t.Error("an id that no push has is found")
	} else {
		wantCode(t, err, push.PushNotFound)
	}
}

func TestListAndBarrier(t *testing.T) {
	r := newRig(t)
	g := r.hold(t, true, pass)
	path, _ := r.file(t, "f", 10)
	var ids []push.ID
	for i := range 10 {
		ids = append(ids, r.later(t, push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i), Label: fmt.Sprint("label", i%2)}))
	}
	for range 4 { // as many as there are places
		<-g.arrived
	}
	list := func(f push.Filter, wait time.Duration) push.Page {
		t.Helper()
		page, err := r.List(t.Context(), f, wait)
		if err != nil {
			t.Fatal(err)
		}
		return page
	}
	for _, tc := range []struct {
		filter        push.Filter
		want, pending int
	}{
		{push.Filter{}, 10, 10},
		{push.Filter{Label: "label1"}, 5, 5},
		{push.Filter{Label: "nobody's"}, 0, 0},
		{push.Filter{States: []push.State{push.Running}}, 4, 10},
		{push.Filter{States: []push.State{push.Queued}}, 6, 10},
		{push.Filter{States: []push.State{push.Queued, push.Running}, Label: "label0"}, 5, 5},
		{push.Filter{States: []push.State{push.Done, push.Failed}}, 0, 10},
	} {
		if page := list(tc.filter, 0); len(page.Pushes) != tc.want || page.Pending != tc.pending || page.Next != "" {
			t.Errorf("%+v: %d pushes, %d pending, next %q", tc.filter, len(page.Pushes), page.Pending, page.Next)
		}
	}
	// In pages, newest first.
	var seen []push.ID
	for f := (push.Filter{Limit: 3}); ; {
		page := list(f, 0)
		for _, p := range page.Pushes {
			seen = append(seen, parseID(t, p.ID))
		}
		if page.Next == "" {
			break
		}
		f.Before = parseID(t, page.Next)
	}
	for i, id := range seen {
		if len(seen) != 10 || id != ids[9-i] {
			t.Fatalf("the pages have %v, want %v backwards", seen, ids)
		}
	}
	if page := list(push.Filter{Label: "label0"}, time.Millisecond); page.Pending != 5 {
		t.Errorf("a barrier that is over: %d pending", page.Pending)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if page, err := r.List(gone, push.Filter{Label: "label0"}, patience); err != nil || page.Pending != 5 {
		t.Errorf("a barrier whose caller has left: %+v, %v", page, err)
	}
	quiet := make(chan push.Page, 1)
	go func() {
		page, _ := r.List(context.Background(), push.Filter{Label: "label1"}, patience)
		quiet <- page
	}()
	g.let()
	if page := <-quiet; page.Pending != 0 || len(page.Pushes) != 5 {
		t.Errorf("the barrier: %+v", page)
	}
	if page := list(push.Filter{}, patience); page.Pending != 0 {
		t.Errorf("the barrier over all: %+v", page)
	}
}

// TestIdempotencyKey has many callers ask for the same at one moment, and later
// again: they all get the one push.
func TestIdempotencyKey(t *testing.T) {
	r := newRig(t)
	var puts atomic.Int32
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		puts.Add(1)
		next.ServeHTTP(w, req)
	})
	path, content := r.file(t, "f", 100)
	req := push.Request{File: path, Destination: "s3://bucket/k", Metadata: map[string]string{"a": "1", "b": "2"}}
	var mu sync.Mutex
	ids := map[string]int{}
	ask := func(wait time.Duration) {
		receipt, err := r.Uploader.Push(t.Context(), req, push.Options{Wait: wait, IdempotencyKey: "key"})
		if err != nil || wait < 0 && receipt.State != push.Done {
			t.Errorf("%+v, %v", receipt, err)
		}
		mu.Lock()
		defer mu.Unlock()
		ids[receipt.ID]++
	}
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() { ask([]time.Duration{push.Forever, 0, time.Microsecond}[i%3]) })
	}
	all.Wait()
	ask(push.Forever)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	ask(push.Forever) // it needs no file any more
	if len(ids) != 1 || puts.Load() != 1 {
		t.Errorf("ids %v, %d requests to the store", ids, puts.Load())
	}
	r.wantObject(t, "k", content)
	other := req
	other.Metadata = map[string]string{"a": "1", "b": "3"}
	_, err := r.Uploader.Push(t.Context(), other, push.Options{Wait: push.Forever, IdempotencyKey: "key"})
	wantCode(t, err, push.IdempotencyReused)
	// A failure is repeated as well.
	bad, _ := r.file(t, "g", 10)
	lost := push.Request{File: bad, Destination: "s3://nowhere/k"}
	for range 2 {
		receipt, err := r.Uploader.Push(t.Context(), lost, push.Options{Wait: push.Forever, IdempotencyKey: "lost"})
		wantCode(t, err, push.StoreRefused)
		if receipt.State != push.Failed || puts.Load() != 2 {
			t.Errorf("%+v after %d requests", receipt, puts.Load())
		}
	}
	if labels := len(r.labels) + len(r.live); labels != 0 {
		t.Errorf("%d labels and tasks are left", labels)
	}
}

// TestBarrierCountsAtItsEnd: whoever has waited for long enough is told what is
// under way then, not what was when he began.
func TestBarrierCountsAtItsEnd(t *testing.T) {
	r := newRig(t)
	first, second := make(chan struct{}), make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.HasSuffix(req.URL.Path, "/first") {
			<-first
		} else {
			<-second
		}
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", 100)
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/first", Label: "l"})
	r.later(t, push.Request{File: path, Destination: "s3://bucket/second", Label: "l"})
	ctx, cancel := context.WithCancel(t.Context())
	pending := make(chan int)
	go func() {
		page, err := r.List(ctx, push.Filter{Label: "l"}, push.Forever)
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		pending <- page.Pending
	}()
	until(t, "somebody waits", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.labels["l"].quiet != nil
	})
	close(first)
	r.ended(t, id, push.Done)
	cancel()
	if n := <-pending; n != 1 {
		t.Errorf("%d pushes are pending, want 1", n)
	}
	close(second)
}

func TestQueueIsFull(t *testing.T) {
	var refused []push.Code
	r := newRig(t, func(c *Config) {
		c.QueueLimit = 2
		c.Refused = func(code push.Code) { refused = append(refused, code) }
	})
	g := r.hold(t, true, pass)
	path, _ := r.file(t, "f", 10)
	for i := range 2 {
		r.later(t, push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i)})
	}
	_, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	wantCode(t, err, push.QueueFull)
	if e, ok := errors.AsType[*push.Error](err); !ok || e.RetryAfter <= 0 {
		t.Errorf("it does not say when there is room: %v", err)
	}
	if !slices.Equal(refused, []push.Code{push.QueueFull}) {
		t.Errorf("told to be refused: %q", refused)
	}
	g.let()
	if _, err := r.List(t.Context(), push.Filter{}, patience); err != nil {
		t.Error(err)
	}
	if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestFileIsNotTheAcceptedOne changes files between acceptance and turn.
func TestFileIsNotTheAcceptedOne(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(path string) error
		code   push.Code
	}{
		"longer":    {func(path string) error { return os.WriteFile(path, make([]byte, 200), 0o644) }, push.FileChanged},
		"rewritten": {func(path string) error { return os.WriteFile(path, make([]byte, 100), 0o644) }, push.FileChanged},
		"replaced": {func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			if err := os.WriteFile(path+".new", make([]byte, 100), 0o644); err != nil {
				return err
			}
			return errors.Join(os.Chtimes(path+".new", info.ModTime(), info.ModTime()), os.Rename(path+".new", path))
		}, push.FileChanged},
		"removed": {os.Remove, push.FileNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			g := r.hold(t, true, pass)
			path, _ := r.file(t, "f", 100)
			for i := range 4 {
				r.later(t, push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i)})
				<-g.arrived
			}
			victim, _ := r.file(t, "g", 100)
			old := time.Now().Add(-time.Hour)
			if err := os.Chtimes(victim, old, old); err != nil {
				t.Fatal(err)
			}
			id := r.later(t, push.Request{File: victim, Destination: "s3://bucket/k"})
			if err := tc.change(victim); err != nil {
				t.Fatal(err)
			}
			g.let()
			receipt := r.ended(t, id, push.Failed)
			if receipt.Problem == nil || receipt.Problem.Code != tc.code {
				t.Errorf("problem %+v", receipt.Problem)
			}
			if _, err := r.store.Get("bucket", "k"); err == nil {
				t.Error("there is an object")
			}
		})
	}
}

// TestTakenUpAgain stops an uploader with pushes that run and wait, and starts
// another on the same journal.
func TestTakenUpAgain(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = 2 })
	g := r.hold(t, true, pass)
	var ids []push.ID
	contents := map[string][]byte{}
	for i := range 6 {
		path, content := r.file(t, fmt.Sprint("f", i), 100+i)
		key := fmt.Sprint(i % 3) // two versions of each
		contents[key] = content
		ids = append(ids, r.later(t, push.Request{File: path, Destination: "s3://bucket/" + key, Label: "kept", Metadata: map[string]string{"n": fmt.Sprint(i)}}))
	}
	waiting := make(chan error, 1)
	go func() {
		path := filepath.Join(r.dir, "f0")
		_, err := r.Push(context.Background(), push.Request{File: path, Destination: "s3://bucket/waited"})
		waiting <- err
	}()
	<-g.arrived
	<-g.arrived
	until(t, "all are accepted", func() bool { queued, running := r.depth(); return queued+running == 7 })
	barrier := make(chan error, 1)
	go func() {
		_, err := r.List(context.Background(), push.Filter{Label: "kept"}, patience)
		barrier <- err
	}()
	until(t, "somebody waits at the barrier", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.labels["kept"].quiet != nil
	})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if r.stays = r.Drain(over); r.stays != 7 {
		t.Errorf("%d pushes stay, want 7", r.stays)
	}
	wantCode(t, <-waiting, push.ShuttingDown)
	wantCode(t, <-barrier, push.ShuttingDown)
	_, err := r.List(t.Context(), push.Filter{}, patience)
	wantCode(t, err, push.ShuttingDown)
	if page, err := r.List(t.Context(), push.Filter{}, 0); err != nil || page.Pending != 7 {
		t.Errorf("a list without a wait: %d pending, %v", page.Pending, err)
	}
	if receipt, err := r.Get(t.Context(), ids[0], time.Millisecond); err != nil || receipt.State.Ended() {
		t.Errorf("after the drain: %+v, %v", receipt, err)
	}
	g.let()

	next := r.again(t)
	if page, err := next.List(t.Context(), push.Filter{}, patience); err != nil || page.Pending != 0 || len(page.Pushes) != 7 {
		t.Fatalf("%+v, %v", page, err)
	}
	for _, id := range ids {
		if receipt, err := next.Get(t.Context(), id, 0); err != nil || receipt.State != push.Done || receipt.Label != "kept" {
			t.Errorf("%+v, %v", receipt, err)
		}
	}
	for key, content := range contents {
		r.wantObject(t, key, content)
		if about, err := r.store.Metadata("bucket", key); err != nil || about["X-Amz-Meta-N"] != fmt.Sprint(len(content)-100) {
			t.Errorf("object %s: %v, %v", key, about, err)
		}
	}
}

// again makes another uploader on the rig's journal, as the next process would.
func (r *rig) again(t *testing.T, change ...func(*Uploader)) *Uploader {
	t.Helper()
	r.cfg.Metrics = prometheus.NewRegistry()
	up, err := newUploader(t.Context(), r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	up.plan = plan{whole: testPart, minPart: testPart}
	for _, f := range change {
		f(up)
	}
	up.start()
	t.Cleanup(func() { up.Drain(context.Background()) })
	return up
}

// TestStoreComesBack has pushes accepted while nothing listens where the store
// should be: who waits is told, what nobody waits for is delivered later.
func TestStoreComesBack(t *testing.T) {
	r := newRig(t)
	var open atomic.Bool
	var attempts atomic.Int32
	r.Uploader = r.again(t, func(u *Uploader) { // before the pool is opened
		connect, ask := u.endpoint.connect, u.endpoint.ask
		u.endpoint.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
			if attempts.Add(1) == 1 { // whoever has a slot finds the outage begun
				for u.slots.inUse() < r.cfg.MaxConnections && ctx.Err() == nil {
					runtime.Gosched()
				}
			}
			if !open.Load() {
				return nil, errRefused
			}
			return connect(ctx, network, address)
		}
		u.endpoint.ask = func(ctx context.Context) error {
			attempts.Add(1)
			if !open.Load() {
				return errRefused
			}
			return ask(ctx)
		}
	})
	path, content := r.file(t, "f", 100)
	large, largeContent := r.file(t, "large", testPart+1)
	var ids []push.ID
	for i := range 20 {
		ids = append(ids, r.later(t, push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i)}))
	}
	ids = append(ids, r.later(t, push.Request{File: large, Destination: "s3://bucket/large"}))
	begun := time.Now()
	for _, file := range []string{path, large} {
		_, err := r.Push(t.Context(), push.Request{File: file, Destination: "s3://bucket/waited"})
		wantCode(t, err, push.StoreUnreachable)
	}
	notes, err := r.Ready()
	if len(notes) != 1 || err != nil {
		t.Errorf("ready says %q, %v", notes, err)
	}
	// The pool is opened by as many at once.
	if n, most := int(attempts.Load()), int(time.Since(begun).Seconds())+1+r.cfg.MaxConnections; n > most {
		t.Errorf("%d attempts to connect, want one a second, %d", n, most)
	}
	for _, id := range ids {
		receipt, err := r.Get(t.Context(), id, 0)
		if err != nil || receipt.State.Ended() || receipt.Attempts > 1 || receipt.Problem == nil || receipt.Problem.Code != push.StoreUnreachable {
			t.Errorf("during the outage: %+v, %v", receipt, err)
		}
	}
	open.Store(true)
	again := 0
	for _, id := range ids {
		if r.ended(t, id, push.Done).Attempts > 1 {
			again++
		}
	}
	if again > 1 {
		t.Errorf("the outage cost %d pushes an attempt, want the one that found it", again)
	}
	r.wantObject(t, "19", content)
	r.wantObject(t, "large", largeContent)
	if notes, _ := r.Ready(); len(notes) != 0 {
		t.Errorf("afterwards ready says %q", notes)
	}
}

// TestGivenUp: a push that nobody waits for ends as failed when it is too old,
// whether the store can be asked or not.
func TestGivenUp(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.GiveUpAfter = 50 * time.Millisecond })
		r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
			io.Copy(io.Discard, req.Body)
			w.WriteHeader(503)
		})
		path, _ := r.file(t, "f", 100)
		receipt := r.ended(t, r.later(t, push.Request{File: path, Destination: "s3://bucket/k"}), push.Failed)
		if receipt.Problem.Code != push.StoreRefused || receipt.Attempts < 2 || receipt.Problem.Store == nil || receipt.Problem.Store.Status != 503 {
			t.Errorf("%+v, problem %+v", receipt, receipt.Problem)
		}
	})
	t.Run("never reached", func(t *testing.T) {
		r := newRig(t, func(c *Config) {
			c.Endpoint = "http://127.0.0.1:1"
			c.GiveUpAfter = 50 * time.Millisecond
			c.MaxConnections = 1
		})
		path, _ := r.file(t, "f", 100)
		for i := range 3 {
			id := r.later(t, push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i)})
			if receipt := r.ended(t, id, push.Failed); receipt.Problem.Code != push.StoreUnreachable {
				t.Errorf("problem %+v", receipt.Problem)
			}
		}
	})
}

// TestSickKeysDoNotHideSoundOnes: sixty pushes to keys that always fail are in
// the queue, and what comes to others of the same bucket is delivered, waited
// for or not, while the sick are hardly asked for.
func TestSickKeysDoNotHideSoundOnes(t *testing.T) {
	const sick = 60
	r := newRig(t, func(c *Config) { c.MaxConnections = 8 })
	r.retry.jitter = func(d time.Duration) time.Duration { return d }
	var failed atomic.Int32
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if !strings.HasPrefix(req.URL.Path, "/bucket/sick") {
			next.ServeHTTP(w, req)
			return
		}
		failed.Add(1)
		io.Copy(io.Discard, req.Body)
		w.WriteHeader(500)
		io.WriteString(w, "<Error><Code>InternalError</Code></Error>")
	})
	path, _ := r.file(t, "f", 100)
	for i := range sick {
		r.later(t, push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/sick%d", i)})
	}
	until(t, "the bucket is on trial", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.queue.onTrial) == 1
	})
	before := failed.Load()
	var ids []push.ID
	for i := range 10 {
		ids = append(ids, r.later(t, push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/sound%d", i)}))
	}
	for i := range 5 {
		if _, err := r.Push(t.Context(), push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/waited%d", i)}); err != nil {
			t.Error(err)
		}
	}
	for _, id := range ids {
		r.ended(t, id, push.Done)
	}
	if n := failed.Load() - before; n > 3*sick {
		t.Errorf("the sick were asked for %d times meanwhile", n)
	}
	r.stays = sick
}

// TestNobodyIsGivenUpUntried: of callers who wait for a bucket that takes
// nothing each has an attempt, and hears what it came to.
func TestNobodyIsGivenUpUntried(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections = 8 })
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		io.Copy(io.Discard, req.Body)
		w.WriteHeader(500)
		io.WriteString(w, "<Error><Code>InternalError</Code></Error>")
	})
	path, _ := r.file(t, "f", 100)
	var callers sync.WaitGroup
	for i := range 40 {
		callers.Go(func() {
			receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i)})
			if receipt.Attempts == 0 || !strings.Contains(fmt.Sprint(err), "500") {
				t.Errorf("after %d attempts: %v", receipt.Attempts, err)
			}
		})
	}
	callers.Wait()
}

// TestClockRunsThoughAllAreBusy: where the worker of a push that failed goes on with
// another one, and all places are taken, the time for which its caller waits runs all
// the same.
func TestClockRunsThoughAllAreBusy(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections, c.Attempts = 1, 2 })
	refuse, refuseLast, arrived, end := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	var asked, pauses atomic.Int32
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.URL.Path == "/bucket/sound" {
			close(arrived)
			<-end
			next.ServeHTTP(w, req)
			return
		}
		io.Copy(io.Discard, req.Body)
		<-refuse
		if asked.Add(1) == failuresForTrial {
			<-refuseLast
		}
		w.WriteHeader(500)
	})
	r.retry.jitter = func(time.Duration) time.Duration {
		if pauses.Add(1) <= 2 {
			return 0
		}
		return time.Hour
	}
	path, _ := r.file(t, "f", 100)
	told := make(chan error, 3)
	for n := range 3 { // two fail twice; with its first failure the last one puts the bucket on trial
		go func() {
			_, err := r.Push(t.Context(), push.Request{File: path, Destination: fmt.Sprintf("s3://sick/%d", n)})
			told <- err
		}()
	}
	until(t, "all three to be accepted", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.queue.size == 3 })
	sound := r.later(t, push.Request{File: path, Destination: "s3://bucket/sound"})
	close(refuse)
	wantCode(t, <-told, push.StoreRefused)
	wantCode(t, <-told, push.StoreRefused)
	close(refuseLast)
	<-arrived
	select {
	case err := <-told:
		wantCode(t, err, push.StoreRefused)
	case <-time.After(30 * time.Second): // the request that holds the place would end some time later
		t.Error("who waits for a bucket on trial is not told while all places are taken")
	}
	close(end)
	r.ended(t, sound, push.Done)
}
