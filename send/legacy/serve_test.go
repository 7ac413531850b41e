package legacy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// standIn answers POST /push in the daemon's place.
type standIn struct {
	*httptest.Server
	now, most, all atomic.Int64
	pushes         chan push.Request // what was asked, as far as somebody reads it
	hold           chan struct{}     // pushes end when it is closed; nil: at once
}

func newStandIn(t *testing.T, hold chan struct{}) *standIn {
	d := &standIn{pushes: make(chan push.Request, 5000), hold: hold}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := d.now.Add(1)
		defer d.now.Add(-1)
		for most := d.most.Load(); now > most && !d.most.CompareAndSwap(most, now); most = d.most.Load() {
		}
		d.all.Add(1)
		if err := r.ParseForm(); err != nil || r.Method != "POST" || r.URL.Path != "/push" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		d.pushes <- push.Request{File: r.PostForm.Get("file"), Destination: r.PostForm.Get("destination")}
		if d.hold != nil {
			<-d.hold
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"state":"done"}`)
	}))
	t.Cleanup(d.Close)
	return d
}

// start serves until the test ends, and then checks that nothing is left.
func start(t *testing.T, cfg Config) (address string, drain func(), ended chan error) {
	t.Helper()
	goroutines, descriptors := runtime.NumGoroutine(), countDescriptors(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended = make(chan error, 1)
	go func() { ended <- Serve(ctx, listener, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ended <- nil
		// The stand-in's own may take a moment.
		waitFor(t, "goroutines and descriptors to be back", func() bool {
			return runtime.NumGoroutine() <= goroutines && countDescriptors(t) <= descriptors
		})
	})
	return listener.Addr().String(), cancel, ended
}

func countDescriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc to count descriptors in")
	}
	return len(entries)
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline:
			t.Fatal("waited in vain for " + what)
		case <-tick.C:
		}
	}
}

func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

func exchange(t *testing.T, address, request string) string {
	t.Helper()
	conn := dial(t, address)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Error(err)
	}
	return read(t, conn)
}

// TestPushes checks what reaches the daemon for what was sent.
func TestPushes(t *testing.T) {
	daemon := newStandIn(t, nil)
	address, _, _ := start(t, Config{URL: daemon.URL})
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ request, file, destination string }{
		{"/data/a.fits raw/bkt/key\n", "/data/a.fits", "raw/bkt/key"},
		{"/data/a.fits s3://bkt/a/b/c\r\n", "/data/a.fits", "s3://bkt/a/b/c"},
		{"/data/a.fits raw/bkt/key\nmore\n" + strings.Repeat("more", 100_000), "/data/a.fits", "raw/bkt/key"},
		{"/\xff/\x01 raw/bkt/\u00e9&=+%\n", "/\xff/\x01", "raw/bkt/\u00e9&=+%"},
		// A relative path means what it meant to the first daemon's open.
		{"../a.fits raw/bkt/key\n", dir + "/../a.fits", "raw/bkt/key"},
		// Not the working directory.
		{" raw/bkt/key\n", "", "raw/bkt/key"},
	}
	for _, test := range tests {
		if reply := exchange(t, address, test.request); reply != "Success" {
			t.Errorf("%.40q: %q", test.request, reply)
		}
		if got := <-daemon.pushes; got.File != test.file || got.Destination != test.destination {
			t.Errorf("%.40q: %+q to %+q", test.request, got.File, got.Destination)
		}
	}
}

// TestNoPush has what must be answered without asking the daemon.
func TestNoPush(t *testing.T) {
	daemon := newStandIn(t, nil)
	address, _, _ := start(t, Config{URL: daemon.URL})
	tests := []struct {
		name, request string
		closeWrite    bool
		want          string
	}{
		{"one word", "word\n", false, "the request has one word: send FILE DEST and a newline"},
		{"no word", "\n", false, "the request has one word: send FILE DEST and a newline"},
		{"nothing at all", "", true, ""},
		{"no newline", "/f a/bkt/k", true, errNoNewline.Error()},
		{"binary", "\x00\x01\xfe\xff\x80\n", false, "the request has one word: send FILE DEST and a newline"},
		{"1 MB without a newline", strings.Repeat("x", 1<<20), false, errTooLong.Error()},
		{"1 MB and a newline", strings.Repeat("x ", 1<<19) + "\n", true, errTooLong.Error()},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn := dial(t, address)
			if _, err := io.WriteString(conn, test.request); err != nil {
				t.Error(err)
			}
			if test.closeWrite {
				conn.CloseWrite()
			}
			if reply := read(t, conn); reply != test.want {
				t.Errorf("%q, want %q", reply, test.want)
			}
		})
	}
	if n := daemon.all.Load(); n != 0 {
		t.Errorf("%d pushes reached the daemon", n)
	}
}

// TestLeavingClients: a push goes on, whatever the client does after its
// newline, and with a reset as with a close.
func TestLeavingClients(t *testing.T) {
	hold := make(chan struct{})
	daemon := newStandIn(t, hold)
	address, _, _ := start(t, Config{URL: daemon.URL, MaxClients: 2})
	half := dial(t, address)
	io.WriteString(half, "/half a/bkt/k\n")
	half.CloseWrite()
	if got := <-daemon.pushes; got.File != "/half" {
		t.Errorf("%q", got.File)
	}
	for _, name := range []string{"/closes", "/resets", "/resets/while/waiting"} {
		conn := dial(t, address)
		io.WriteString(conn, name+" a/bkt/k\n")
		if name != "/closes" {
			conn.SetLinger(0)
		}
		conn.Close()
	}
	close(hold)
	if reply := read(t, half); reply != "Success" {
		t.Errorf("after a half close: %q", reply)
	}
	left := map[string]bool{}
	for range 3 {
		left[(<-daemon.pushes).File] = true
	}
	if !left["/closes"] || !left["/resets"] || !left["/resets/while/waiting"] {
		t.Errorf("pushed: %v", left)
	}
}

// TestTurns: of many clients, MaxClients are with the daemon at any time.
func TestTurns(t *testing.T) {
	hold := make(chan struct{})
	daemon := newStandIn(t, hold)
	address, drain, ended := start(t, Config{URL: daemon.URL, MaxClients: 3})
	const many = 60
	replies := make(chan string, many)
	var clients sync.WaitGroup
	for range many {
		clients.Go(func() { replies <- exchange(t, address, "/f a/bkt/k\n") })
	}
	waitFor(t, "the first turns", func() bool { return daemon.now.Load() == 3 })
	// Clients that are waiting do not stop anybody from being answered
	// who needs no turn.
	if reply := exchange(t, address, "word\n"); !strings.HasPrefix(reply, "the request has one word") {
		t.Errorf("%q", reply)
	}
	close(hold)
	clients.Wait()
	close(replies)
	for reply := range replies {
		if reply != "Success" {
			t.Errorf("%q", reply)
		}
	}
	if most := daemon.most.Load(); most != 3 {
		t.Errorf("%d pushes at once", most)
	}
	drain()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	ended <- nil
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("connected after the end")
	}
}

// TestAcceptErrors: a shortage of descriptors passes; another error ends
// Serve, after its clients.
func TestAcceptErrors(t *testing.T) {
	bubble(t, func() error { return nil }, func(t *testing.T, s *server, l *pipeListener, _ func()) {
		for range 20 {
			l.errs <- &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
		}
		conn := l.connect()
		io.WriteString(conn, "/f a/bkt/k\n")
		if reply := read(t, conn); reply != success {
			t.Errorf("%q", reply)
		}
	})
	broken := errors.New("broken")
	synctest.Test(t, func(t *testing.T) {
		s, err := newServer(Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		answered := false
		s.forward = func(context.Context, string, string, time.Time) error {
			<-time.After(time.Hour)
			return nil
		}
		l := newPipeListener()
		ended := make(chan error, 1)
		go func() { ended <- s.serve(t.Context(), l) }()
		conn := l.connect()
		io.WriteString(conn, "/f a/bkt/k\n")
		l.errs <- broken
		answered = read(t, conn) == success
		if err := <-ended; !errors.Is(err, broken) || !answered {
			t.Errorf("%v, answered %v", err, answered)
		}
	})
}

func TestBadConfig(t *testing.T) {
	for _, cfg := range []Config{{URL: "tcp://10.0.0.1:15556"}, {MaxClients: -1}} {
		l := newPipeListener()
		if err := Serve(t.Context(), l, cfg); err == nil {
			t.Errorf("%+v is served", cfg)
		}
		select {
		case <-l.closed:
		default:
			t.Errorf("%+v: the listener is left open", cfg)
		}
	}
}
