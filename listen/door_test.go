package listen

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// site is a server behind a door. Its handler serves a request to /hold until
// the test lets it go, any other at once.
type site struct {
	door           *Door
	addr           string
	held           chan struct{} // gets one for each request that is held
	free           chan struct{} // closed to let them go
	once           func()
	open           func()
	heads, answers atomic.Int64 // that were read, and written
}

func newSite(t *testing.T, limits Limits, network, addr string) *site {
	t.Helper()
	s := closedSite(t, limits, network, addr)
	s.open()
	return s
}

// closedSite is a site that takes nobody in until it is opened: callers can
// connect, and send, as far as the kernel lets them.
func closedSite(t *testing.T, limits Limits, network, addr string) *site {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{door: NewDoor(limits, prometheus.NewRegistry()), addr: l.Addr().String(), held: make(chan struct{}, 1000), free: make(chan struct{})}
	s.once = sync.OnceFunc(func() { close(s.free) })
	server := &http.Server{ConnContext: s.door.ConnContext, Handler: s, ConnState: func(c net.Conn, state http.ConnState) {
		s.door.ConnState(c, state)
		switch state {
		case http.StateActive:
			s.heads.Add(1)
		case http.StateIdle:
			s.answers.Add(1)
		}
	}}
	var serving sync.WaitGroup
	s.open = func() {
		serving.Go(func() { server.Serve(s.door.Guard(l)) })
	}
	t.Cleanup(func() {
		s.once()
		server.Close()
		l.Close()
		serving.Wait()
		await(t, "all to have left", func() bool { return s.count() == [2]int{} })
	})
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, err := io.ReadAll(r.Body); err != nil {
		return
	}
	if !s.door.Admit(r.Context()) {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if r.URL.Path == "/hold" {
		s.held <- struct{}{}
		<-s.free
	}
	if n, err := strconv.Atoi(r.URL.RawQuery); err == nil {
		w.Write(make([]byte, n))
		return
	}
	fmt.Fprint(w, r.URL.Path)
}

// count returns how many connections are served, and how many wait.
func (s *site) count() [2]int {
	serving, waiting := s.door.counts()
	return [2]int{serving, waiting}
}

// caller is a connection to a site.
type caller struct {
	net.Conn
	answers *bufio.Reader
}

func (s *site) call(t *testing.T, network string) *caller {
	t.Helper()
	c, err := net.Dial(network, s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute)) // only ends a test that would hang
	return &caller{c, bufio.NewReader(c)}
}

func (c *caller) send(text string) { io.WriteString(c, text) }

func (c *caller) ask(path string) { c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n") }

// answer returns the status and the body of the next answer.
func (c *caller) answer(t *testing.T) (int, string) {
	t.Helper()
	resp, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// closed waits until the other end has closed the connection.
func (c *caller) closed(t *testing.T) {
	t.Helper()
	_, err := c.answers.ReadByte()
	if err == nil || os.IsTimeout(err) {
		t.Fatalf("the connection is open: %v", err)
	}
}

func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s", what)
		}
	}
}

// TestTooManyCallers has as many requests under way as may be, then more.
func TestTooManyCallers(t *testing.T) {
	for network, addr := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "socket")} {
		t.Run(network, func(t *testing.T) {
			s := newSite(t, Limits{Callers: 3, Spare: 10}, network, addr)
			var served []*caller
			for range 3 {
				c := s.call(t, network)
				c.ask("/hold")
				<-s.held
				served = append(served, c)
			}
			for range 3 {
				c := s.call(t, network)
				c.ask("/more")
				if status, _ := c.answer(t); status != 503 {
					t.Errorf("one too many is answered %d", status)
				}
			}
			if n := s.count(); n[0] != 3 {
				t.Errorf("%d are served, want 3", n[0])
			}
			s.once()
			for _, c := range served {
				if status, body := c.answer(t); status != 200 || body != "/hold" {
					t.Errorf("%d %s", status, body)
				}
			}
			// Each connection is good for another request, and none counts as served.
			await(t, "the callers to wait", func() bool { return s.count()[0] == 0 })
			for _, c := range served {
				c.ask("/again")
				if status, body := c.answer(t); status != 200 || body != "/again" {
					t.Errorf("%d %s", status, body)
				}
			}
		})
	}
}

