package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// TestAnsweredEarly has a store answer before it has read the request: a success
// is not believed, a refusal is heard.
func TestAnsweredEarly(t *testing.T) {
	const size = 1 << 20
	for status, want := range map[string]string{"200 OK": ErrNotRead.Error(), "403 Forbidden": "403 Forbidden"} {
		synctest.Test(t, func(t *testing.T) {
			tr := newTransport(t, usual(piped(func(conn net.Conn, _ *http.Request) {
				io.WriteString(conn, "HTTP/1.1 "+status+"\r\nContent-Length: 2\r\n\r\nno")
				time.Sleep(time.Minute)
			})))
			begun := time.Now()
			_, err := put(tr, t.Context(), "http://store", size, zeros(size))
			if took := time.Since(begun); err == nil || !strings.Contains(err.Error(), want) || took > sentTimeout {
				t.Errorf("%s: %v after %v", status, err, took)
			}
			time.Sleep(time.Hour) // what sleeps ends, inside the bubble
		})
	}
}

// TestSwitches has a store change the protocol, which is no answer: what comes
// then has no end.
func TestSwitches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTransport(t, usual(piped(func(conn net.Conn, req *http.Request) {
			io.Copy(io.Discard, req.Body)
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			gone(conn)
		})))
		begun := time.Now()
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err == nil || !strings.Contains(err.Error(), "the store answered 101") || time.Since(begun) > 0 {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

// TestHalfClosed has a store end its side of the connection, and go on reading:
// there will be no answer, and the request does not wait for one.
func TestHalfClosed(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, req *http.Request) {
		conn := hijack(t, w)
		conn.(interface{ CloseWrite() error }).CloseWrite()
		go io.Copy(io.Discard, conn)
	})
	for _, size := range []int64{100, 20 << 20} {
		_, err := put(overSockets(t, time.Minute), t.Context(), s.URL, size, zeros(size))
		if broken, ok := errors.AsType[*BrokenError](err); !ok || broken.Reused {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// TestBodyFails: that our own disk gave less than it should is not the
// connection's failure, whatever error it is.
func TestBodyFails(t *testing.T) {
	s := serve(t, func(_ http.ResponseWriter, req *http.Request) { io.Copy(io.Discard, req.Body) })
	for _, err := range []error{io.ErrUnexpectedEOF, syscall.ETIMEDOUT} {
		body := io.MultiReader(zeros(1<<20), iotest.ErrReader(err))
		_, got := put(overSockets(t, time.Minute), t.Context(), s.URL, 2<<20, body)
		_, broken := errors.AsType[*BrokenError](got)
		_, stalled := errors.AsType[*StallError](got)
		if !errors.Is(got, err) || broken || stalled {
			t.Errorf("%v: %v (stalled %v, broken %v)", err, got, stalled, broken)
		}
	}
}

// TestFlood has a store say that it goes on, for ever and quickly.
func TestFlood(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		conn := hijack(t, w)
		go func() {
			out := bufio.NewWriter(conn)
			for {
				if _, err := out.WriteString("HTTP/1.1 102 Processing\r\n\r\n"); err != nil {
					return
				}
			}
		}()
	})
	if _, err := put(overSockets(t, time.Minute), t.Context(), s.URL, 100, zeros(100)); err == nil || !strings.Contains(err.Error(), "headers") {
		t.Errorf("error %v", err)
	}
}

// TestUsedBefore has the second request on a connection end without an answer:
// it matters how long the connection had been idle, and who ended it.
func TestUsedBefore(t *testing.T) {
	for _, tc := range []struct {
		name   string
		idle   time.Duration
		begins bool // of an answer, which breaks off
		cancel bool
		want   *BrokenError // but for its cause
	}{
		{"in use", staleAfter / 2, false, false, &BrokenError{Reused: true}},
		{"idle", 2 * staleAfter, false, false, &BrokenError{Reused: true, Idle: true}},
		{"in the midst of an answer", staleAfter / 2, true, false, &BrokenError{}},
		{"given up by its caller", 0, false, true, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				second := false
				tr := newTransport(t, usual(piped(func(conn net.Conn, req *http.Request) {
					io.Copy(io.Discard, req.Body)
					switch {
					case !second:
						second = true
						io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
					case tc.cancel:
						gone(conn)
					default:
						if tc.begins {
							io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
						}
						conn.Close()
					}
				})))
				if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(tc.idle)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := put(tr, ctx, "http://store", 100, zeros(100))
				got, is := errors.AsType[*BrokenError](err)
				if err == nil || is != (tc.want != nil) || is && (got.Reused != tc.want.Reused || got.Idle != tc.want.Idle) || tc.cancel != errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v; of a connection that broke: %#v, want %#v", err, got, tc.want)
				}
			})
		})
	}
}

// TestAnswerIsBounded: of an answer without end no more than so much is read,
// whatever its status, and the connection is dropped; one of just that size is
// read.
func TestAnswerIsBounded(t *testing.T) {
	for _, status := range []int{200, 400} {
		dropped := make(chan struct{})
		s := serve(t, func(w http.ResponseWriter, req *http.Request) {
			w.WriteHeader(status)
			for req.URL.Path == "/endless" {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					close(dropped)
					return
				}
			}
			w.Write(make([]byte, mostAnswer))
		})
		tr := overSockets(t, 5*time.Second)
		for path, whole := range map[string]bool{"/full": true, "/endless": false} {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, s.URL+path, nil)
			resp, err := tr.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, resp.Body)
			if whole != (err == nil) || n > mostAnswer {
				t.Errorf("%s %d: %d bytes, %v", path, status, n, err)
			}
			if !whole {
				<-dropped
			}
			resp.Body.Close()
		}
	}
}
