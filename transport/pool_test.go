package transport

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestChoose: the least warm of the idle connections to a host that will do, else
// the warmest, and of equals the one that was used last.
func TestChoose(t *testing.T) {
	const kb = 1000.0
	here, there := host{"http", "here:80"}, host{"http", "there:80"}
	at := func(to host, s state, rate float64, since int) *member {
		return &member{to: to, state: s, since: time.Unix(int64(since), 0), info: Info{Rate: rate}}
	}
	enough := [...]float64{math.Inf(1), 2 * kb, 0, -1}
	for _, tc := range []struct {
		name    string
		members []*member
		want    [len(enough)]int // which of them; -1: none
	}{
		{"none", nil, [...]int{-1, -1, -1, -1}},
		{"a place that is free", []*member{nil}, [...]int{-1, -1, -1, -1}},
		{"those that are busy, or left, or another's", []*member{at(here, busy, kb, 1), at(here, left, kb, 1), at(there, idle, kb, 1)}, [...]int{-1, -1, -1, -1}},
		{"one", []*member{nil, at(here, idle, 0, 1)}, [...]int{1, 1, 1, 1}},
		{"several", []*member{at(here, idle, kb, 4), at(here, idle, 4*kb, 1), at(here, idle, 2*kb, 2), at(here, idle, 3*kb, 3)}, [...]int{1, 2, 0, 0}},
		{"several, the other way", []*member{at(here, idle, 3*kb, 3), at(here, idle, 2*kb, 2), at(here, idle, 4*kb, 1), at(here, idle, kb, 4)}, [...]int{2, 1, 3, 3}},
		{"the warmest is busy", []*member{at(here, idle, kb, 3), at(here, busy, 3*kb, 1), at(here, idle, 2*kb, 2)}, [...]int{2, 2, 0, 0}},
		{"none that will do", []*member{at(here, idle, kb, 3), at(here, idle, 0, 1)}, [...]int{0, 0, 1, 1}},
		{"equals", []*member{at(here, idle, 0, 1), at(here, idle, 0, 3), at(here, idle, 0, 2)}, [...]int{1, 1, 1, 1}},
		{"equals of which one is warm", []*member{at(here, idle, 0, 1), at(here, idle, 0, 3), at(here, idle, kb, 2)}, [...]int{2, 2, 1, 1}},
	} {
		places := make([]place, len(tc.members))
		for i, m := range tc.members {
			places[i].member = m
		}
		for i, rate := range enough {
			got, want := choose(places, here, rate), tc.want[i]
			if want < 0 && got != nil || want >= 0 && got != tc.members[want] {
				t.Errorf("%s, %v will do: not the one at %d", tc.name, rate, want)
			}
		}
	}
}

// TestCarries: what a connection begins with after a pause.
func TestCarries(t *testing.T) {
	const mb = 1e6
	trip := 200 * time.Millisecond
	cubic := Info{Algorithm: "cubic", RTT: trip, MinRTT: trip, Window: 4 * mb, Rate: 99 * mb}
	for _, tc := range []struct {
		name   string
		info   Info
		rested time.Duration
		want   float64
	}{
		{"nothing is known", Info{}, time.Second, 0},
		{"bbr remembers", Info{Algorithm: bbr, RTT: trip, Rate: 125 * mb, Window: mb}, time.Hour, 125 * mb},
		{"bbr that knows nothing", Info{Algorithm: bbr, RTT: trip, Window: initialWindow}, 0, initialWindow / 0.2},
		{"in use", cubic, 0, 20 * mb},
		{"a moment ago", cubic, 300 * time.Millisecond, 20 * mb},
		{"half a window later", cubic, 500 * time.Millisecond, 10 * mb},
		{"forgotten", cubic, time.Minute, initialWindow / 0.2},
		{"never had as much", Info{Algorithm: "cubic", RTT: trip, Window: 1448}, time.Minute, 1448 / 0.2},
	} {
		if got := carries(tc.info, tc.rested); got < 0.999*tc.want || got > 1.001*tc.want {
			t.Errorf("%s: %.0f bytes a second, want %.0f", tc.name, got, tc.want)
		}
	}
}