// settled waits until as many are served and wait as that, and the daemon has
// looked at all that was sent.
func (s *site) settled(t *testing.T, serving, waiting int) {
	t.Helper()
	await(t, fmt.Sprintf("%d to be served and %d to wait", serving, waiting), func() bool {
		d := s.door
		d.mu.Lock()
		defer d.mu.Unlock()
		for e := d.waiting.Front(); e != nil; e = e.Next() {
			if !e.Value.(*conn).waits() {
				return false
			}
		}
		return d.serving.Len() == serving && d.waiting.Len() == waiting
	})
}

// TestLongestWaitingLeaves fills the door with callers who wait for different
// things, and has more come: they make room in the order in which they began to
// wait, and those who are served stay.
func TestLongestWaitingLeaves(t *testing.T) {
	s := newSite(t, Limits{Callers: 2, Spare: 4}, "tcp", "127.0.0.1:0")
	served := []*caller{s.call(t, "tcp"), s.call(t, "tcp")}
	for _, c := range served {
		c.ask("/hold")
		<-s.held
	}
	again := s.call(t, "tcp") // comes first and waits anew at the end
	s.settled(t, 2, 1)
	silent := s.call(t, "tcp")
	s.settled(t, 2, 2)
	slowBody := s.call(t, "tcp") // waits anew from its head on
	s.settled(t, 2, 3)
	slowHead := s.call(t, "tcp")
	s.settled(t, 2, 4)
	slowBody.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
	await(t, "the head to be read", func() bool { return s.heads.Load() == 3 })
	again.ask("/")
	if status, _ := again.answer(t); status != 503 {
		t.Errorf("one too many is answered %d", status)
	}
	await(t, "the answer to be over", func() bool { return s.answers.Load() == 1 })
	slowHead.send("GET /") // which makes nothing of his waiting
	s.settled(t, 2, 4)

	var newcomers []*caller
	for i, c := range []*caller{silent, slowHead, slowBody, again} {
		newcomers = append(newcomers, s.call(t, "tcp"))
		c.closed(t)
		s.settled(t, 2, 4)
		if n := testutil.ToFloat64(s.door.metrics.crowded); n != float64(i+1) {
			t.Errorf("%v have made room for %d newcomers", n, i+1)
		}
	}
	for _, c := range newcomers {
		c.ask("/")
		if status, _ := c.answer(t); status != 503 {
			t.Errorf("a newcomer is answered %d, beside two who are served", status)
		}
	}
	s.once()
	for _, c := range served {
		if status, _ := c.answer(t); status != 200 {
			t.Errorf("one who was served is answered %d", status)
		}
	}
}

// TestNobodyLateLeaves has one place, and a caller in it who has sent what the
// daemon has not looked at: the newcomer waits, until that is done.
func TestNobodyLateLeaves(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	door := NewDoor(Limits{Spare: 1}, nil)
	taken := make(chan struct{}, 10)
	guarded := door.Guard(telling{l, taken})
	s := &site{addr: l.Addr().String()}
	first := s.call(t, "tcp")
	late, err := guarded.Accept()
	if err != nil {
		t.Fatal(err)
	}
	late.(*conn).since = time.Time{} // it is none that has hardly begun to wait
	s.call(t, "tcp")
	next := make(chan net.Conn)
	go func() {
		c, err := guarded.Accept()
		if err != nil {
			t.Error(err)
		}
		next <- c
	}()
	text := []byte("hello")
	stays := func(why string) {
		t.Helper()
		for range 20 { // looks, of a newcomer who looks every millisecond
			select {
			case <-next:
				t.Fatalf("%s was closed for another", why)
			case <-time.After(lookAgain):
			}
		}
	}
	stays("a connection that nobody has looked at")
	first.Write(text)
	if _, err := io.ReadFull(late, text); err != nil {
		t.Fatal(err)
	}
	stays("a connection whose request is looked at")
	go late.Read(text) // nothing comes any more
	c := <-next
	first.closed(t)
	if err := late.Close(); err != nil {
		t.Log("closed twice:", err)
	}
	if serving, waiting := door.counts(); serving != 0 || waiting != 1 {
		t.Errorf("%d are served and %d wait, want one who waits", serving, waiting)
	}

	// Nor does the newcomer keep the listener from being closed.
	outside := s.call(t, "tcp")
	ended := make(chan error)
	go func() {
		_, err := guarded.Accept()
		ended <- err
	}()
	for range 3 {
		<-taken
	}
	guarded.Close()
	if err := <-ended; err == nil {
		t.Error("a newcomer came in through a closed door")
	}
	outside.closed(t)
	c.Close()
}

