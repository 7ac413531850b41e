package uploader

import (
	"bytes"
	"context"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

// addsUp reports whether the timing of a push amounts to its seconds.
func addsUp(r push.Receipt) bool {
	t := r.Timing
	return t != nil && t.Queued >= 0 && t.Connect >= 0 && t.Send >= 0 && t.Store >= 0 &&
		math.Abs(t.Queued+t.Connect+t.Send+t.Store-r.Seconds) <= 1e-9*max(1, r.Seconds)
}

// TestClock has requests of a push come and go, at moments in milliseconds.
func TestClock(t *testing.T) {
	const ms = time.Millisecond
	type span struct{ begun, connected, ended, sent int } // sent: how long that took; connected and ended may be the same
	for _, tt := range []struct {
		name                 string
		spans                []span
		connect, send, store int
	}{
		{"none", nil, 0, 0, 0},
		{"one on an open connection", []span{{10, 10, 110, 80}}, 0, 80, 20},
		{"one that connects", []span{{10, 60, 110, 40}}, 50, 40, 10},
		{"one that gets no connection", []span{{10, 60, 60, 0}}, 50, 0, 0},
		{"one that breaks while it is sent", []span{{10, 10, 60, 0}}, 0, 50, 0},
		{"what is sent for longer than it is under way", []span{{10, 10, 60, 70}}, 0, 50, 0},
		{"one after the other", []span{{0, 0, 100, 100}, {300, 300, 400, 50}}, 0, 150, 50},
		{"side by side", []span{{0, 0, 100, 75}, {0, 0, 100, 75}}, 0, 75, 25},
		{"side by side, one of them slow in the store", []span{{0, 0, 100, 100}, {0, 0, 100, 20}}, 0, 60, 40},
		{"one connects while another is under way", []span{{0, 0, 100, 100}, {20, 80, 180, 100}}, 0, 180, 0},
		{"one connects for longer than another is under way", []span{{0, 0, 50, 50}, {20, 80, 180, 100}}, 30, 150, 0},
		{"two connect", []span{{0, 80, 100, 20}, {20, 90, 100, 10}}, 80, 20, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			origin := time.Now()
			at := func(n int) time.Time { return origin.Add(time.Duration(n) * ms) }
			var c clock
			for now := range 1000 {
				for _, s := range tt.spans {
					if s.ended == now && s.connected < now {
						c.took(time.Duration(s.ended-s.connected)*ms, time.Duration(s.sent)*ms)
						c.move(underway, over, at(now))
					}
					if s.begun == now {
						c.move(before, connecting, at(now))
					}
					if s.connected == now {
						c.move(connecting, underway, at(now))
					}
					if s.ended == now && s.connected == now {
						c.move(underway, over, at(now))
					}
				}
			}
			got := *c.spent()
			if want := (journal.Spent{Connect: time.Duration(tt.connect) * ms, Send: time.Duration(tt.send) * ms, Store: time.Duration(tt.store) * ms}); got != want {
				t.Errorf("spent %+v, want %+v", got, want)
			}
		})
	}
}

// TestClockCountsTheUnion: whatever requests overlap, what is counted is the time
// in which one is at it at least, and no more of it than there is.
func TestClockCountsTheUnion(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 7))
	for range 300 {
		origin, now := time.Now(), time.Now()
		var c clock
		var requests [over + 1]int
		var connect, transfer time.Duration
		began := make(map[int]time.Time)
		phases := make([]phase, 8)
		for range 60 {
			passed := time.Duration(random.IntN(1000)) * time.Microsecond
			switch {
			case requests[underway] > 0:
				transfer += passed
			case requests[connecting] > 0:
				connect += passed
			}
			now = now.Add(passed)
			i := random.IntN(len(phases))
			from, to := phases[i], phases[i]+1
			if from == over {
				from, to = before, connecting // a request that follows it
			}
			if from == underway {
				all := now.Sub(began[i])
				c.took(all, time.Duration(random.Int64N(int64(all)+2)))
			}
			began[i] = now
			c.move(from, to, now)
			requests[from]--
			requests[to]++
			phases[i] = to
		}
		got := *c.spent()
		if got.Connect != connect || got.Send+got.Store != transfer || got.Send < 0 || got.Store < 0 {
			t.Fatalf("seed %d: spent %+v of %v, want %v connecting and %v under way", seed, got, now.Sub(origin), connect, transfer)
		}
	}
}