// TestHostOf: what is one host, however it is written.
func TestHostOf(t *testing.T) {
	for text, want := range map[string]string{
		"http://store":          "http store:80 http://store/",
		"http://STORE:80/a?b":   "http store:80 http://store/",
		"https://store:443":     "https store:443 https://store/",
		"https://store:9000/x":  "https store:9000 https://store:9000/",
		"http://[::1]:9000/key": "http [::1]:9000 http://[::1]:9000/",
		"http://[::1]":          "http [::1]:80 http://[::1]/",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		h := hostOf(u)
		if got := h.scheme + " " + h.address + " " + h.url().String(); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// far is stores in memory that are counted: how many connections there are, and
// have been, to all of them.
type far struct {
	answer func(conn net.Conn, req *http.Request) // nil: at once
	refuse atomic.Bool

	mu         sync.Mutex
	open, most int
	all        int
	conns      []net.Conn
}

var errRefused = errors.New("refused")

func (f *far) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if f.refuse.Load() {
		return nil, errRefused
	}
	answer := f.answer
	if answer == nil {
		answer = agree
	}
	near, _ := piped(answer)(ctx, network, address)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open++
	f.all++
	f.most = max(f.most, f.open)
	f.conns = append(f.conns, near)
	return &closing{Conn: near, closed: func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.open--
	}}, nil
}

func (f *far) counts() (open, most, all int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open, f.most, f.all
}

// agree reads a request, and answers it.
func agree(conn net.Conn, req *http.Request) {
	io.Copy(io.Discard, req.Body)
	io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

// closing tells when it is closed first.
type closing struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *closing) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}

// many makes a pool of so many connections.
func many(t *testing.T, connections int, f *far) *Transport {
	cfg := usual(f.dial)
	cfg.Connections = connections
	return newTransport(t, cfg)
}

// TestLimitOfAll: however many hosts there are, no more connections are open than
// may be; an idle one to another host makes room.
func TestLimitOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{answer: func(conn net.Conn, req *http.Request) { time.Sleep(time.Second); agree(conn, req) }}
		tr := many(t, 3, f)
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				if _, err := put(tr, t.Context(), "http://store"+string(rune('a'+i%6)), 100, zeros(100)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		open, most, _ := f.counts()
		if open != 3 || most != 3 {
			t.Errorf("%d connections are open, and were %d at once, want 3", open, most)
		}
		if n := len(tr.Connections()); n != 3 {
			t.Errorf("%d connections are told of", n)
		}
	})
}

// TestCrowd: a thousand requests on a few connections.
func TestCrowd(t *testing.T) {
	const requests, connections = 1000, 25
	var now, most atomic.Int64
	s := serve(t, func(_ http.ResponseWriter, req *http.Request) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		io.Copy(io.Discard, req.Body)
		now.Add(-1)
	})
	tr := overSockets(t, 10*time.Second, func(cfg *Config) { cfg.Connections = connections })
	var wg sync.WaitGroup
	for i := range requests {
		wg.Go(func() {
			if _, err := put(tr, t.Context(), s.URL, int64(i*100), zeros(int64(i*100))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// net/http gives a few connections up, where the machine is so slow that an answer
	// is read long before the end of the writing is noticed.
	total := tr.Totals()
	if most.Load() > connections || total.Reused < requests*9/10 || total.Dials+total.Reused < requests || total.AckedBytes < requests*(requests-1)/2*100 {
		t.Errorf("%d at once; %+v", most.Load(), total)
	}
	open := tr.Connections()
	if len(open) == 0 || len(open) > connections {
		t.Errorf("%d are open", len(open))
	}
	last := -1
	for _, c := range open {
		if c.Busy || c.Number <= last || c.Number >= connections || c.Requests == 0 || c.Info.RTT == 0 || c.Address != strings.TrimPrefix(s.URL, "http://") {
			t.Errorf("%+v", c)
		}
		last = c.Number
	}
}

// TestServedInOrder: a connection that is given back goes to the request that has waited
// longest.
func TestServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		f := &far{answer: func(conn net.Conn, req *http.Request) {
			time.Sleep(time.Second)
			got = append(got, req.URL.Path)
			agree(conn, req)
		}}
		tr := many(t, 1, f)
		var wg sync.WaitGroup
		var want []string
		for i := range 10 {
			path := "/" + string(rune('a'+i))
			want = append(want, path)
			wg.Go(func() {
				if _, err := put(tr, t.Context(), "http://store"+path, 100, zeros(100)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		wg.Wait()
		if !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
	})
}

// TestWhicheverIsFirst: a request that has a connection made takes one that is
// given back meanwhile, and the other is there for the next.
func TestWhicheverIsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(far)
		slow := false
		cfg := usual(func(ctx context.Context, network, address string) (net.Conn, error) {
			if slow {
				time.Sleep(4 * time.Second)
			}
			return f.dial(ctx, network, address)
		})
		cfg.Connections = 2
		f.answer = func(conn net.Conn, req *http.Request) { time.Sleep(time.Second); agree(conn, req) }
		tr := newTransport(t, cfg)
		first := make(chan error, 1)
		go func() {
			_, err := put(tr, t.Context(), "http://store", 100, zeros(100))
			first <- err
		}()
		synctest.Wait()
		slow = true
		begun := time.Now()
		_, err := put(tr, t.Context(), "http://store", 100, zeros(100))
		if took := time.Since(begun); err != nil || <-first != nil || took != 2*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		time.Sleep(time.Minute)
		if open, _, all := f.counts(); open != 2 || all != 2 {
			t.Errorf("%d connections of %d are open", open, all)
		}
	})
}

// TestFailureIsOnes: that a connection cannot be made fails the request that it was
// begun for, and no other.
func TestFailureIsOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{answer: func(conn net.Conn, req *http.Request) { time.Sleep(time.Second); agree(conn, req) }}
		tr := many(t, 2, f)
		try := func() <-chan error {
			ended := make(chan error, 1)
			go func() {
				_, err := put(tr, t.Context(), "http://store", 100, zeros(100))
				ended <- err
			}()
			synctest.Wait()
			return ended
		}
		first := try()
		f.refuse.Store(true)
		second := try()
		if err := <-second; !errors.Is(err, errRefused) {
			t.Errorf("the second: %v", err)
		}
		f.refuse.Store(false)
		third := try()
		if err := errors.Join(<-first, <-third); err != nil {
			t.Error(err)
		}
		if n := tr.Totals(); n.Dials != 3 || n.DialFailures != 1 {
			t.Errorf("%+v", n)
		}
	})
}