// TestRush has more come than there is room for, before anybody may be closed:
// they find room for a moment, and make it for others once they have waited.
func TestRush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDoor(Limits{Callers: 1, Spare: 1, Rush: 2}, nil)
		enter := func() bool {
			ours, theirs := net.Pipe()
			t.Cleanup(func() { ours.Close(); theirs.Close() })
			c := &conn{Conn: ours, door: d}
			c.reading.Store(true)
			return d.enter(c)
		}
		for range 4 {
			if !enter() {
				t.Error("there is no room in a rush")
			}
		}
		if enter() {
			t.Error("there is room for any number")
		}
		time.Sleep(leastWait)
		for _, want := range []int{3, 2, 2} {
			time.Sleep(leastWait)
			if !enter() {
				t.Error("nobody makes room for a newcomer")
			}
			if _, waiting := d.counts(); waiting != want {
				t.Errorf("%d wait, want %d", waiting, want)
			}
		}
	})
}

// TestAnswersThatLie has all places taken by callers who do not take their
// answers: once they have had a second for it, others are served instead, and
// who takes his has all of it.
func TestAnswersThatLie(t *testing.T) {
	const huge = 16 << 20 // more than lies between the two
	s := newSite(t, Limits{Callers: 2, Spare: 10}, "tcp", "127.0.0.1:0")
	for range 2 {
		lazy := s.call(t, "tcp")
		lazy.ask(fmt.Sprintf("/huge?%d", huge))
	}
	await(t, "two answers to lie", func() bool { return s.lying(2) })
	for range 3 {
		c := s.call(t, "tcp")
		c.ask(fmt.Sprintf("/huge?%d", huge))
		if status, body := c.answer(t); status != 200 || len(body) != huge {
			t.Errorf("an honest caller is answered %d, %d bytes", status, len(body))
		}
		await(t, "him to have left, and one who is lazy to be there", func() bool { return s.count()[0] == 1 })
	}
	if n := testutil.ToFloat64(s.door.metrics.notTaken); n != 1 {
		t.Errorf("%v were given up, want the one whose place was wanted", n)
	}
}

// lying reports whether so many answers have waited to be taken as long as they
// may.
func (s *site) lying(n int) bool {
	d := s.door
	d.mu.Lock()
	defer d.mu.Unlock()
	for e := d.serving.Front(); e != nil; e = e.Next() {
		if e.Value.(*conn).lying() >= leastLie {
			n--
		}
	}
	return n == 0
}

// telling tells when it has a connection.
type telling struct {
	net.Listener
	taken chan<- struct{}
}

func (l telling) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	l.taken <- struct{}{}
	return c, err
}

// TestHardlyWaiting: who has just come is not closed for the next.
func TestHardlyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		door := NewDoor(Limits{Spare: 1}, nil)
		ours, theirs := net.Pipe()
		defer theirs.Close()
		first, second := &conn{Conn: ours, door: door}, &conn{door: door}
		door.enter(first)
		go first.Read(make([]byte, 1))
		time.Sleep(leastWait - time.Millisecond)
		synctest.Wait()
		if door.enter(second) {
			t.Error("he had less than the time that he has in any case")
		}
		time.Sleep(time.Millisecond)
		if !door.enter(second) {
			t.Error("he keeps others out")
		}
	})
}

