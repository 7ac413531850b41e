package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// impatient is stores that close a connection which is idle for so long; 0 for
// never.
type impatient struct {
	limit  atomic.Int64
	refuse atomic.Bool // connections
	bye    atomic.Bool // each answer is the last of its connection
	heads  atomic.Int64
}

func (i *impatient) dial(context.Context, string, string) (net.Conn, error) {
	if i.refuse.Load() {
		return nil, errRefused
	}
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		buffered := bufio.NewReader(far)
		for {
			if limit := time.Duration(i.limit.Load()); limit > 0 {
				far.SetReadDeadline(time.Now().Add(limit))
			}
			req, err := http.ReadRequest(buffered)
			if err != nil {
				return
			}
			far.SetReadDeadline(time.Time{})
			io.Copy(io.Discard, req.Body)
			if req.Method == http.MethodHead {
				i.heads.Add(1)
			}
			header := "Content-Length: 0\r\n\r\n"
			if i.bye.Load() {
				header = "Connection: close\r\n" + header
			}
			io.WriteString(far, "HTTP/1.1 200 OK\r\n"+header)
		}
	}()
	return near, nil
}

// kept makes a pool that is kept full of connections to such stores.
func kept(t *testing.T, connections int, i *impatient) *Transport {
	cfg := usual(i.dial)
	cfg.Connections = connections
	cfg.Refresh = func(ctx context.Context, host *url.URL) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodHead, host.String(), nil)
	}
	tr := newTransport(t, cfg)
	tr.Keep(&url.URL{Scheme: "http", Host: "store"})
	return tr
}

// isOpen returns how many connections are open, once nothing happens any more.
func isOpen(tr *Transport) int {
	synctest.Wait()
	return len(tr.Connections())
}

// TestKept: the connections are open before there is a request, and again when they
// were closed by the other end; and while it is said that there is no way, none is.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := new(impatient)
		tr := kept(t, 5, i)
		if n := isOpen(tr); n != 5 {
			t.Errorf("%d are open at the start", n)
		}
		time.Sleep(time.Hour)
		if n := tr.Totals(); isOpen(tr) != 5 || n.Dials != 5 || n.Refreshed != 0 {
			t.Errorf("an hour later %d are open: %+v", isOpen(tr), n)
		}
		tr.Rest()
		if n := isOpen(tr); n != 0 {
			t.Errorf("%d are open where there is no way", n)
		}
		time.Sleep(time.Hour)
		if n := tr.Totals(); n.Dials != 5 {
			t.Errorf("where there is no way: %+v", n)
		}
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil {
			t.Errorf("a request: %v", err)
		}
		if n := isOpen(tr); n != 0 {
			t.Errorf("%d are open after a request where there is no way", n)
		}
		tr.Wake()
		if n := tr.Totals(); isOpen(tr) != 5 || n.Dials != 11 || n.Lost != 0 {
			t.Errorf("%d are open once there is a way again: %+v", isOpen(tr), n)
		}
	})
}

// TestKeptThroughOutage: while no connection can be made the pool tries seldom, one
// at a time, and requests do not wait for that.
func TestKeptThroughOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := new(impatient)
		i.refuse.Store(true)
		tr := kept(t, 5, i)
		time.Sleep(10 * time.Minute)
		n := tr.Totals()
		if n.Dials < 20 || n.Dials > 5+5+20 || n.DialFailures != n.Dials {
			t.Errorf("in ten minutes: %+v", n)
		}
		i.refuse.Store(false)
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil {
			t.Error(err)
		}
		time.Sleep(dialEvery)
		if n := isOpen(tr); n != 5 {
			t.Errorf("%d are open after a request had one", n)
		}
	})
}

