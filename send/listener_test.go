package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

// TestDrain: after SIGTERM nobody new gets in, who waits gets his answer, and
// the exit status is 0.
func TestDrain(t *testing.T) {
	hold := make(chan struct{})
	daemon := newStandIn(t, "127.0.0.1:0", map[string]http.HandlerFunc{
		"held": func(w http.ResponseWriter, r *http.Request) { <-hold; done(w, r) },
	})
	l := startListener(t, "S3DAEMON_URL="+daemon.URL)
	var waiting []net.Conn
	for range 3 {
		conn := dial(t, l.address)
		say(t, conn, "/f a/bkt/held\n")
		waiting = append(waiting, conn)
		<-daemon.asked
	}
	half := dial(t, l.address)
	say(t, half, "/f a/bkt")

	l.signal(t, syscall.SIGTERM)
	if got, want := hear(t, half), "the s3daemon listener is stopping and takes no more requests"; got != want {
		t.Errorf("half a line: %q", got)
	}
	if conn, err := net.Dial("tcp", l.address); err == nil {
		conn.Close()
		t.Error("connected after SIGTERM")
	}
	close(hold)
	for _, conn := range waiting {
		if got := hear(t, conn); got != "Success" {
			t.Errorf("a client that waited: %q", got)
		}
	}
	if state := l.wait(t); state.ExitCode() != 0 {
		t.Errorf("the listener ended with %v", state)
	}
}

// TestDrainEnds: clients that hang in every way do not keep the listener from
// ending, nor do those that have left, while the daemon answers: a pod whose main
// program was killed has such. What they had asked for is with the daemon.
func TestDrainEnds(t *testing.T) {
	hold := make(chan struct{})
	daemon := newStandIn(t, "127.0.0.1:0", map[string]http.HandlerFunc{
		"held": func(w http.ResponseWriter, r *http.Request) { <-hold; done(w, r) },
	})
	l := startListener(t, "S3DAEMON_URL="+daemon.URL, "S3DAEMON_MAX_CLIENTS=2")
	dial(t, l.address)                         // says nothing
	say(t, dial(t, l.address), "/f a/bkt")     // half a line
	deaf := dial(t, l.address)                 // sends on, and takes no reply
	say(t, deaf, "/deaf a/bkt/held\n", "more") // and never closes
	<-daemon.asked
	left := dial(t, l.address)
	say(t, left, "/left a/bkt/held\n")
	<-daemon.asked
	left.Close()
	reset := dial(t, l.address) // waits for its turn as it goes
	say(t, reset, "/reset a/bkt/held\n")
	reset.SetLinger(0)
	reset.Close()

	l.signal(t, syscall.SIGTERM)
	waitFor(t, "draining to begin", func() bool { return strings.Contains(l.log(), `"msg":"stopping`) })
	close(hold)
	if state := l.wait(t); state.ExitCode() != 0 {
		t.Errorf("the listener ended with %v", state)
	}
}

