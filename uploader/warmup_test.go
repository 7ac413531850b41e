package uploader

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/transport"
)

func TestWarmer(t *testing.T) {
	for _, tc := range []struct {
		name  string
		steps []round
		want  bool
	}{
		{"nothing yet", nil, true},
		{"one", []round{{1, 9}}, true},
		{"it grows", []round{{1, 9}, {1.3, 9}}, true},
		{"it grows no more", []round{{1, 9}, {1.3, 9}, {1.4, 9}}, false},
		{"it gets slower", []round{{2, 9}, {1, 9}}, false},
		{"but that was too short to tell", []round{{1, 2}, {1, 4}}, true},
		{"it grows on and on", []round{{1, 9}, {2, 9}, {4, 9}, {8, 9}, {16, 9}, {32, 9}}, false},
	} {
		if got := warmer(tc.steps); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

var warmPlace = push.Destination{Bucket: "bucket", Key: "warm"}

// TestWarmUp: each connection sends, and nothing is left.
func TestWarmUp(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	got := make(map[string]int64) // by connection
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.HasPrefix(operationOf(req), "UploadPart") {
			mu.Lock()
			got[req.RemoteAddr] += req.ContentLength
			mu.Unlock()
		}
		next.ServeHTTP(w, req)
	})
	r.warmUp(warmPlace)
	if !r.warm.Load() {
		t.Errorf("the connections are not warm: %s", r.log)
	}
	if len(got) != r.cfg.MaxConnections {
		t.Errorf("bytes were sent on %d connections: %v", len(got), got)
	}
	for conn, bytes := range got {
		if bytes < firstWarmth {
			t.Errorf("%d bytes were sent on %s", bytes, conn)
		}
	}
	r.wantNothingLeft(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log: %s", r.log)
		}
	})
	r.warmup = warmPlace
	r.workers.Go(r.keepWarm)
	until(t, "another warm-up", func() bool { return strings.Count(r.log.String(), "connections are warm") == 2 })
	r.cool()
	until(t, "one after an outage", func() bool { return strings.Count(r.log.String(), "connections are warm") == 3 })
	r.wantNothingLeft(t)
}

// wantNothingLeft waits until the store has no upload, and looks that there is no
// object of a warm-up.
func (r *rig) wantNothingLeft(t *testing.T) {
	t.Helper()
	until(t, "the upload is aborted", func() bool { return len(r.uploadsLeft(t)) == 0 && len(r.recorded(t)) == 0 })
	if _, err := r.store.Get(warmPlace.Bucket, warmPlace.Key); err == nil {
		t.Error("there is an object")
	}
}

// TestWarmUpMakesWay: as many parts are cut off as there are pushes that find no
// slot, and the warm-up is over.
func TestWarmUpMakesWay(t *testing.T) {
	r := newRig(t)
	held, letGo := make(chan struct{}, 100), make(chan struct{})
	var cut sync.WaitGroup
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.HasPrefix(operationOf(req), "UploadPart") {
			body, _ := io.ReadAll(req.Body)
			req.Body = io.NopCloser(bytes.NewReader(body))
			held <- struct{}{}
			select {
			case <-letGo:
			case <-req.Context().Done():
				cut.Done()
				return
			}
		}
		next.ServeHTTP(w, req)
	})
	over := make(chan struct{})
	go func() { r.warmUp(warmPlace); close(over) }()
	for range r.cfg.MaxConnections - 1 {
		<-held
	}
	cut.Add(1)
	other := r.slots.borrow(func() { t.Error("another slot was wanted") }) // the last
	r.slots.mu.Lock()
	r.slots.loans = r.slots.loans[:len(r.slots.loans)-1]
	r.slots.mu.Unlock()
	path, content := r.file(t, "f", 1000)
	if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}); err != nil {
		t.Error(err)
	}
	r.wantObject(t, "k", content)
	cut.Wait()
	select {
	case <-over:
		t.Error("the other parts were cut off too")
	default:
	}
	close(letGo)
	<-over
	r.slots.giveBack(other)
	if r.warm.Load() || !strings.Contains(r.log.String(), "made way") {
		t.Errorf("log: %s", r.log)
	}
	r.wantNothingLeft(t)
}

