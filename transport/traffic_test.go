package transport

import (
	"context"
	"errors"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// lane is a link as its connections see it, for the traffic on it.
type lane struct {
	*traffic
	carries float64
	mu      sync.Mutex
	infos   map[net.Conn]Info
}

func newLane(carries float64) *lane {
	l := &lane{carries: carries, infos: make(map[net.Conn]Info)}
	l.traffic = newTraffic(func() seen { return seen{most: l.carries} })
	l.traffic.infoOf = func(c net.Conn) (Info, bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		info, ok := l.infos[c]
		return info, ok
	}
	return l
}

// sender is a request on a lane.
type sender struct {
	lane *lane
	conn net.Conn
	body *countedBody
	turn *turn
	err  error
	in   atomic.Bool
}

// send has a request of a megabyte ask for its turn on a connection that sends at
// that rate.
func (l *lane) send(ctx context.Context, rate float64) *sender {
	conn, _ := net.Pipe()
	s := &sender{lane: l, conn: conn, body: new(countedBody)}
	s.says(Info{Known: true, Algorithm: bbr, RTT: 200 * time.Millisecond, MinRTT: 200 * time.Millisecond, Pacing: rate, Unsent: 1})
	go func() {
		s.turn, s.err = l.enter(ctx, &member{conn: conn}, s.body, 1e6)
		s.in.Store(s.err == nil)
	}()
	synctest.Wait()
	return s
}

func (s *sender) says(info Info) {
	s.lane.mu.Lock()
	defer s.lane.mu.Unlock()
	s.lane.infos[s.conn] = info
}

// sent has the last byte leave.
func (s *sender) sent() {
	s.lane.mu.Lock()
	info := s.lane.infos[s.conn]
	s.lane.mu.Unlock()
	s.body.read.Store(1e6)
	info.Unsent = 0
	s.says(info)
}

// TestTurns: as many send as fill the link, in the order in which they came, and the
// next begins when the last byte of one has left, not when it has its answer.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(100e6)
		var all []*sender
		for range 10 {
			all = append(all, l.send(t.Context(), 30e6))
		}
		count := func() (n int) {
			for i, s := range all {
				if s.in.Load() && i > 0 && !all[i-1].in.Load() {
					t.Errorf("%d sends before %d", i, i-1)
				}
				if s.in.Load() {
					n++
				}
			}
			return n
		}
		if n := count(); n != 4 {
			t.Errorf("%d send at 30 MB/s each over a link of 100, want 4", n)
		}
		all[1].sent()
		time.Sleep(200 * time.Millisecond / looksATrip)
		synctest.Wait()
		if n := count(); n != 5 {
			t.Errorf("%d have begun once one had sent all, want 5", n)
		}
		for _, s := range all[:5] {
			l.leave(s.turn)
		}
		synctest.Wait()
		if n := count(); n != 9 {
			t.Errorf("%d have begun once five had ended, want 9", n)
		}
		for _, s := range all {
			l.leave(s.turn)
			synctest.Wait()
		}
		if len(l.sending)+len(l.waiting) != 0 || l.flow.paused.IsZero() {
			t.Errorf("at the end %d send, %d wait, %+v", len(l.sending), len(l.waiting), l.flow)
		}
	})
}

// TestNoTurn: who has little to send, or has a short way, or a congestion control
// that heeds no limit of ours, waits for nobody, nor does anybody where nothing is
// known of the link.
func TestNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(1e6)
		first := l.send(t.Context(), 100e6)
		if second := l.send(t.Context(), 100e6); !first.in.Load() || second.in.Load() {
			t.Fatal("the second does not wait")
		}
		conn, _ := net.Pipe()
		for name, c := range map[string]struct {
			size int64
			info Info
		}{
			"small":  {leastTurnSize - 1, Info{Known: true, Algorithm: bbr, RTT: time.Second}},
			"short":  {1e6, Info{Known: true, Algorithm: bbr, RTT: time.Millisecond}},
			"cubic":  {1e6, Info{Known: true, Algorithm: "cubic", RTT: time.Second}},
			"closed": {1e6, Info{}},
		} {
			l.mu.Lock()
			delete(l.infos, conn)
			if c.info.Known {
				l.infos[conn] = c.info
			}
			l.mu.Unlock()
			if one, err := l.enter(t.Context(), &member{conn: conn}, new(countedBody), c.size); one != nil || err != nil {
				t.Errorf("%s: %v, %v", name, one, err)
			}
		}
		unknown := newLane(0)
		for range 10 {
			if s := unknown.send(t.Context(), 100e6); !s.in.Load() || !math.IsInf(s.turn.limit, 1) {
				t.Error("one waits, or is limited, though nothing is known")
			}
		}
	})
}