// TestRefreshed: what the other end closes after a while is learned the first time,
// and the connections are kept from it then; the warmest one is never at risk.
// Once it closes them no more, that is found out.
func TestRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, connections = time.Minute, 5
		i := new(impatient)
		i.limit.Store(int64(limit))
		tr := kept(t, connections, i)
		time.Sleep(limit + time.Second)
		first := tr.Totals()
		if isOpen(tr) != connections || first.Lost == 0 || first.Dials > 2*connections {
			t.Errorf("%d are open after the first: %+v", isOpen(tr), first)
		}
		time.Sleep(scoutEvery / 2)
		n := tr.Totals()
		if turns := int64(scoutEvery / 2 / (limit * 3 / 4)); n.Dials != first.Dials || n.Refreshed < connections*(turns-1) || n.Refreshed > connections*(turns+1) {
			t.Errorf("then: %+v", n)
		}

		p := tr.pool
		p.mu.Lock()
		warm := p.places[2].member
		warm.info = Info{Rate: 1}
		p.mu.Unlock()
		const hours = 3
		time.Sleep(hours * time.Hour)
		p.mu.Lock()
		if warm.state == left || p.ends[warm.to].endure.limit > limit {
			t.Errorf("the warmest one is in state %d; the limit is thought to be %v", warm.state, p.ends[warm.to].endure.limit)
		}
		p.mu.Unlock()
		lost := tr.Totals().Lost - n.Lost
		if most := int64(hours * time.Hour / scoutEvery); lost > most || lost < most/2 || isOpen(tr) != connections {
			t.Errorf("in %d hours %d were lost to find out whether the limit is longer by now", hours, lost)
		}

		i.limit.Store(0)
		time.Sleep(2 * hours * time.Hour)
		n = tr.Totals()
		time.Sleep(hours * time.Hour)
		if then := tr.Totals(); then != n {
			t.Errorf("they are refreshed though none is closed any more: %+v, then %+v", n, then)
		}
	})
}

// TestRefreshedInVain: where the other end closes a connection after the question,
// too, it is not asked for ever.
func TestRefreshedInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := new(impatient)
		i.limit.Store(int64(time.Minute))
		i.bye.Store(true)
		tr := kept(t, 5, i)
		time.Sleep(time.Hour)
		if n := i.heads.Load(); n < 1 || n > 5 || isOpen(tr) != 5 {
			t.Errorf("%d questions, and %d are open", n, isOpen(tr))
		}
	})
}

// TestShortLived: a store that keeps idle connections for a moment only is not
// asked for new ones all the time.
func TestShortLived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := new(impatient)
		i.limit.Store(int64(2 * time.Second))
		tr := kept(t, 5, i)
		time.Sleep(10 * time.Minute)
		n := tr.Totals()
		if most := int64(5 * (10*time.Minute/rarelyEvery + 1)); n.Dials > most || n.Refreshed != 0 {
			t.Errorf("in ten minutes: %+v, want at most %d dials", n, most)
		}
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil {
			t.Error(err)
		}
	})
}

// TestNotBusyWithIt: refreshing leaves most connections to requests.
func TestNotBusyWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := new(impatient)
		i.limit.Store(int64(time.Minute))
		var most int
		tr := kept(t, 8, i)
		time.Sleep(time.Minute + time.Second)
		end := time.Now().Add(5 * time.Minute)
		for time.Now().Before(end) {
			refreshing := 0
			for _, c := range tr.Connections() {
				if c.Busy {
					refreshing++
				}
			}
			most = max(most, refreshing)
			time.Sleep(time.Second)
			begun := time.Now()
			if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil || time.Since(begun) > 0 {
				t.Errorf("a request: %v after %v", err, time.Since(begun))
			}
		}
		if most > 3 || tr.Totals().Refreshed == 0 {
			t.Errorf("%d were refreshed at once: %+v", most, tr.Totals())
		}
	})
}

// TestRetired: connections to an end that has moved are replaced, one at a time,
// each when there is another; a request meets no gap.
func TestRetired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const connections = 5
		i := new(impatient)
		var moved atomic.Int64 // connections made before have an end that has moved
		tr := kept(t, connections, i)
		p := tr.pool
		at := make(map[*member]int64)
		p.mu.Lock()
		p.current = func(m *member) bool {
			if at[m] == 0 {
				at[m] = int64(len(at) + 1)
			}
			return at[m] > moved.Load()
		}
		p.mu.Unlock()
		time.Sleep(10 * time.Minute)
		if n := tr.Totals(); n.Dials != connections {
			t.Errorf("nothing has moved: %+v", n)
		}
		fewest := connections
		moved.Store(connections)
		for range 2 * int(retireEvery/time.Second) {
			time.Sleep(time.Second)
			fewest = min(fewest, isOpen(tr))
		}
		if n := tr.Totals(); n.Dials != 2*connections || n.Lost != 0 || fewest != connections || isOpen(tr) != connections {
			t.Errorf("%+v, and as few as %d were open", n, fewest)
		}
	})
}

