package legacy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener is a listener without a network, so that time can be faked:
// nothing below it is outside a test's bubble.
type pipeListener struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// connect is a client's connection, once the server has accepted it.
func (l *pipeListener) connect() net.Conn {
	ours, theirs := net.Pipe()
	l.conns <- theirs
	return ours
}

// bubble runs f in faked time beside a server, whose daemon answers every push
// with push, and drains the server at the end. A goroutine that is left over
// fails the test by itself.
func bubble(t *testing.T, push func() error, f func(t *testing.T, s *server, l *pipeListener, drain func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := newServer(Config{})
		if err != nil {
			t.Fatal(err)
		}
		s.log = slog.New(slog.DiscardHandler)
		s.forward = func(context.Context, string, string, time.Time) error { return push() }
		l := newPipeListener()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.serve(ctx, l) }()
		f(t, s, l, cancel)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := s.senders.len() + len(s.room) + len(s.turns); n != 0 {
			t.Errorf("%d places were not given back", n)
		}
	})
}

func never() error { return errors.New("the daemon must not be asked") }

// read returns all that the server answers.
func read(t *testing.T, conn net.Conn) string {
	t.Helper()
	reply, err := io.ReadAll(conn)
	if err != nil {
		t.Error(err)
	}
	conn.Close()
	return string(reply)
}

// TestSlow: each client that is not done with its line after 30 s is told so,
// whatever it does meanwhile.
func TestSlow(t *testing.T) {
	tests := []struct {
		name  string
		every time.Duration
		what  string
	}{
		{"silent", time.Hour, ""},
		{"a byte a second", time.Second, "x"},
		{"a space just in time", 29 * time.Second, " "},
		{"a lot every millisecond, within the bound", time.Millisecond, "x"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, never, func(t *testing.T, _ *server, l *pipeListener, _ func()) {
				start := time.Now()
				conn := l.connect()
				go func() {
					for {
						<-time.After(test.every)
						if _, err := io.WriteString(conn, test.what); err != nil {
							return
						}
					}
				}()
				reply := read(t, conn)
				if took := time.Since(start); reply != errSlow.Error() || took != lineTime {
					t.Errorf("%q after %v", reply, took)
				}
				<-time.After(2 * time.Hour) // for the client's own goroutine
			})
		})
	}
}

// TestCrowd fills the lobby with clients that send nothing. A good one is
// served within the grace of the oldest, which is the one that has to go.
func TestCrowd(t *testing.T) {
	bubble(t, func() error { return nil }, func(t *testing.T, s *server, l *pipeListener, _ func()) {
		var slow []net.Conn
		start := time.Now()
		for range maxSenders {
			slow = append(slow, l.connect())
		}
		for i := range 3 {
			conn := l.connect()
			if i == 0 {
				synctest.Wait()
				if n := s.senders.len(); n != maxSenders {
					t.Errorf("%d connections are sending", n)
				}
			}
			io.WriteString(conn, "/f a/bkt/k\n")
			if reply := read(t, conn); reply != success {
				t.Errorf("a good client: %q", reply)
			}
		}
		if took := time.Since(start); took != senderGrace {
			t.Errorf("3 good clients took %v", took)
		}
		// The first made room for all three, one after the other.
		if reply := read(t, slow[0]); reply != errSlow.Error() {
			t.Errorf("the oldest: %q", reply)
		}
		if took := time.Since(start); took != senderGrace {
			t.Errorf("the oldest was dropped after %v", took)
		}
		for _, conn := range slow[1:] {
			if reply := read(t, conn); reply != errSlow.Error() {
				t.Errorf("%q", reply)
			}
		}
		if took := time.Since(start); took != lineTime {
			t.Errorf("the last was dropped after %v", took)
		}
	})
}

