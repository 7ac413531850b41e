package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// slowly writes a text byte by byte, with a pause before each, until the
// other end has had enough.
func slowly(conn net.Conn, text string, pause time.Duration) {
	for i := range len(text) {
		time.Sleep(pause)
		if _, err := io.WriteString(conn, text[i:i+1]); err != nil {
			return
		}
	}
	gone(conn)
}

// TestStandingStill has stores that stand still at each phase of a request, or
// all but: each ends it within its limit, and not before.
func TestStandingStill(t *testing.T) {
	const (
		head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
		big  = 1 << 20
	)
	type store = func(conn net.Conn, req *http.Request)
	read := func(then store) store {
		return func(conn net.Conn, req *http.Request) {
			io.Copy(io.Discard, req.Body)
			then(conn, req)
		}
	}
	for _, tc := range []struct {
		name  string
		size  int64
		store store
		x     *Exchange
		after time.Duration // it stands still
		limit time.Duration
		what  string
	}{
		{"reads nothing", big, func(conn net.Conn, _ *http.Request) { time.Sleep(time.Hour) }, nil, 0, 10 * time.Second, "acknowledged nothing"},
		{"reads half", big, func(_ net.Conn, req *http.Request) {
			for range 8 {
				time.Sleep(9 * time.Second)
				io.CopyN(io.Discard, req.Body, big/16)
			}
			time.Sleep(time.Hour)
		}, nil, 72 * time.Second, 10 * time.Second, "acknowledged nothing"},
		{"does not answer", 100, read(func(conn net.Conn, _ *http.Request) { gone(conn) }), nil, 0, 2 * time.Minute, "begin to answer"},
		{"does not answer much", big, read(func(conn net.Conn, _ *http.Request) { gone(conn) }), nil, 0, 2 * time.Minute, "begin to answer"},
		{"has more time", 100, read(func(conn net.Conn, _ *http.Request) { gone(conn) }), &Exchange{Answer: 10 * time.Minute}, 0, 10 * time.Minute, "begin to answer"},
		{"trickles the head", 100, read(func(conn net.Conn, _ *http.Request) {
			slowly(conn, "HTTP/1.1 200 OK\r\n"+strings.Repeat("A: b\r\n", 1000), time.Second)
		}),
			nil, 0, 2 * time.Minute, "begin to answer"},
		{"says it goes on", 100, read(func(conn net.Conn, _ *http.Request) {
			slowly(conn, strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 1000), time.Second/2)
		}), nil, 0, 2 * time.Minute, "begin to answer"},
		{"answers half a body", 100, read(func(conn net.Conn, _ *http.Request) { io.WriteString(conn, head+"<"); gone(conn) }), nil, 0, 30 * time.Second, "end its answer"},
		{"trickles the body", 100, read(func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, head)
			slowly(conn, strings.Repeat(" ", 1000), time.Second)
		}), nil, 0, 30 * time.Second, "end its answer"},
		{"trickles a body it has more time for", 100, read(func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, head)
			slowly(conn, strings.Repeat(" ", 1000), time.Second)
		}), &Exchange{Answer: 10 * time.Minute}, 0, 10 * time.Minute, "end its answer"},
		{"refuses early and half", big, func(conn net.Conn, _ *http.Request) {
			io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n<Error>")
			time.Sleep(time.Hour)
		}, nil, 0, 30 * time.Second, "end its answer"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := newTransport(t, usual(piped(tc.store)))
				ctx := t.Context()
				if tc.x != nil {
					ctx = With(ctx, tc.x)
				}
				begun := time.Now()
				_, err := put(tr, ctx, "http://store", tc.size, zeros(tc.size))
				took := time.Since(begun) - tc.after
				stalled, ok := errors.AsType[*StallError](err)
				if !ok || stalled.Limit != tc.limit || !strings.Contains(stalled.Error(), tc.what) {
					t.Errorf("error %v", err)
				}
				if took < tc.limit || took > tc.limit+tc.limit/4 {
					t.Errorf("it was ended after %v", took)
				}
				time.Sleep(2 * time.Hour) // what sleeps ends, inside the bubble
			})
		})
	}
}

// TestProxyThatSaysNothing: one that takes the connection and does not answer
// CONNECT is a connection that is not had.
func TestProxyThatSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := usual(piped(func(conn net.Conn, _ *http.Request) { gone(conn) }))
		tr := newTransport(t, cfg)
		tr.maker.http.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy"})
		begun := time.Now()
		_, err := put(tr, t.Context(), "https://store", 100, zeros(100))
		limit, took := 4*cfg.ConnectTimeout, time.Since(begun)
		if stalled, ok := errors.AsType[*StallError](err); !ok || stalled.At != Connecting || took < limit || took > limit+limit/4 {
			t.Errorf("after %v: %v", took, err)
		}
		time.Sleep(2 * time.Hour)
	})
}