// TestTurnComes: whoever waits begins in the end, though another holds the link, and
// what has not heard anything for long says nothing of it.
func TestTurnComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(100e6)
		first := l.send(t.Context(), 1e9)
		second := l.send(t.Context(), 1e9)
		hung := Info{Known: true, Algorithm: bbr, RTT: 300 * time.Millisecond, MinRTT: 200 * time.Millisecond, Pacing: 1e9, SinceHeard: time.Hour}
		first.says(hung)
		time.Sleep(time.Second)
		synctest.Wait()
		if second.in.Load() {
			t.Fatal("the second does not wait")
		}
		time.Sleep(turnMoment + turnTrips*200*time.Millisecond)
		synctest.Wait()
		if !second.in.Load() || l.flow.full {
			t.Errorf("the second sends: %v; full: %v", second.in.Load(), l.flow.full)
		}
		l.leave(first.turn)
		l.leave(second.turn)
	})
}

// TestTurnGivenUp: a request that is cancelled while it waits has not sent anything,
// and the next has its place.
func TestTurnGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(1e6)
		first := l.send(t.Context(), 1e9)
		ctx, cancel := context.WithCancelCause(t.Context())
		given := l.send(ctx, 1e9)
		last := l.send(t.Context(), 1e9)
		because := errors.New("because")
		cancel(because)
		synctest.Wait()
		if given.err != because || given.in.Load() {
			t.Errorf("given up: %v", given.err)
		}
		l.leave(first.turn)
		synctest.Wait()
		if !last.in.Load() {
			t.Error("the last waits for one that is gone")
		}
	})
}

// TestShares: those that send share what is allowed, and one that is alone sends as it
// likes.
func TestShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane(100e6)
		a := l.send(t.Context(), 60e6)
		if !math.IsInf(a.turn.limit, 1) {
			t.Errorf("alone it is limited to %v", a.turn.limit)
		}
		b := l.send(t.Context(), 60e6)
		for _, s := range []*sender{a, b} {
			if want := headroom * 100e6 / 2; math.Abs(s.turn.limit-want) > 1 {
				t.Errorf("of two each has %v, want %v", s.turn.limit, want)
			}
		}
		l.leave(b.turn)
		if !math.IsInf(a.turn.limit, 1) || !math.IsInf(b.turn.limit, 1) {
			t.Errorf("alone again: %v, and who left: %v", a.turn.limit, b.turn.limit)
		}
	})
}

// TestDivided: what one cannot use is for the others.
func TestDivided(t *testing.T) {
	for _, tc := range []struct {
		uses, want []float64
	}{
		{[]float64{200}, []float64{100}},
		{[]float64{10}, []float64{100}},
		{[]float64{200, 200}, []float64{50, 50}},
		{[]float64{200, 10}, []float64{90, 50}},
		{[]float64{10, 200, 20, 200}, []float64{25, 35, 30, 35}},
	} {
		if got := shares(100, tc.uses); !slices.Equal(got, tc.want) {
			t.Errorf("of 100 those that can use %v have %v, want %v", tc.uses, got, tc.want)
		}
	}
}

