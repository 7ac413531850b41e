package uploader

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsst-dm/s3daemon/transport"
)

// way is what an endpoint's connections go through.
type way struct {
	open     atomic.Bool
	attempts atomic.Int32
	takes    time.Duration // for each attempt
	hang     atomic.Bool   // until the context ends
	mute     atomic.Bool   // whoever gets there has his connection closed
	silent   atomic.Bool   // or no answer
}

var errRefused = errors.New("refused")

func (w *way) connect(ctx context.Context, _, _ string) (net.Conn, error) {
	w.attempts.Add(1)
	if w.hang.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	time.Sleep(w.takes)
	if !w.open.Load() {
		return nil, errRefused
	}
	near, far := net.Pipe()
	far.Close()
	return near, nil
}

// ask is a question to a store that answers whoever gets there.
func (w *way) ask(ctx context.Context) error {
	conn, err := w.connect(ctx, "tcp", "store:1")
	if err == nil && w.mute.Load() {
		conn.Close()
		err = io.EOF
	}
	if err == nil && w.silent.Load() {
		time.Sleep(silentFor)
		err = errSilent
	}
	return err
}

// dialAll has many requests ask for a connection at once.
func dialAll(e *endpoint, n int) (failed int) {
	var all sync.WaitGroup
	var bad atomic.Int32
	for range n {
		all.Go(func() {
			conn, err := e.dial(context.Background(), "tcp", "store:1")
			if err != nil {
				bad.Add(1)
				return
			}
			conn.Close()
		})
	}
	all.Wait()
	return int(bad.Load())
}

// TestOneAttemptASecond: whatever number of requests there are, an endpoint
// that is away sees one attempt, and one a second after it.
func TestOneAttemptASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		w := &way{takes: time.Millisecond}
		e := newEndpoint(ctx, w.connect, w.ask)
		changes := make(chan bool, 10)
		e.changed = func() {
			_, _, down := e.down()
			changes <- down
		}
		if failed := dialAll(e, 100); failed != 100 || w.attempts.Load() != 1 {
			t.Errorf("%d of 100 failed after %d attempts, want all after one", failed, w.attempts.Load())
		}
		if _, err := e.dial(ctx, "tcp", "store:1"); !notTried(err) || !errors.Is(err, errRefused) {
			t.Errorf("error %v", err)
		}
		waited := make(chan error, 1)
		go func() { waited <- e.wait(ctx, nil) }()
		time.Sleep(time.Minute)
		dialAll(e, 100)
		if n := w.attempts.Load(); n < 59 || n > 61 {
			t.Errorf("%d attempts within a minute", n)
		}
		w.open.Store(true)
		if err := <-waited; err != nil {
			t.Error(err)
		}
		time.Sleep(trustedFor)
		before := w.attempts.Load()
		if failed := dialAll(e, 100); failed != 0 || w.attempts.Load() != before+100 {
			t.Errorf("%d failed, %d attempts once it is back", failed, w.attempts.Load()-before)
		}
		if len(changes) != 2 || !<-changes || <-changes {
			t.Error("what is told is not that it is down, and that it is back")
		}
		stop()
		e.asking.Wait()
	})
}

// TestQuestionsOfManyDaemons: daemons that lose the store at the same moment do not ask
// it at the same moment of each second.
func TestQuestionsOfManyDaemons(t *testing.T) {
	for _, suspected := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			const daemons = 100
			var tenths [10]atomic.Int32 // questions in each tenth of a second, of all
			begun := time.Now()
			var all []*endpoint
			for range daemons {
				w := new(way)
				e := newEndpoint(ctx, w.connect, func(context.Context) error {
					if at := time.Since(begun); at >= time.Second {
						tenths[at%time.Second*10/time.Second].Add(1)
					}
					return errRefused
				})
				all = append(all, e)
				if suspected {
					e.suspect(io.EOF)
				} else {
					dialAll(e, 1)
				}
			}
			const seconds = 10
			time.Sleep((1 + seconds) * time.Second)
			stop()
			for i := range tenths {
				// A tenth of the daemons has its moment there: three tenths are six standard deviations more.
				if n := tenths[i].Load(); n > 3*daemons*seconds/10 {
					t.Errorf("%d of %d questions come in one tenth of the seconds", n, daemons*seconds)
				}
			}
			for _, e := range all {
				e.asking.Wait()
			}
		})
	}
}

