package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// counted counts a server's connections, all of them and those still open.
func counted(server *httptest.Server) (all, open *atomic.Int64) {
	all, open = new(atomic.Int64), new(atomic.Int64)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			all.Add(1)
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Add(-1)
		}
	}
	return all, open
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

// TestReuse: a burst uses no more connections than it has pushes at once, and
// leaves none.
func TestReuse(t *testing.T) {
	server := httptest.NewUnstartedServer(answer(200, "application/json", done))
	all, open := counted(server)
	server.Start()
	defer server.Close()
	daemon, err := New(server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for range 100 {
				if err := daemon.Push(t.Context(), "/f", "s3://bkt/k"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	// A machine that is very busy may let one grow old between two pushes.
	if n := all.Load(); n > 40 {
		t.Errorf("400 pushes of 4 callers took %d connections", n)
	}
	waitFor(t, "idle connections to be closed", func() bool { return open.Load() == 0 })
}

// TestStale: a daemon that closed its idle connections, or that sent what
// nobody asked for, costs no push.
func TestStale(t *testing.T) {
	var closing atomic.Bool
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if closing.Load() {
			w.Header().Set("Connection", "close")
		}
		answer(200, "application/json", done)(w, r)
	}))
	all, open := counted(server)
	server.Start()
	defer server.Close()
	daemon, err := New(server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	push := func(connections int64) {
		t.Helper()
		if err := daemon.Push(t.Context(), "/f", "s3://bkt/k"); err != nil {
			t.Error(err)
		}
		if n := all.Load(); n != connections {
			t.Errorf("%d connections, want %d", n, connections)
		}
	}
	push(1)
	server.CloseClientConnections()
	waitFor(t, "the end of the first", func() bool { return open.Load() == 0 })
	push(2)
	closing.Store(true)
	daemon.Close()
	push(3)
	if len(daemon.pool.idle) != 0 {
		t.Error("a connection that the daemon closes is kept")
	}
	push(4)
}

// TestAgain: a request is sent again where nothing of it was written, and only
// there.
func TestAgain(t *testing.T) {
	broken := errors.New("broken")
	tests := []struct {
		name   string
		reused bool
		wrote  int
		again  bool
	}{
		{"kept, nothing written", true, 0, true},
		{"kept, some written", true, 7, false},
		{"new, nothing written", false, 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			daemon := &Daemon{where: "there"}
			c := newConn(&writeFails{n: test.wrote, err: broken})
			c.reused = test.reused
			_, again, err := daemon.exchange(t.Context(), c, daemon.request("", "/f", "s3://bkt/k"), maxAnswerBytes)
			if again != test.again || !errors.Is(err, broken) {
				t.Errorf("again %v, %v", again, err)
			}
		})
	}
}

// writeFails is a connection whose writes fail after n bytes.
type writeFails struct {
	net.Conn
	n   int
	err error
}

func (w *writeFails) Write([]byte) (int, error)   { return w.n, w.err }
func (w *writeFails) Close() error                { return nil }
func (w *writeFails) SetDeadline(time.Time) error { return nil }

// TestIdle: connections go after maxIdle, each at its own time.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pool
		var ends [3]net.Conn
		for i := range ends {
			ours, theirs := net.Pipe()
			ends[i] = theirs
			p.put(newConn(ours))
			<-time.After(maxIdle / 4)
		}
		for i, end := range ends {
			if _, err := end.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%d: %v", i, err)
			}
		}
		synctest.Wait()
		if len(p.idle) != 0 || p.timer != nil {
			t.Errorf("%d are left", len(p.idle))
		}
	})
}

// TestCancelledBeforehand asks nobody.
func TestCancelledBeforehand(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("asked") }))
	defer server.Close()
	daemon, err := New(server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := daemon.Push(ctx, "/f", "s3://bkt/k"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