// TestWarmUpRefused: a store that does not take it is no trouble.
func TestWarmUpRefused(t *testing.T) {
	r := newRig(t)
	for i, operation := range []string{"CreateMultipartUpload", "UploadPart 2"} {
		r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if req.Method != http.MethodGet && operationOf(req) == operation {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, req)
		})
		r.warmUp(warmPlace)
		if r.warm.Load() || strings.Count(r.log.String(), "could not be warmed") != i+1 {
			t.Errorf("%s is refused: %s", operation, r.log)
		}
		if i > 0 {
			r.wantNothingLeft(t)
		} else if left := r.recorded(t); len(left) > 0 {
			t.Errorf("the journal has %+v", left[0])
		}
	}
	path, _ := r.file(t, "f", 1000)
	if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}); err != nil {
		t.Error(err)
	}
}

// TestWarmUpEndsWithTheDaemon: it holds up nobody who stops it.
func TestWarmUpEndsWithTheDaemon(t *testing.T) {
	r := newRig(t)
	held := make(chan struct{}, 100)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.HasPrefix(operationOf(req), "UploadPart") {
			io.Copy(io.Discard, req.Body)
			held <- struct{}{}
			<-req.Context().Done()
			return
		}
		next.ServeHTTP(w, req)
	})
	r.warmup = warmPlace
	r.workers.Go(r.keepWarm)
	<-held
	r.Drain(t.Context())
	if left := r.recorded(t); len(left) != 1 || left[0].Probe {
		t.Errorf("the journal has %d uploads of a warm-up that was cut off", len(left))
	}
}

// TestPoolThroughOutage: an outage ends all connections; when it is over they are
// opened again, and warmed.
func TestPoolThroughOutage(t *testing.T) {
	r := newRig(t)
	var away atomic.Bool
	r.Uploader = r.again(t, func(u *Uploader) {
		connect, ask := u.endpoint.connect, u.endpoint.ask
		u.endpoint.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
			if away.Load() {
				return nil, errRefused
			}
			return connect(ctx, network, address)
		}
		u.endpoint.ask = func(ctx context.Context) error {
			if away.Load() {
				return errRefused
			}
			return ask(ctx)
		}
		u.warmup = warmPlace
	})
	ready := func() bool { // all are open, and nothing goes on on them
		open := r.wire.Connections()
		return len(open) == r.cfg.MaxConnections && !slices.ContainsFunc(open, func(c transport.Connection) bool { return c.Busy })
	}
	for range 2 {
		until(t, "they are warm", r.warm.Load)
		r.wantNothingLeft(t)
		until(t, "all are open", ready)
		away.Store(true)
		until(t, "the store counts as away", func() bool {
			r.endpoint.suspect(io.EOF)
			_, _, down := r.endpoint.down()
			return down
		})
		until(t, "all are closed", func() bool { return len(r.wire.Connections()) == 0 && !r.warm.Load() })
		away.Store(false)
	}
	until(t, "they are warm again", r.warm.Load)
	r.wantNothingLeft(t)
	until(t, "all are open again", ready)
}

func TestLoans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(2)
		wanted := make(map[int]bool)
		first := s.borrow(func() { wanted[1] = true })
		second := s.borrow(func() { wanted[2] = true })
		if first == nil || second == nil || s.borrow(nil) != nil || s.room() != 1 {
			t.Fatalf("%v, %v, and room for %d more parts", first, second, s.room())
		}
		var who turn
		got := make(chan error, 2)
		for range 2 {
			go func() { got <- s.acquire(t.Context(), &who, single) }()
			synctest.Wait()
		}
		if !wanted[1] || !wanted[2] || len(got) > 0 {
			t.Errorf("the slots of %v are wanted by two, and %d have one", wanted, len(got))
		}
		s.giveBack(first)
		s.giveBack(second)
		for range 2 {
			if err := <-got; err != nil {
				t.Error(err)
			}
		}
		if s.borrow(nil) != nil {
			t.Error("a slot was borrowed, and none is free")
		}
		s.release(&who, single)
		s.release(&who, single)
		last := s.borrow(func() { t.Error("a slot is wanted where there was another") })
		if err := s.acquire(t.Context(), &who, single); err != nil || s.inUse() != 2 {
			t.Errorf("%v, %d in use", err, s.inUse())
		}
		s.giveBack(last)
		s.release(&who, single)
	})
}