func TestTimingAddsUp(t *testing.T) {
	for _, s := range []journal.Spent{
		{}, {Connect: time.Second}, {Send: time.Second, Store: time.Nanosecond}, {Connect: 1, Send: 2, Store: 3},
		{Connect: time.Hour, Send: time.Hour, Store: time.Hour},
	} {
		for _, took := range []time.Duration{0, 1, 3, time.Second / 10, time.Second, time.Hour, 100 * 24 * time.Hour} {
			if r := (push.Receipt{Seconds: took.Seconds(), Timing: timingOf(&s, took)}); !addsUp(r) {
				t.Errorf("%+v in %v: %+v", s, took, *r.Timing)
			}
		}
	}
	if got := timingOf(nil, 5); got != nil {
		t.Errorf("of an earlier version: %+v", got)
	}
}

// TestTimingSaysWhatWasSlow has a push be slow in one way at a time, by more than
// all else of it takes.
func TestTimingSaysWhatWasSlow(t *testing.T) {
	const slow = 300 * time.Millisecond
	var first atomic.Bool
	for name, tt := range map[string]struct {
		spoil func(w http.ResponseWriter, req *http.Request, next http.Handler)
		slow  func(push.Timing) float64
	}{
		"the store": {func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			body, _ := io.ReadAll(req.Body)
			time.Sleep(slow)
			req.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(w, req)
		}, func(t push.Timing) float64 { return t.Store }},
		"another attempt": {func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if first.CompareAndSwap(true, false) {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, req)
		}, func(t push.Timing) float64 { return t.Queued }},
		"the sending": {func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			head := make([]byte, 1<<20)
			n, _ := io.ReadFull(req.Body, head)
			time.Sleep(slow)
			req.Body = io.NopCloser(io.MultiReader(bytes.NewReader(head[:n]), req.Body))
			next.ServeHTTP(w, req)
		}, func(t push.Timing) float64 { return t.Send }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.MaxConnections = 1 })
			const size = 40 << 20 // more than the other end takes while nobody reads
			r.plan.whole = size
			first.Store(true)
			r.spoil(tt.spoil)
			path, _ := r.file(t, "f", size)
			receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
			if err != nil {
				t.Fatal(err)
			}
			if got := tt.slow(*receipt.Timing); got < slow.Seconds() {
				t.Errorf("the timing is %+v of %v seconds", *receipt.Timing, receipt.Seconds)
			}
			kept, err := r.Get(t.Context(), parseID(t, receipt.ID), 0)
			if err != nil || !addsUp(kept) || kept.Timing.Queued != receipt.Timing.Queued && math.Abs(kept.Seconds-receipt.Seconds) < 1e-9 {
				t.Errorf("kept is %+v, %v, was %+v", kept.Timing, err, receipt.Timing)
			}
		})
	}
}

// TestTimingOfAConnection has a push wait for its connection.
func TestTimingOfAConnection(t *testing.T) {
	const slow = 200 * time.Millisecond
	r := newRig(t)
	r.Uploader = r.again(t, func(u *Uploader) { // before the pool is opened
		connect := u.endpoint.connect
		u.endpoint.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
			for u.clocked() == 0 && ctx.Err() == nil { // which it could not wait for before
				runtime.Gosched()
			}
			time.Sleep(slow)
			return connect(ctx, network, address)
		}
	})
	path, _ := r.file(t, "f", 100)
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	if err != nil {
		t.Fatal(err)
	}
	if receipt.Timing.Connect < slow.Seconds() {
		t.Errorf("the timing is %+v of %v seconds", *receipt.Timing, receipt.Seconds)
	}
}

// clocked returns how many requests of pushes connect just now.
func (u *Uploader) clocked() (n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range u.live {
		if e.task != nil {
			e.task.clock.mu.Lock()
			n += e.task.clock.trips[connecting]
			e.task.clock.mu.Unlock()
		}
	}
	return n
}