// TestWhatIsSuspicious: a connection that broke or stood still in use has the
// store asked; one that had been idle, or an answer, has not.
func TestWhatIsSuspicious(t *testing.T) {
	for _, tc := range []struct {
		err  error
		asks bool
	}{
		{&transport.BrokenError{Err: io.EOF}, true},
		{&transport.BrokenError{Err: io.EOF, Reused: true}, true},
		{&transport.BrokenError{Err: io.EOF, Reused: true, Idle: true}, false},
		{&transport.StallError{At: transport.Sending}, true},
		{&transport.StallError{At: transport.Connecting}, true},
		{&transport.StallError{At: transport.Awaiting}, false},
		{&transport.StallError{At: transport.Reading}, false},
		{refusal(503, "SlowDown"), false},
		{&downError{cause: errRefused}, false},
	} {
		ctx, stop := context.WithCancel(t.Context())
		w := new(way)
		w.hang.Store(true)
		u := &Uploader{endpoint: newEndpoint(ctx, w.connect, w.ask)}
		u.lostConnection(tc.err)
		u.endpoint.mu.Lock()
		asks := u.endpoint.outage != nil
		u.endpoint.mu.Unlock()
		if asks != tc.asks {
			t.Errorf("%#v: asks %v, want %v", tc.err, asks, tc.asks)
		}
		stop()
		u.endpoint.asking.Wait()
	}
}

// TestLostQuestion: a question whose answer never comes does not keep the next
// one from being asked.
func TestLostQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		w := new(way)
		w.open.Store(true)
		w.hang.Store(true)
		e := newEndpoint(ctx, w.connect, w.ask)
		e.suspect(io.EOF)
		synctest.Wait()
		w.hang.Store(false)
		begun := time.Now()
		if err := e.wait(ctx, nil); err != nil || time.Since(begun) > probeInterval {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		stop()
		e.asking.Wait()
	})
}

// TestQuestionsSideBySide: however small the pool is, a question does not wait
// for the answer to the one before.
func TestQuestionsSideBySide(t *testing.T) {
	var open atomic.Int32
	all := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		if open.Add(1) == mostQuestions {
			close(all)
		}
		select {
		case <-all:
		case <-req.Context().Done():
			open.Add(-1)
		}
	}))
	t.Cleanup(s.Close)
	r := newRig(t, func(c *Config) { c.MaxConnections, c.Endpoint = 1, s.URL })
	var asking sync.WaitGroup
	for range mostQuestions {
		asking.Go(func() {
			if err := r.askStore(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
}

// TestSuspect: a connection that breaks in use has the store asked, at once. If
// it answers nobody has noticed; else it is down, though connections can be
// made.
func TestSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		w := &way{takes: time.Millisecond}
		w.open.Store(true)
		e := newEndpoint(ctx, w.connect, w.ask)
		var changes atomic.Int32
		e.changed = func() { changes.Add(1) }
		dialAll(e, 10)
		before := w.attempts.Load()
		begun := time.Now()
		for range 25 { // all connections broke
			e.suspect(io.EOF)
		}
		if err := e.wait(ctx, nil); err != nil || time.Since(begun) != time.Millisecond || w.attempts.Load() != before+1 || changes.Load() != 0 {
			t.Errorf("%v after %v, %d questions, %d changes", err, time.Since(begun), w.attempts.Load()-before, changes.Load())
		}
		w.mute.Store(true)
		before = w.attempts.Load()
		e.suspect(&unclearError{err: io.EOF})
		if failed := dialAll(e, 25); failed != 25 {
			t.Errorf("%d of 25 dials failed while the store is suspected", failed)
		}
		// That is no attempt of theirs, nor are they what the broken one was.
		var open *unclearError
		if _, err := e.dial(ctx, "tcp", "store:1"); !notTried(err) || !knownDown(err) || errors.As(err, &open) {
			t.Errorf("a dial while the store is suspected: %v", err)
		}
		time.Sleep(time.Minute)
		if _, cause, down := e.down(); !down || cause != io.EOF || changes.Load() != 1 {
			t.Errorf("down: %v, %v, %d changes", down, cause, changes.Load())
		}
		if n := w.attempts.Load() - before; n < 59 || n > 61 {
			t.Errorf("%d attempts within a minute", n)
		}
		w.mute.Store(false)
		if err := e.wait(ctx, nil); err != nil || changes.Load() != 2 {
			t.Errorf("%v, %d changes", err, changes.Load())
		}
		stop()
		e.asking.Wait()
	})
}

