package transport

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestPool looks at what would take minutes to show, or more callers than
// connections.
func TestPool(t *testing.T) {
	const most = 7
	p := New(Config{Connections: most}).pool
	if p.IdleConnTimeout != 0 || p.DisableKeepAlives || p.MaxConnsPerHost != most ||
		p.MaxIdleConnsPerHost != most || p.MaxIdleConns != 0 && p.MaxIdleConns < most {
		t.Errorf("the pool gives up idle connections after %v, keeps %d and %d of them, and has at most %d",
			p.IdleConnTimeout, p.MaxIdleConns, p.MaxIdleConnsPerHost, p.MaxConnsPerHost)
	}
}

// TestAnsweredEarly has a store answer before it has read the request: a success
// is not believed, a refusal is heard.
func TestAnsweredEarly(t *testing.T) {
	const size = 64 << 20 // more than the sockets' buffers take
	for status, want := range map[string]string{"200 OK": ErrNotRead.Error(), "403 Forbidden": "403 Forbidden"} {
		s := serve(t, func(w http.ResponseWriter, req *http.Request) {
			conn := hijack(t, w)
			io.WriteString(conn, "HTTP/1.1 "+status+"\r\nContent-Length: 2\r\n\r\nno")
		})
		if _, err := put(overSockets(t, time.Minute), t.Context(), s.URL, size, zeros(size)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", status, err)
		}
	}
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