// TestSecondSignal ends the listener in the middle of its draining.
func TestSecondSignal(t *testing.T) {
	hold := make(chan struct{})
	daemon := newStandIn(t, "127.0.0.1:0", map[string]http.HandlerFunc{
		"held": func(http.ResponseWriter, *http.Request) { <-hold },
	})
	t.Cleanup(func() { close(hold) })
	l := startListener(t, "S3DAEMON_URL="+daemon.URL)
	conn := dial(t, l.address)
	say(t, conn, "/f a/bkt/held\n")
	<-daemon.asked
	l.signal(t, syscall.SIGTERM)
	waitFor(t, "draining to begin", func() bool { return strings.Contains(l.log(), `"msg":"stopping`) })
	waitFor(t, "the listener's port to close", func() bool {
		conn, err := net.Dial("tcp", l.address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	l.signal(t, os.Interrupt)
	if state := l.wait(t); state.Success() {
		t.Errorf("the listener ended with %v", state)
	}
	if reply, _ := io.ReadAll(conn); len(reply) > 0 {
		t.Errorf("a client that was cut off got %q", reply)
	}
}

// TestDaemonRestart takes the daemon away with a push under way, and brings
// another up at its address. The listener stays.
func TestDaemonRestart(t *testing.T) {
	hold := make(chan struct{})
	keys := map[string]http.HandlerFunc{"held": func(http.ResponseWriter, *http.Request) { <-hold }}
	first := newStandIn(t, "127.0.0.1:0", keys)
	l := startListener(t, "S3DAEMON_URL="+first.URL)
	before := l.descriptors(t)

	inFlight := dial(t, l.address)
	say(t, inFlight, "/f a/bkt/held\n")
	<-first.asked
	first.Listener.Close()
	first.CloseClientConnections()
	if got := hear(t, inFlight); !strings.HasPrefix(got, "the daemon at "+first.URL+" went away before it answered") {
		t.Errorf("in flight as the daemon died: %q", got)
	}
	close(hold)
	first.Close()

	during := dial(t, l.address)
	say(t, during, "/during a/bkt/k\n")
	waitFor(t, "the listener to miss the daemon", func() bool { return strings.Contains(l.log(), "the daemon takes no pushes") })
	second := newStandIn(t, first.address(), nil)
	if got := hear(t, during); got != "Success" {
		t.Errorf("during the restart: %q", got)
	}
	after := dial(t, l.address)
	say(t, after, "/after a/bkt/k\n")
	if got := hear(t, after); got != "Success" {
		t.Errorf("after the restart: %q", got)
	}
	if one, other := <-second.asked, <-second.asked; one.File != "/during" || other.File != "/after" {
		t.Errorf("the second daemon was asked for %q and %q", one.File, other.File)
	}
	waitFor(t, "the listener's descriptors to be back", func() bool { return l.descriptors(t) <= before })
}

// TestNotTaken: a daemon that shuts down, has a full queue or a full disk, has
// not taken the push; it is asked again until there is one that does.
func TestNotTaken(t *testing.T) {
	for _, refusal := range []push.Problem{
		{Status: 503, Code: push.ShuttingDown, Detail: "the daemon is shutting down"},
		{Status: 503, Code: push.ShuttingDown, Detail: "the push stays in the journal", ID: "7"},
		{Status: 503, Code: push.JournalUnavailable, Detail: "the disk is full"},
		{Status: 429, Code: push.QueueFull, Detail: "the queue is full"},
	} {
		var asked atomic.Int64
		daemon := newStandIn(t, "127.0.0.1:0", map[string]http.HandlerFunc{
			"later": func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) < 4 {
					w.Header().Set("Retry-After", "5") // which would be too late
					answer(w, refusal.Status, refusal)
					return
				}
				done(w, r)
			},
		})
		l := startListener(t, "S3DAEMON_URL="+daemon.URL)
		conn := dial(t, l.address)
		say(t, conn, "/f a/bkt/later\n")
		if got := hear(t, conn); got != "Success" || asked.Load() != 4 {
			t.Errorf("%s: %q after %d requests", refusal.Detail, got, asked.Load())
		}
	}
}

// TestNoDaemonAtAll ends in an error within the bound, and a daemon that is
// up later is used.
func TestNoDaemonAtAll(t *testing.T) {
	daemon := newStandIn(t, "127.0.0.1:0", nil)
	daemon.Close()
	l := startListener(t, "S3DAEMON_URL="+daemon.URL)
	var clients sync.WaitGroup
	for range 30 { // more than S3DAEMON_MAX_CLIENTS
		conn := dial(t, l.address)
		say(t, conn, "/f a/bkt/k\n")
		clients.Go(func() {
			if got := hear(t, conn); got != "no daemon at "+daemon.URL+": connection refused" {
				t.Errorf("%q", got)
			}
		})
	}
	clients.Wait()
	newStandIn(t, daemon.address(), nil)
	conn := dial(t, l.address)
	say(t, conn, "/f a/bkt/k\n")
	if got := hear(t, conn); got != "Success" {
		t.Errorf("%q", got)
	}
}

// TestMaxClients: the daemon sees no more pushes at once than were allowed,
// while hundreds wait and as many more are only sending.
func TestMaxClients(t *testing.T) {
	var now, most atomic.Int64
	var full sync.Once
	hold := make(chan struct{})
	daemon := newStandIn(t, "127.0.0.1:0", map[string]http.HandlerFunc{
		"k": func(w http.ResponseWriter, r *http.Request) {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			if n == 7 {
				full.Do(func() { close(hold) })
			}
			<-hold
			done(w, r)
		},
	})
	l := startListener(t, "S3DAEMON_URL="+daemon.URL, "S3DAEMON_MAX_CLIENTS=7")
	before := l.descriptors(t)
	const many = 300
	var slow []net.Conn
	for range many {
		conn := dial(t, l.address)
		say(t, conn, "/slow")
		slow = append(slow, conn)
	}
	var clients sync.WaitGroup
	for range many {
		conn := dial(t, l.address)
		say(t, conn, "/f a/bkt/k\n")
		clients.Go(func() {
			if got := hear(t, conn); got != "Success" {
				t.Errorf("%q", got)
			}
		})
	}
	clients.Wait()
	if most.Load() != 7 {
		t.Errorf("%d pushes at once", most.Load())
	}
	for _, conn := range slow {
		conn.Close()
	}
	waitFor(t, "the listener's descriptors to be back", func() bool { return l.descriptors(t) <= before })
}

// TestInterrupted: who interrupts a waiting client is told what that means.
func TestInterrupted(t *testing.T) {
	hold := make(chan struct{})
	daemon := newStandIn(t, "127.0.0.1:0", map[string]http.HandlerFunc{
		"held": func(http.ResponseWriter, *http.Request) { <-hold },
	})
	t.Cleanup(func() { close(hold) })
	l := startListener(t, "S3DAEMON_URL="+daemon.URL)
	_, port, _ := strings.Cut(l.address, ":")
	for _, env := range []string{"S3DAEMON_URL=" + daemon.URL, "S3DAEMON_PORT=" + port} {
		for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			cmd := command(t, []string{env}, "/f", "a/bkt/held")
			got := finish(t, cmd, func() {
				<-daemon.asked
				cmd.Process.Signal(signal)
			})
			if want := (outcome{1, "", "send: interrupted: the push may still be under way\n"}); got != want {
				t.Errorf("%s, %v: %v", env, signal, got)
			}
		}
	}
	l.signal(t, os.Kill) // the pushes it still waits for never end
	l.wait(t)
}