// TestSilentStore: a store that takes a question and says nothing can be reached,
// and is not asked for each connection that breaks; but it is again later, and
// whoever finds no way to it tells so at any time.
func TestSilentStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		w := new(way)
		w.open.Store(true)
		w.silent.Store(true)
		e := newEndpoint(ctx, w.connect, w.ask)
		var changes atomic.Int32
		e.changed = func() { changes.Add(1) }
		held := func() time.Duration {
			begun := time.Now()
			if err := e.wait(ctx, nil); err != nil {
				t.Error(err)
			}
			return time.Since(begun)
		}
		e.suspect(io.EOF)
		if took := held(); took != silentFor || changes.Load() != 0 {
			t.Errorf("everything is held up for %v, %d changes", took, changes.Load())
		}
		e.suspect(io.EOF)
		if took := held(); took != 0 {
			t.Errorf("everything is held up for %v once more", took)
		}
		w.open.Store(false)
		dialAll(e, 5)
		if _, _, down := e.down(); !down {
			t.Error("it cannot be reached, and nobody knows")
		}
		w.open.Store(true)
		if took := held(); took > probeInterval+silentFor {
			t.Errorf("it is back, and nobody knows for %v", took)
		}
		time.Sleep(leftAlone)
		w.mute.Store(true)
		e.suspect(io.EOF)
		synctest.Wait()
		if _, _, down := e.down(); !down {
			t.Error("a connection that broke does not have it asked any more")
		}
		stop()
		e.asking.Wait()
	})
}

// TestQuestionIsTaken: a question that a store reads and does not answer shows
// that it is there; one that it hangs up on does not.
func TestQuestionIsTaken(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodHead && strings.HasPrefix(req.URL.Path, "/taken") {
			<-req.Context().Done()
		}
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(s.Close)
	for path, silent := range map[string]bool{"/taken": true, "/broken": false} {
		r := newRig(t, func(c *Config) { c.Endpoint = s.URL + path })
		if err := r.askStore(t.Context()); err == nil || errors.Is(err, errSilent) != silent {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestNoConnectionToBeHad: what takes connections and lets none come about is no
// way to the store. It is away until a question is answered.
func TestNoConnectionToBeHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		w := new(way)
		u := &Uploader{endpoint: newEndpoint(ctx, w.connect, w.ask)}
		stalled := &transport.StallError{At: transport.Connecting, What: "m"}
		u.lostConnection(stalled)
		if _, cause, down := u.endpoint.down(); !down || cause != stalled || !notTried(stalled) || knownDown(stalled) {
			t.Errorf("down %v, %v", down, cause)
		}
		time.Sleep(10 * time.Second)
		w.open.Store(true)
		if err := u.endpoint.wait(ctx, nil); err != nil || w.attempts.Load() > 11 {
			t.Errorf("%v after %d questions", err, w.attempts.Load())
		}
		stop()
		u.endpoint.asking.Wait()
	})
}

// TestWhoGivesUpSaysNothing: a request that is cancelled while it connects is
// no sign that the store is away; another one leads then.
func TestWhoGivesUpSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &way{}
		w.open.Store(true)
		w.hang.Store(true)
		e := newEndpoint(t.Context(), w.connect, w.ask)
		ctx, cancel := context.WithCancel(t.Context())
		gone, second := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := e.dial(ctx, "tcp", "store:1")
			gone <- err
		}()
		synctest.Wait()
		go func() {
			_, err := e.dial(t.Context(), "tcp", "store:1")
			second <- err
		}()
		synctest.Wait()
		w.hang.Store(false)
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) || notTried(err) {
			t.Errorf("the one who gave up: %v", err)
		}
		if err := <-second; err != nil {
			t.Errorf("the other one: %v", err)
		}
		if _, _, down := e.down(); down {
			t.Error("the endpoint counts as down")
		}
		waiting, leave := context.WithCancelCause(t.Context())
		e.outage = &outage{over: make(chan struct{})}
		leave(errImpatient)
		if err := e.wait(waiting, nil); !errors.Is(err, errImpatient) {
			t.Errorf("wait: %v", err)
		}
	})
}

func TestRateTellsWhenThereIsRoom(t *testing.T) {
	var r rate
	now := time.Unix(1_000_000, 0)
	if got := r.untilRoom(now, 1000); got != mostRetryAfter {
		t.Errorf("with nothing delivered: %v", got)
	}
	for s := range 20 {
		for range 5 {
			r.ended(now.Add(time.Duration(s) * time.Second))
		}
	}
	now = now.Add(19 * time.Second)
	if got := r.untilRoom(now, 1000); got != 2*time.Second { // 10 at 5 a second
		t.Errorf("at 5 a second there is room for 10 of 1000 after %v", got)
	}
	if got := r.untilRoom(now, 1); got != leastRetryAfter {
		t.Errorf("at least %v", got)
	}
	if got := r.untilRoom(now.Add(5*time.Second), 1000); got != 4*time.Second {
		t.Errorf("after 5 s without: %v", got)
	}
	if got := r.untilRoom(now.Add(time.Hour), 1000); got != mostRetryAfter {
		t.Errorf("after an hour: %v", got)
	}
}