// TestGivingUp: a request that waits no more leaves nothing behind, whatever its
// connection is doing.
func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &far{answer: func(conn net.Conn, req *http.Request) { time.Sleep(time.Second); agree(conn, req) }}
		tr := many(t, 2, f)
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				ctx, done := context.WithTimeout(t.Context(), time.Duration(i)*400*time.Millisecond)
				defer done()
				if _, err := put(tr, ctx, "http://store", 100, zeros(100)); err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		tr.pool.mu.Lock()
		if len(tr.pool.waiting) != 0 {
			t.Errorf("%d requests wait", len(tr.pool.waiting))
		}
		tr.pool.mu.Unlock()
		for _, c := range tr.Connections() {
			if c.Busy {
				t.Errorf("%+v", c)
			}
		}
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil {
			t.Error(err)
		}
	})
}

// TestOnce: where each connection is for one request none is kept, and none made
// for nobody.
func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(far)
		cfg := usual(f.dial)
		cfg.Once, cfg.Connections = true, 2
		tr := newTransport(t, cfg)
		for range 5 {
			if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if open, _, all := f.counts(); open != 0 || all != 5 {
			t.Errorf("%d of %d connections are open", open, all)
		}
		hung := make(chan error, 1)
		cfg.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			hung <- ctx.Err()
			return nil, ctx.Err()
		}
		ctx, done := context.WithTimeout(t.Context(), time.Second)
		defer done()
		begun := time.Now()
		_, err := put(newTransport(t, cfg), ctx, "http://store", 100, zeros(100))
		if <-hung; !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > time.Second {
			t.Errorf("%v, and the connection was given up after %v", err, time.Since(begun))
		}
	})
}

// TestLeastWarmMakesRoom: of the idle connections to other hosts that makes room which
// remembers the least.
func TestLeastWarmMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := many(t, 3, new(far))
		hosts := []string{"http://a", "http://b", "http://c"}
		for _, h := range hosts {
			if _, err := put(tr, t.Context(), h, 100, zeros(100)); err != nil {
				t.Fatal(err)
			}
		}
		tr.pool.mu.Lock()
		for i, at := range tr.pool.places {
			at.member.info.Rate = []float64{3, 1, 2}[i]
		}
		tr.pool.mu.Unlock()
		if _, err := put(tr, t.Context(), "http://d", 100, zeros(100)); err != nil {
			t.Error(err)
		}
		tr.pool.mu.Lock()
		defer tr.pool.mu.Unlock()
		for _, at := range tr.pool.places {
			if at.member.to.address == "b:80" {
				t.Error("that to b is still there")
			}
		}
	})
}