// TestQuickCrowd: of a crowd of quick clients nobody is dropped, though all
// the lobby's places are taken before the first is read.
func TestQuickCrowd(t *testing.T) {
	bubble(t, func() error { return nil }, func(t *testing.T, s *server, l *pipeListener, _ func()) {
		s.senders.most = 2
		var clients sync.WaitGroup
		for range 100 {
			clients.Go(func() {
				conn := l.connect()
				<-time.After(900 * time.Millisecond)
				io.WriteString(conn, "/f a/bkt/k\n")
				if reply := read(t, conn); reply != success {
					t.Errorf("%q", reply)
				}
			})
		}
		clients.Wait()
	})
}

// TestWaiting: a client whose line is complete has no time-out of ours, not in
// the daemon and not in the queue before it.
func TestWaiting(t *testing.T) {
	const long = 24 * time.Hour
	bubble(t, func() error { <-time.After(long); return nil }, func(t *testing.T, s *server, l *pipeListener, _ func()) {
		start := time.Now()
		var clients sync.WaitGroup
		for range 2*DefaultMaxClients + 1 {
			conn := l.connect()
			io.WriteString(conn, "/f a/bkt/k\n")
			clients.Go(func() {
				if reply := read(t, conn); reply != success {
					t.Errorf("%q", reply)
				}
			})
		}
		clients.Wait()
		if took := time.Since(start); took != 3*long {
			t.Errorf("took %v", took)
		}
	})
}

// TestDrain: a complete line is answered, also one that is only just arriving;
// the others are told.
func TestDrain(t *testing.T) {
	const long = time.Hour
	bubble(t, func() error { <-time.After(long); return nil }, func(t *testing.T, s *server, l *pipeListener, drain func()) {
		cap25 := DefaultMaxClients + 1 // one has to wait for its turn, too
		var clients sync.WaitGroup
		expect := func(conn net.Conn, want string) {
			clients.Go(func() {
				if reply := read(t, conn); reply != want {
					t.Errorf("%q, want %q", reply, want)
				}
			})
		}
		for range cap25 {
			conn := l.connect()
			io.WriteString(conn, "/f a/bkt/k\n")
			expect(conn, success)
		}
		half, silent, arriving := l.connect(), l.connect(), l.connect()
		io.WriteString(half, "/f a/b")
		synctest.Wait()
		start := time.Now()
		drain()
		expect(half, errStopping.Error())
		expect(silent, errStopping.Error())
		<-time.After(lastLook / 2)
		io.WriteString(arriving, "/f a/bkt/k\n")
		expect(arriving, success)
		clients.Wait()
		if took := time.Since(start); took < 2*long || took > 2*long+lastLook {
			t.Errorf("draining took %v", took)
		}
		select {
		case <-l.closed:
		default:
			t.Error("the listener is still open")
		}
	})
}

// TestDrainAtOnce: without a client that waits, draining takes no time to
// speak of, not even with the lobby full.
func TestDrainAtOnce(t *testing.T) {
	bubble(t, never, func(t *testing.T, s *server, l *pipeListener, drain func()) {
		s.senders.most = 1
		first := l.connect()
		second := l.connect() // waits to enter
		synctest.Wait()
		start := time.Now()
		drain()
		var clients sync.WaitGroup
		for _, conn := range []net.Conn{first, second} {
			clients.Go(func() {
				if reply := read(t, conn); reply != errStopping.Error() {
					t.Errorf("%q", reply)
				}
			})
		}
		clients.Wait()
		if took := time.Since(start); took > lastLook {
			t.Errorf("draining took %v", took)
		}
	})
}

// TestNotReading: a client that never takes its reply is given up.
func TestNotReading(t *testing.T) {
	bubble(t, func() error { return nil }, func(t *testing.T, s *server, l *pipeListener, _ func()) {
		conn := l.connect()
		io.WriteString(conn, "/f a/bkt/k\n")
		<-time.After(writeTime + time.Second)
		if got := read(t, conn); strings.HasPrefix(got, success) || len(s.room) != 1 { // which is the next one's
			t.Errorf("%q, %d places taken", got, len(s.room))
		}
	})
}

func (l *lobby) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queue.Len()
}