// TestOldServers: the client beside servers of the old protocol that are not
// ours.
func TestOldServers(t *testing.T) {
	tests := []struct {
		name, reply string
		want        outcome
	}{
		{"success", "Success", outcome{}},
		{"success and more", "Successfully stored\n", outcome{}},
		{"an error", "FileNotFoundError(2, 'No such file')", outcome{1, "", "FileNotFoundError(2, 'No such file')\n"}},
		{"not quite", "success", outcome{1, "", "success\n"}},
	}
	for _, test := range tests {
		old, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		requests := make(chan string, 1)
		go func() {
			conn, err := old.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			buf := make([]byte, 4096)
			n, _ := conn.Read(buf)
			requests <- string(buf[:n])
			io.WriteString(conn, test.reply)
		}()
		host, port, _ := net.SplitHostPort(old.Addr().String())
		got := finish(t, command(t, []string{"S3DAEMON_HOST=" + host, "S3DAEMON_PORT=" + port}, "/f", "a/bkt/k"))
		if got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
		if request := <-requests; request != "/f a/bkt/k\n" {
			t.Errorf("%s: it was asked %q", test.name, request)
		}
		old.Close()
	}
	// One that says nothing, and one that is not there.
	old, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := old.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	go func() {
		if conn, err := old.Accept(); err == nil {
			conn.Read(make([]byte, 4096))
			conn.Close()
		}
		old.Close()
	}()
	want := "send: the server at " + address + " closed the connection without an answer, and the push may or may not have reached the store\n"
	if got := finish(t, command(t, []string{"S3DAEMON_PORT=" + port}, "/f", "a/bkt/k")); got != (outcome{1, "", want}) {
		t.Errorf("without a word: %v", got)
	}
	want = "send: no daemon at " + address + ": connection refused (S3DAEMON_URL says where to look)\n"
	if got := finish(t, command(t, []string{"S3DAEMON_PORT=" + port}, "/f", "a/bkt/k")); got != (outcome{1, "", want}) {
		t.Errorf("not there: %v", got)
	}
}

// TestSize: the program is copied to small places.
func TestSize(t *testing.T) {
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() >= 10_000_000 {
		t.Errorf("send has %d bytes, and must stay under 10 MB", info.Size())
	}
}