// TestWhoIsPassedOver: behind one of whom the daemon has yet to look at what he
// sent, the next makes room.
func TestWhoIsPassedOver(t *testing.T) {
	door := NewDoor(Limits{Spare: 2}, nil)
	first, second := &conn{door: door}, &conn{door: door}
	for _, c := range []*conn{first, second} {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		c.Conn = ours
		door.enter(c)
		c.since = time.Time{}
	}
	second.reading.Store(true)
	if !door.enter(&conn{door: door}) || first.place == nil || second.place != nil {
		t.Errorf("the first left: %v; the second: %v", first.place == nil, second.place == nil)
	}
}

// TestWhoWaits: the daemon waits for a caller while it reads and nothing of his
// is there, while his answer lies, and once that is over.
func TestWhoWaits(t *testing.T) {
	s := &site{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s.addr = l.Addr().String()
	pair := func() (*conn, *caller) {
		theirs := s.call(t, "tcp")
		ours, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ours.Close() })
		return &conn{Conn: ours, door: NewDoor(Limits{Spare: 1}, nil)}, theirs
	}
	want := func(c *conn, waits bool, when string) {
		t.Helper()
		if c.waits() != waits {
			t.Errorf("%s: the daemon waits for him: %v", when, !waits)
		}
	}

	for _, tt := range []struct {
		what string
		do   func(*caller)
	}{
		{"what he sent has come", func(c *caller) { c.send("x") }},
		{"he has hung up", func(c *caller) { c.Close() }},
	} {
		c, theirs := pair()
		want(c, false, "nobody has looked at him yet")
		c.reading.Store(true) // and Read is late
		want(c, true, "nothing has come")
		tt.do(theirs)
		await(t, tt.what, c.arrived)
		want(c, false, tt.what)
	}

	c, theirs := pair()
	const huge = 64 << 20 // more than lies between the two
	written := make(chan error)
	go func() {
		_, err := c.Write(make([]byte, huge))
		written <- err
	}()
	await(t, "the answer to lie", func() bool { return c.lying() > 0 })
	want(c, true, "his answer lies")
	go io.CopyN(io.Discard, theirs, huge)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	want(c, false, "he took it")
	c.CloseWrite()
	want(c, true, "nothing more is said to him")
}

// TestAdmitWhoLeft: a request is not served whose connection was closed for
// another just then.
func TestAdmitWhoLeft(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	door := NewDoor(Limits{Callers: 1, Spare: 1}, nil)
	c := &conn{Conn: ours, door: door}
	door.enter(c)
	c.Close()
	if door.Admit(door.ConnContext(t.Context(), c)) {
		t.Error("admitted")
	}
	if serving, waiting := door.counts(); serving != 0 || waiting != 0 {
		t.Errorf("%d are served and %d wait, want nobody", serving, waiting)
	}
}

// TestNoDoor admits what came another way.
func TestNoDoor(t *testing.T) {
	if !NewDoor(Limits{Spare: 1}, nil).Admit(t.Context()) {
		t.Error("not admitted")
	}
}

// TestAnswerNotTaken gives up a caller who takes nothing of his answer, and not
// one who is slow.
func TestAnswerNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		c := &conn{Conn: ours, door: NewDoor(Limits{Spare: 1}, nil)}
		defer ours.Close()
		answer := make([]byte, 3*answerPiece)
		go func() {
			for range 3 { // slow, but for ever so long
				time.Sleep(answerTimeout - time.Second)
				io.ReadFull(theirs, make([]byte, answerPiece))
			}
		}()
		if n, err := c.Write(answer); err != nil || n != len(answer) {
			t.Errorf("a slow caller got %d bytes, %v", n, err)
		}
		begun := time.Now()
		go io.ReadFull(theirs, make([]byte, answerPiece+1))
		n, err := c.Write(answer)
		if took := time.Since(begun); !os.IsTimeout(err) || n != answerPiece+1 || took != answerTimeout {
			t.Errorf("one who stopped got %d bytes, %v, after %v", n, err, took)
		}
		if n := testutil.ToFloat64(c.door.metrics.notTaken); n != 1 {
			t.Errorf("%v were given up", n)
		}
	})
}