// TestGettingOn has requests that take longer than any limit and get on: none is
// ended.
func TestGettingOn(t *testing.T) {
	const size = 1 << 20
	agree := func(conn net.Conn) { io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") }
	for _, tc := range []struct {
		name   string
		answer time.Duration
		body   io.Reader
		store  func(conn net.Conn, req *http.Request)
	}{
		{"a slow store", 0, zeros(size), func(conn net.Conn, req *http.Request) {
			for {
				time.Sleep(9 * time.Second)
				if _, err := io.CopyN(io.Discard, req.Body, 40<<10); err != nil {
					break
				}
			}
			agree(conn)
		}},
		{"a slow disk", 0, &slowReader{Reader: zeros(size), pause: time.Hour}, func(conn net.Conn, req *http.Request) {
			io.Copy(io.Discard, req.Body)
			agree(conn)
		}},
		{"a store that thinks", 0, zeros(size), func(conn net.Conn, req *http.Request) {
			io.Copy(io.Discard, req.Body)
			time.Sleep(115 * time.Second)
			agree(conn)
		}},
		{"a store that thinks, and then takes its time", 0, zeros(size), func(conn net.Conn, req *http.Request) {
			io.Copy(io.Discard, req.Body)
			time.Sleep(115 * time.Second)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
			time.Sleep(25 * time.Second)
			io.WriteString(conn, "ok")
		}},
		{"white space while parts are joined", 10 * time.Minute, zeros(100), func(conn net.Conn, req *http.Request) {
			io.Copy(io.Discard, req.Body)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			for range 540 {
				time.Sleep(time.Second)
				io.WriteString(conn, "1\r\n \r\n")
			}
			io.WriteString(conn, "2\r\nok\r\n0\r\n\r\n")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := newTransport(t, usual(piped(tc.store)))
				length := int64(size)
				if tc.answer != 0 {
					length = 100
				}
				text, err := put(tr, With(t.Context(), &Exchange{Answer: tc.answer}), "http://store", length, tc.body)
				if err != nil || strings.TrimSpace(text) != "ok" {
					t.Errorf("%q, %v", text, err)
				}
				tr.Close()
			})
		})
	}
}

// slowReader pauses before each of a few large turns.
type slowReader struct {
	io.Reader
	pause time.Duration
	turns int
}

func (r *slowReader) Read(p []byte) (int, error) {
	if r.turns++; r.turns < 5 {
		time.Sleep(r.pause)
	}
	return r.Reader.Read(p)
}

// TestNoConnection: a request that is given no connection is ended too.
func TestNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, usual(func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}))
		begun := time.Now()
		_, err := put(tr, t.Context(), "http://store", 1, zeros(1))
		if _, ok := errors.AsType[*StallError](err); !ok || time.Since(begun) > 90*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

// TestSmallCostsNothing: the watch of a request that is quick never looks.
func TestSmallCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, usual(piped(func(conn net.Conn, req *http.Request) {
			io.Copy(io.Discard, req.Body)
			time.Sleep(time.Second)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		})))
		for range 3 {
			if _, err := put(tr, t.Context(), "http://store", 1000, zeros(1000)); err != nil {
				t.Error(err)
			}
		}
		tr.Close()
		l := tr.limits.of(nil)
		if l.interval() <= time.Second || l.interval() > l.stall/looks {
			t.Errorf("a look each %v", l.interval())
		}
	})
}

// failing is a connection whose reads fail once something was written.
type failing struct {
	net.Conn
	err     error
	written chan struct{}
}

func (f *failing) Write(p []byte) (int, error) {
	select {
	case f.written <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (f *failing) Read([]byte) (int, error) {
	<-f.written
	return 0, &net.OpError{Op: "read", Net: "tcp", Err: f.err}
}

// TestWhatTheKernelSays: what a connection fails with is told apart.
func TestWhatTheKernelSays(t *testing.T) {
	for _, tc := range []struct {
		err             error
		stalled, broken bool
	}{
		{syscall.ETIMEDOUT, true, false},
		{syscall.EHOSTUNREACH, true, false},
		{syscall.ECONNRESET, false, true},
		{io.EOF, false, true},
		{errors.New("other"), false, false},
	} {
		tr := newTransport(t, usual(func(context.Context, string, string) (net.Conn, error) {
			near, _ := net.Pipe()
			return &failing{Conn: near, err: tc.err, written: make(chan struct{}, 1)}, nil
		}))
		_, err := put(tr, t.Context(), "http://store", 100, bytes.NewReader(make([]byte, 100)))
		_, stalled := errors.AsType[*StallError](err)
		broken, is := errors.AsType[*BrokenError](err)
		if !errors.Is(err, tc.err) || stalled != tc.stalled || is != tc.broken || is && (broken.Reused || broken.Idle) {
			t.Errorf("%v: %v (stalled %v, broken %v)", tc.err, err, stalled, is)
		}
	}
	tr := newTransport(t, usual(func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ETIMEDOUT}
	}))
	_, err := put(tr, t.Context(), "http://store", 1, zeros(1))
	if _, stalled := errors.AsType[*StallError](err); stalled || !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("connecting timed out: %v", err)
	}
}
