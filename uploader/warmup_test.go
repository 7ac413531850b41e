package uploader

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/transport"
)

func TestWarmer(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		name  string
		steps []round
		want  bool
	}{
		{"nothing yet", nil, true},
		{"one", []round{{1, ms, 9}}, true},
		{"it grows", []round{{1, ms, 9}, {1.3, ms, 9}}, true},
		{"it grows no more", []round{{1, ms, 9}, {1.3, ms, 9}, {1.4, ms, 9}}, false},
		{"it gets slower", []round{{2, ms, 9}, {1, ms, 9}}, false},
		{"but that was too short to tell", []round{{1, ms, 2}, {1, ms, 4}}, true},
		{"it grows on and on", []round{{1, ms, 9}, {2, ms, 9}, {4, ms, 9}, {8, ms, 9}, {16, ms, 9}, {32, ms, 9}}, false},
		{"the link is slow", []round{{1, stepTakes, 100}}, false},
		{"the link is long", []round{{1, stepTakes, 2}}, true},
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

// TestWarmUpMakesWay: a push that starts ends the warm-up, also where a slot is free.
// Parts that do not end in a moment are cut off.
func TestWarmUpMakesWay(t *testing.T) {
	for _, connections := range []int{1, 4} {
		t.Run(fmt.Sprint(connections), func(t *testing.T) {
			r := newRig(t, func(cfg *Config) { cfg.MaxConnections = connections })
			held, cut := make(chan struct{}, 100), make(chan struct{}, 100)
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if !strings.HasPrefix(operationOf(req), "UploadPart") {
					next.ServeHTTP(w, req)
					return
				}
				io.Copy(io.Discard, req.Body)
				held <- struct{}{}
				<-req.Context().Done()
				cut <- struct{}{}
			})
			over := make(chan struct{})
			go func() { r.warmUp(warmPlace); close(over) }()
			sharing := max(1, connections-1)
			for range sharing {
				<-held
			}
			path, content := r.file(t, "f", 1000)
			if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}); err != nil {
				t.Error(err)
			}
			r.wantObject(t, "k", content)
			<-over
			for range sharing {
				<-cut
			}
			if r.warm.Load() || !strings.Contains(r.log.String(), "made way") {
				t.Errorf("log: %s", r.log)
			}
			r.wantNothingLeft(t)
		})
	}
}

// TestWarmUpAfterPushes: none begins while there are pushes.
func TestWarmUpAfterPushes(t *testing.T) {
	r := newRig(t)
	begun, letGo := make(chan struct{}), make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		switch operationOf(req) {
		case "PutObject":
			close(begun)
			<-letGo
		default:
			t.Errorf("the store is asked for %s", operationOf(req))
		}
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", 1000)
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	<-begun
	r.warmUp(warmPlace)
	if r.warm.Load() || !strings.Contains(r.log.String(), "made way") {
		t.Errorf("log: %s", r.log)
	}
	close(letGo)
	r.ended(t, id, push.Done)
}

// TestWarmUpCutsOff: a part that waits at the bandwidth limit, where a push would have
// to share that with it for long, is dropped.
func TestWarmUpCutsOff(t *testing.T) {
	const large = 500_000 // some seconds at the limit
	r := newRig(t, func(cfg *Config) { cfg.MaxConnections, cfg.Bandwidth = 2, transport.NewBandwidth(1_600_000) })
	r.path = func(string) transport.Path { return transport.Path{RTT: 500 * time.Millisecond} }
	held, arrived := make(chan struct{}), make(chan bool, 1)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.HasPrefix(operationOf(req), "UploadPart") && req.ContentLength > large {
			close(held)
			n, _ := io.Copy(io.Discard, req.Body)
			arrived <- n == req.ContentLength
			return
		}
		next.ServeHTTP(w, req)
	})
	over := make(chan struct{})
	go func() { r.warmUp(warmPlace); close(over) }()
	<-held
	path, _ := r.file(t, "f", 1000)
	if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}); err != nil {
		t.Error(err)
	}
	<-over
	if <-arrived {
		t.Error("all of it has arrived")
	}
	r.wantNothingLeft(t)
}

// TestCutOff: what would soon end may end.
func TestCutOff(t *testing.T) {
	const trip = 400 * time.Millisecond
	for _, tc := range []struct {
		name         string
		unconnected  bool
		size         int64
		expected     time.Duration
		why          error
		ends, wantAt time.Duration // by itself; when it is cut off, 0: at once, negative: never
	}{
		{"a few packets", false, firstWarmth, 0, errPushesFirst, trip, -1},
		{"they stand still", false, firstWarmth, time.Minute, errPushesFirst, time.Hour, 2 * trip},
		{"soon over", false, 1 << 20, trip, errPushesFirst, trip, -1},
		{"not so soon", false, 1 << 20, time.Second, errPushesFirst, time.Hour, 0},
		{"no connection yet", true, 1 << 20, trip, errPushesFirst, time.Hour, 0},
		{"the daemon stops", false, firstWarmth, trip, errLeaving, time.Hour, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &warmth{delivery: &delivery{up: &Uploader{path: func(string) transport.Path { return transport.Path{RTT: trip} }}}}
				p := &warmPart{volley: &volley{size: tc.size, expected: tc.expected, begin: make(chan struct{}), begun: time.Now()}}
				p.connected.Store(!tc.unconnected)
				close(p.begin)
				ctx, cut := context.WithCancelCause(t.Context())
				time.AfterFunc(tc.ends, func() { cut(nil) })
				w.cutOff(ctx, p, tc.why, cut)
				at := time.Since(p.begun)
				if context.Cause(ctx) != tc.why {
					at = -1
				}
				if at != tc.wantAt {
					t.Errorf("it was cut off at %v, want %v", at, tc.wantAt)
				}
				cut(nil)
			})
		})
	}
}