// TestCrowdAtTheDoor has many more callers than there is room for, who have all
// sent their requests when the daemon takes the first: each gets an answer, and
// the counts come back.
func TestCrowdAtTheDoor(t *testing.T) {
	s := closedSite(t, Limits{Callers: 5, Spare: 5}, "tcp", "127.0.0.1:0")
	var callers []*caller
	for range 100 {
		c := s.call(t, "tcp")
		c.send("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
		callers = append(callers, c)
	}
	s.open()
	for _, c := range callers {
		if status, _ := c.answer(t); status != 200 && status != 503 {
			t.Errorf("an answer is %d", status)
		}
	}
	await(t, "all to have left", func() bool { return s.count() == [2]int{} })
}

// TestYield: a request that waits for something else than its caller leaves for
// another, once it has waited for long, and hears of it; one that goes on does
// not.
func TestYield(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDoor(Limits{Callers: 1, Spare: 1}, nil)
		var conns []*conn
		var contexts []context.Context
		var ends []context.CancelFunc
		for range 2 {
			ours, theirs := net.Pipe()
			defer theirs.Close()
			c := &conn{Conn: ours, door: d}
			if !d.enter(c) {
				t.Fatal("there is no room")
			}
			ctx, end := Yield(d.ConnContext(t.Context(), c))
			defer end()
			conns, contexts, ends = append(conns, c), append(contexts, ctx), append(ends, end)
		}
		newcomer, far := net.Pipe()
		defer far.Close()
		if d.enter(&conn{Conn: newcomer, door: d}) {
			t.Error("one leaves who has hardly waited")
		}
		time.Sleep(leastWait)
		ends[0]()
		if !d.enter(&conn{Conn: newcomer, door: d}) || conns[0].place == nil || conns[1].place != nil {
			t.Error("it is not the one that waits who leaves")
		}
		if contexts[1].Err() == nil {
			t.Error("he who left does not hear of it")
		}
	})
}

// TestLittleIsKept: of a long answer that is not read the kernel has no more than
// a little for its caller.
func TestLittleIsKept(t *testing.T) {
	for network, addr := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		guarded := NewDoor(Limits{Callers: 1, Spare: 1}, nil).Guard(l)
		defer guarded.Close()
		theirs, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		ours, err := guarded.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		raw, err := ours.(*conn).Conn.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			if n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF); err != nil || n > 2*sendBuffer { // Linux doubles it for itself
				t.Errorf("%s: %d bytes, %v", network, n, err)
			}
		})
	}
}

// TestDesks: no more requests are looked at at once than there are desks; each
// makes room once it is served, is answered, has to send more, or ends.
func TestDesks(t *testing.T) {
	for name, leave := range map[string]func(c *conn){
		"served": func(c *conn) { c.door.Admit(c.door.ConnContext(t.Context(), c)) },
		"to wait": func(c *conn) {
			_, end := Yield(c.door.ConnContext(context.Background(), c))
			end()
		},
		"answered":     func(c *conn) { c.Write([]byte("an answer")) },
		"to send more": func(c *conn) { c.Read(make([]byte, 100)) },
		"over":         func(c *conn) { c.CloseWrite() },
		"gone":         func(c *conn) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer theirs.Close()
				c := &conn{Conn: ours, door: NewDoor(Limits{Callers: 1, Spare: 1}, nil)}
				for range desks {
					c.door.desks <- struct{}{}
				}
				c.door.enter(c)
				go io.WriteString(theirs, "GET / HTTP/1.1")
				read := make(chan string)
				go func() {
					p := make([]byte, 100)
					n, _ := c.Read(p)
					read <- string(p[:n])
				}()
				synctest.Wait()
				select {
				case <-read:
					t.Error("it is looked at though all desks are taken")
				default:
				}
				served, caller := net.Pipe()
				go caller.Write([]byte("x"))
				look := &conn{Conn: served, door: c.door} // whether he hangs up, which takes no desk
				if n, err := look.Read(make([]byte, 1)); n != 1 || err != nil {
					t.Errorf("a look for a hang-up: %d bytes, %v", n, err)
				}
				<-c.door.desks
				if text := <-read; text != "GET / HTTP/1.1" {
					t.Errorf("what came is %q", text)
				}
				go leave(c)
				synctest.Wait()
				if n := len(c.door.desks); n != desks-1 {
					t.Errorf("%d desks are taken, want those of others, %d", n, desks-1)
				}
			})
		})
	}
}