// TestRoomIsNotTwice: a connection that is being replaced makes no room for one to
// another host, which comes after its successor.
func TestRoomIsNotTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var moved atomic.Bool
		f := new(far)
		cfg := usual(func(ctx context.Context, network, address string) (net.Conn, error) {
			if moved.Load() {
				time.Sleep(4 * time.Second)
			}
			return f.dial(ctx, network, address)
		})
		cfg.Current = func(string, net.Addr) bool { return !moved.Load() }
		tr := newTransport(t, cfg)
		if _, err := put(tr, t.Context(), "http://here", 100, zeros(100)); err != nil {
			t.Fatal(err)
		}
		moved.Store(true)
		time.Sleep(retireEvery + time.Second) // its successor is being made
		if n := tr.Totals(); n.Dials != 2 {
			t.Fatalf("%+v", n)
		}
		if _, err := put(tr, t.Context(), "http://there", 100, zeros(100)); err != nil {
			t.Error(err)
		}
		moved.Store(false)
		time.Sleep(time.Minute)
		if open, _, all := f.counts(); open != 1 || all != 3 {
			t.Errorf("%d connections of %d are open", open, all)
		}
	})
}

// TestFoundGone: connections that a request finds gone before anybody has said so are
// replaced, though it takes another.
func TestFoundGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := kept(t, 3, new(impatient))
		time.Sleep(time.Minute)
		tr.pool.mu.Lock()
		gone := []*member{tr.pool.places[0].member, tr.pool.places[1].member}
		tr.pool.mu.Unlock()
		for _, m := range gone {
			m.client.SetStateHook(nil)
			m.client.Close()
		}
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil {
			t.Error(err)
		}
		if n := tr.Totals(); isOpen(tr) != 3 || n.Lost != 2 || n.Dials != 5 {
			t.Errorf("%d are open: %+v", isOpen(tr), n)
		}
	})
}

// TestRestAndWake: while the way is gone no connection is made that no request asks
// for; then all at once, whatever failed before.
func TestRestAndWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := new(impatient)
		tr := kept(t, 5, i)
		time.Sleep(time.Minute)
		i.refuse.Store(true)
		tr.Rest()
		if n := isOpen(tr); n != 0 {
			t.Errorf("%d are open", n)
		}
		before := tr.Totals().Dials
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err == nil {
			t.Error("a request got through")
		}
		time.Sleep(10 * time.Minute)
		if n := tr.Totals().Dials - before; n != 1 {
			t.Errorf("%d connections were begun", n)
		}
		tr.pool.mu.Lock()
		r := &tr.pool.ends[host{"http", "store:80"}].retry
		for range 5 { // at the same time, which are one failure
			r.failed(false, time.Now())
		}
		if r.pause > 2*dialEvery {
			t.Errorf("the next is to be after %v", r.pause)
		}
		tr.pool.mu.Unlock()
		i.refuse.Store(false)
		tr.Wake()
		if n := isOpen(tr); n != 5 {
			t.Errorf("%d are open again", n)
		}
		tr.Rest() // a moment later
		tr.Wake()
		if n := isOpen(tr); n != 5 {
			t.Errorf("%d are open at once", n)
		}
	})
}

// TestLastAnswer: a connection that ends with the answer to its request is replaced.
func TestLastAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := new(impatient)
		i.bye.Store(true)
		tr := kept(t, 3, i)
		time.Sleep(time.Minute)
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil {
			t.Error(err)
		}
		if n := tr.Totals(); isOpen(tr) != 3 || n.Dials != 4 {
			t.Errorf("%d are open: %+v", isOpen(tr), n)
		}
	})
}