func TestNextWarmth(t *testing.T) {
	for _, tc := range []struct {
		name string
		size int64
		rate float64 // of each connection
		rtt  time.Duration
		want int64
	}{
		{"much room", 1 << 20, 1e9, time.Millisecond, 4 << 20},
		{"a slow link", 16 << 10, 50_000, time.Millisecond, 50_000},
		{"a slower one", 16 << 10, 5000, time.Millisecond, firstWarmth},
		{"a long one", 1 << 20, 1e6, 200 * time.Millisecond, 2_000_000},
	} {
		if got := nextWarmth(tc.size, tc.rate, tc.rtt); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// TestWarmUpKeepsToTheBandwidth: where the share of a connection is no more than what
// goes at once, only the one that may have all of it is warmed, and no further.
func TestWarmUpKeepsToTheBandwidth(t *testing.T) {
	r := newRig(t, func(cfg *Config) { cfg.Bandwidth = transport.NewBandwidth(1_600_000) })
	r.path = func(string) transport.Path { return transport.Path{RTT: 200 * time.Millisecond} }
	var sent, parts atomic.Int64
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.HasPrefix(operationOf(req), "UploadPart") {
			sent.Add(req.ContentLength)
			parts.Add(1)
		}
		next.ServeHTTP(w, req)
	})
	r.warmUp(warmPlace)
	// The limit holds 40,000 bytes in a round trip.
	if !r.warm.Load() || parts.Load() != 1 || sent.Load() != 160_000 {
		t.Errorf("%d bytes in %d parts, log: %s", sent.Load(), parts.Load(), r.log)
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

// TestWarmUpEndsWithTheDaemon: it holds up nobody who stops it, and leaves nothing.
func TestWarmUpEndsWithTheDaemon(t *testing.T) {
	for _, operation := range []string{"CreateMultipartUpload", "UploadPart"} {
		t.Run(operation, func(t *testing.T) {
			r := newRig(t)
			held, draining := make(chan struct{}, 100), make(chan struct{})
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if strings.HasPrefix(operationOf(req), operation) {
					body, _ := io.ReadAll(req.Body)
					req.Body = io.NopCloser(bytes.NewReader(body))
					held <- struct{}{}
					<-draining
				}
				next.ServeHTTP(w, req)
			})
			r.warmup = warmPlace
			r.workers.Go(r.keepWarm)
			<-held
			r.Close()
			close(draining)
			r.Drain(t.Context())
			if left := r.recorded(t); len(left) > 0 {
				t.Errorf("the journal has %+v", left[0])
			}
			if n := len(r.uploadsLeft(t)); n > 0 {
				t.Errorf("the store has %d uploads", n)
			}
		})
	}
}

// TestWarmUpIsLeftToTheJanitor: an upload that the store does not abort now stays in
// the journal.
func TestWarmUpIsLeftToTheJanitor(t *testing.T) {
	r := newRig(t)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodDelete {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, req)
	})
	r.warmUp(warmPlace)
	if left := r.recorded(t); len(left) != 1 || left[0].Probe || left[0].ID == "" {
		t.Errorf("the journal has %d uploads", len(left))
	}
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) { next.ServeHTTP(w, req) })
	r.wantNothingLeft(t)
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

// TestWarmUpWaitsForTheStore: where the store comes up after the daemon there is one
// warm-up, and not a second for the outage that the first has waited out.
func TestWarmUpWaitsForTheStore(t *testing.T) {
	r := newRig(t)
	var uploads atomic.Int32
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if operationOf(req) == "CreateMultipartUpload" {
			uploads.Add(1)
		}
		next.ServeHTTP(w, req)
	})
	var up atomic.Bool
	r.Uploader = r.again(t, func(u *Uploader) {
		connect, ask := u.endpoint.connect, u.endpoint.ask
		u.endpoint.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
			if !up.Load() {
				return nil, errRefused
			}
			return connect(ctx, network, address)
		}
		u.endpoint.ask = func(ctx context.Context) error {
			if !up.Load() {
				return errRefused
			}
			return ask(ctx)
		}
		u.warmup = warmPlace
	})
	until(t, "the store counts as away", func() bool { _, _, down := r.endpoint.down(); return down })
	up.Store(true)
	until(t, "they are warm", r.warm.Load)
	until(t, "it is over", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.warming == nil })
	if n := len(r.cooled); n != 0 || uploads.Load() != 1 {
		t.Errorf("%d warm-ups, and %d to come", uploads.Load(), n)
	}
}

func TestBorrowedSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(2)
		for n, want := range []bool{true, true, false} {
			if s.borrow() != want {
				t.Fatalf("slot %d of two was borrowed, or not: %v", n+1, !want)
			}
		}
		if s.room() != 1 || s.inUse() != 2 {
			t.Errorf("room for %d more parts, %d in use", s.room(), s.inUse())
		}
		var who turn
		got := make(chan error, 1)
		go func() { got <- s.acquire(t.Context(), &who, single) }()
		synctest.Wait()
		if len(got) > 0 {
			t.Error("there are more slots than two")
		}
		s.giveBack()
		if err := <-got; err != nil || s.borrow() {
			t.Errorf("%v, or a slot was borrowed, and none is free", err)
		}
		s.giveBack()
		s.release(&who, single)
		if s.inUse() != 0 || s.room() != 1 {
			t.Errorf("%d in use, room for %d", s.inUse(), s.room())
		}
	})
}