// TestNotForAnother: a request has no part in connections that are being made to
// another host, nor in their failure.
func TestNotForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(far)
		cfg := usual(func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "store:80" {
				time.Sleep(time.Second)
				return nil, errRefused
			}
			return f.dial(ctx, network, address)
		})
		cfg.Connections = 2
		tr := newTransport(t, cfg)
		tr.Keep(&url.URL{Scheme: "http", Host: "store"})
		if _, err := put(tr, t.Context(), "http://other", 100, zeros(100)); err != nil {
			t.Error(err)
		}
	})
}

// TestAfterTheEnd: a request that comes after the end has a connection for itself,
// which is closed thereafter.
func TestAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(far)
		tr := many(t, 2, f)
		tr.Close()
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if open, _, all := f.counts(); open != 0 || all != 1 {
			t.Errorf("%d connections of %d are open", open, all)
		}
	})
}

// TestDistrust: which connections go with one that broke.
func TestDistrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := kept(t, 4, new(impatient))
		synctest.Wait()
		p := tr.pool
		p.mu.Lock()
		p.once, p.closed = true, true // what goes is not replaced
		other := &member{to: host{"http", "other:80"}, state: idle, place: 4, since: time.Now()}
		p.places = append(p.places, place{member: other})
		defer func() { p.places = p.places[:4] }()
		begun := time.Now()
		var all []*member
		for i, at := range p.places[:4] {
			at.member.since = begun.Add(time.Duration(i) * time.Minute)
			all = append(all, at.member)
		}
		p.mu.Unlock()
		time.Sleep(time.Hour)
		are := func(what string, want ...state) {
			t.Helper()
			for i, s := range want {
				if all[i].state != s {
					t.Errorf("%s: that at %d is in state %d, want %d", what, i, all[i].state, s)
				}
			}
			if other.state != idle {
				t.Errorf("%s: one to another host has gone with them", what)
			}
		}
		broken := all[1]
		broken.state, broken.rested = busy, time.Hour-time.Minute
		p.distrust(broken, false)
		are("it broke off", idle, busy, idle, idle)
		if p.count.lost != 0 || p.ends[broken.to].endure.limit != 0 {
			t.Errorf("of one that broke off was learned: %+v", p.ends[broken.to].endure)
		}
		broken.info = Info{Known: true}
		p.ends[broken.to].doubt = time.Time{}
		p.distrust(broken, true)
		are("it was gone", left, busy, idle, idle)
		if p.count.lost != 1 || p.ends[broken.to].endure.limit != 0 {
			t.Errorf("others were idle as long, but %+v was learned", p.ends[broken.to].endure)
		}
		all[3].since = time.Now().Add(time.Nanosecond) // after the first was found
		p.distrust(broken, true)
		are("a second was gone", left, busy, left, idle)
		p.distrust(broken, true)
		if limit := p.ends[broken.to].endure.limit; limit != broken.rested {
			t.Errorf("learned was %v", limit)
		}
		p.release(broken, nil)
		if e := p.ends[broken.to]; !e.doubt.IsZero() {
			t.Errorf("one was sound, and still there is doubt of those before %v", e.doubt)
		}
	})
}

// TestNothingIsLeft: after the end there are no goroutines and no descriptors.
func TestNothingIsLeft(t *testing.T) {
	s := serve(t, func(_ http.ResponseWriter, req *http.Request) { io.Copy(io.Discard, req.Body) })
	before := runtime.NumGoroutine()
	for range 10 {
		tr := New(socketsConfig(10*time.Second, func(cfg *Config) { cfg.Connections = 25 }))
		base, _ := url.Parse(s.URL)
		tr.Keep(base)
		if _, err := put(tr, t.Context(), s.URL, 1<<20, zeros(1<<20)); err != nil {
			t.Error(err)
		}
		tr.Close()
		if n := len(tr.Connections()); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	}
	s.CloseClientConnections()
	for n := 0; runtime.NumGoroutine() > before; n++ {
		if n == 1000 {
			t.Fatalf("%d goroutines, of %d before", runtime.NumGoroutine(), before)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