// TestRefreshedAfterUse: a connection that was busy when it would have been refreshed
// is, in its time.
func TestRefreshedAfterUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := new(impatient)
		i.limit.Store(int64(time.Minute))
		tr := kept(t, 1, i)
		time.Sleep(time.Minute + time.Second) // the first is lost
		i.limit.Store(0)
		slow, body := net.Pipe()
		go func() {
			time.Sleep(2 * time.Minute)
			body.Write(make([]byte, 100))
			body.Close()
		}()
		if _, err := put(tr, t.Context(), "http://store", 100, slow); err != nil {
			t.Fatal(err)
		}
		before := i.heads.Load()
		time.Sleep(time.Minute)
		if i.heads.Load() == before {
			t.Errorf("none was asked: %+v", tr.Totals())
		}
	})
}

// TestNoQuestion: where no question can be made the connection is there all the same.
func TestNoQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := new(impatient)
		cfg := usual(i.dial)
		cfg.Refresh = func(context.Context, *url.URL) (*http.Request, error) { return nil, errRefused }
		tr := newTransport(t, cfg)
		tr.Keep(&url.URL{Scheme: "http", Host: "store"})
		synctest.Wait()
		p := tr.pool
		p.mu.Lock()
		m := p.places[0].member
		p.useLocked(m, time.Now())
		p.mu.Unlock()
		if err := p.ask(t.Context(), m); !errors.Is(err, errRefused) {
			t.Errorf("%v", err)
		}
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil || tr.Totals().Dials != 1 {
			t.Errorf("%v, %+v", err, tr.Totals())
		}
	})
}

// TestOneTooMany: a connection that was made in place of one which is busy by then is
// closed.
func TestOneTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var moved atomic.Bool
		f := &far{answer: func(conn net.Conn, req *http.Request) { time.Sleep(10 * time.Second); agree(conn, req) }}
		cfg := usual(func(ctx context.Context, network, address string) (net.Conn, error) {
			if moved.Load() {
				time.Sleep(4 * time.Second)
			}
			return f.dial(ctx, network, address)
		})
		cfg.Current = func(string, net.Addr) bool { return !moved.Load() }
		tr := newTransport(t, cfg)
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil {
			t.Fatal(err)
		}
		moved.Store(true)
		time.Sleep(retireEvery - 8*time.Second) // its successor is being made
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil {
			t.Error(err)
		}
		moved.Store(false)
		synctest.Wait()
		if open, _, all := f.counts(); open != 1 || all != 2 || len(tr.Connections()) != 1 || tr.Connections()[0].Requests != 2 {
			t.Errorf("%d connections of %d are open: %+v", open, all, tr.Connections())
		}
	})
}

// TestEndurance: what is concluded from how long connections were idle.
func TestEndurance(t *testing.T) {
	now := time.Now()
	e := new(endurance)
	step := func(what string, limit, refresh, pause time.Duration) {
		t.Helper()
		if e.limit != limit || e.refreshAfter(false) != refresh || e.pause(true) != pause {
			t.Errorf("%s: a limit of %v, refreshed after %v, replaced after %v; want %v, %v, %v",
				what, e.limit, e.refreshAfter(false), e.pause(true), limit, refresh, pause)
		}
	}
	step("nothing is known", 0, 0, dialEvery)
	e.survived(time.Hour)
	step("one was idle for long", 0, 0, dialEvery)
	e.lost(time.Minute, now)
	step("one was lost", time.Minute, 45*time.Second, dialEvery)
	if e.refreshAfter(true) != 90*time.Second {
		t.Errorf("the scout is left for %v", e.refreshAfter(true))
	}
	e.survived(30 * time.Second)
	step("one was idle for less", time.Minute, 45*time.Second, dialEvery)
	e.survived(80 * time.Second)
	step("one was idle for longer", 80*time.Second, time.Minute, dialEvery)
	e.lost(40*time.Second, now)
	step("one was lost sooner", 40*time.Second, 30*time.Second, dialEvery)
	e.lost(time.Second, now)
	step("one was lost at once", time.Second, 0, rarelyEvery)
	if e.pause(false) != scoutEvery {
		t.Errorf("what nobody uses is replaced after %v", e.pause(false))
	}
	e.survived(2 * time.Hour)
	step("none is lost", 0, 0, dialEvery)
}