// TestFlow has more be allowed as long as that is used and no queue shows, and what
// gets through once one does.
func TestFlow(t *testing.T) {
	const trip = 250 * time.Millisecond
	now := time.Unix(1e9, 0)
	var f flow
	f.resume(seen{most: 100, segment: 1}, now)
	f.promise(80, 80)
	for i, step := range []struct {
		longer  bool
		total   float64
		arrived int64 // in that time
		resent  int64
		want    float64
	}{
		{false, 105, 0, 0, 105 * 1.25},
		{false, 100, 20, 0, 131.25}, // is not used
		{false, 131, 20, 1, 131.25}, // much is lost
		{true, 131, 30, 0, 120},     // and that gets through
		{true, 120, 10, 0, 84},      // less did, perhaps since there was no more to send
		{false, 84, 21, 0, 105},
	} {
		now = now.Add(trip)
		s := f.seen
		s.arrived, s.resent = s.arrived+step.arrived, s.resent+step.resent
		f.heard(step.longer)
		if f.see(step.total, s, now); math.Abs(f.allowed-step.want) > 1e-9*step.want {
			t.Errorf("step %d: %v are allowed, want %v", i, f.allowed, step.want)
		}
		if full := step.longer || step.resent > 0; f.full != full {
			t.Errorf("step %d: full is %v", i, f.full)
		}
	}
	if f.promise(1000, 1000); f.allowed != 105 {
		t.Errorf("after a queue what is remembered counts still: %v", f.allowed)
	}
}

// TestSlowIsNoQueue: connections that send a packet now and then have a longer round
// trip by the time between two, as long as what they may send is little. That is no
// queue: they may send more, until the trip is longer than that.
func TestSlowIsNoQueue(t *testing.T) {
	const trip = 200 * time.Millisecond
	for _, tc := range []struct {
		pacing float64
		rtt    time.Duration
		longer bool
	}{
		{72_400, 220 * time.Millisecond, false},
		{72_400, 240 * time.Millisecond, true},
		{1e6, 220 * time.Millisecond, true},
		{1e6, 208 * time.Millisecond, false},
		{100, 245 * time.Millisecond, false},
		{100, 260 * time.Millisecond, true},
	} {
		l := newLane(1e6)
		l.hearLocked(&turn{limit: math.Inf(1), info: Info{RTT: tc.rtt, MinRTT: trip, Pacing: tc.pacing, Segment: 1448}})
		if longer := l.flow.longer == 1; longer != tc.longer || l.flow.trips != 1 {
			t.Errorf("at %v B/s a round trip of %v, in place of %v, shows a queue: %v, want %v", tc.pacing, tc.rtt, trip, longer, tc.longer)
		}
	}
}

// TestFlowBegins: with what was seen, or what is remembered by those that come; in the
// first round trip nothing arrives, which says nothing.
func TestFlowBegins(t *testing.T) {
	now := time.Unix(1e9, 0)
	var f flow
	if f.resume(seen{segment: 1}, now); !math.IsInf(f.allowed, 1) {
		t.Errorf("where nothing is known %v are allowed", f.allowed)
	}
	f.heard(false)
	if f.see(100, f.seen, now.Add(time.Second)); !math.IsInf(f.allowed, 1) {
		t.Errorf("and no queue is seen: %v", f.allowed)
	}
	f.heard(true)
	if f.see(100, seen{most: 50, arrived: 100, segment: 1}, now.Add(2*time.Second)); f.allowed != 105 {
		t.Errorf("and one is: %v", f.allowed)
	}

	f = flow{}
	f.resume(seen{most: 100, segment: 1}, now)
	if f.promise(800, 120); f.allowed != headroom*mostOfMost*100 {
		t.Errorf("of 800 that are remembered, 120 by one, %v are allowed", f.allowed)
	}
	if f.promise(800, 300); f.allowed != headroom*300 {
		t.Errorf("of 300 that one remembers %v are allowed", f.allowed)
	}
	f.heard(true)
	if f.see(315, f.seen, now.Add(time.Second)); f.allowed != 0.7*315 {
		t.Errorf("after a first queue %v are allowed", f.allowed)
	}
	f.pause(now)
	if !f.idle(now) {
		t.Error("it is not paused")
	}
	if f.resume(f.seen, now.Add(forgotten)); f.idle(now) || f.allowed != 0.7*315 {
		t.Errorf("it goes on with %v", f.allowed)
	}
	for i := range 100 {
		f.heard(true)
		f.see(1, f.seen, now.Add(time.Duration(i+2)*time.Second))
	}
	if f.allowed != leastOfMost*100 {
		t.Errorf("with nothing that arrives %v are allowed", f.allowed)
	}
	f.pause(now)
	if f.resume(f.seen, now.Add(forgotten+1)); f.allowed != headroom*100 {
		t.Errorf("it goes on after a long time, with %v", f.allowed)
	}
}
