package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// late is a connection that does not hear of its end before something is written
// to it, from a moment on: as when what stands between has forgotten it.
type late struct {
	net.Conn
	from  *atomic.Bool
	ended *atomic.Int64 // connections that have come to their end, which nobody has heard of
	woken chan struct{}
	once  sync.Once
}

func (l *late) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if err != nil && l.from.Load() {
		l.ended.Add(1)
		<-l.woken
	}
	return n, err
}

func (l *late) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	if l.from.Load() {
		l.wake()
	}
	return n, err
}

func (l *late) Close() error {
	l.wake()
	return l.Conn.Close()
}

func (l *late) wake() { l.once.Do(func() { close(l.woken) }) }

// ending is a server whose connections can be ended from its side.
type ending struct {
	*httptest.Server
	requests atomic.Int64
	mu       sync.Mutex
	open     map[net.Conn]http.ConnState
}

func newEnding(t *testing.T, secure bool, answer http.HandlerFunc) *ending {
	e := &ending{open: make(map[net.Conn]http.ConnState)}
	e.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		e.requests.Add(1)
		answer(w, req)
	}))
	e.Config.ConnState = func(conn net.Conn, s http.ConnState) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.open[conn] = s; s == http.StateClosed {
			delete(e.open, conn)
		}
	}
	begin(e.Server, secure)
	t.Cleanup(e.Close)
	return e
}

// count returns how many connections are open, TLS included.
func (e *ending) count() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for conn := range e.open {
		if secure, ok := conn.(*tls.Conn); !ok || secure.ConnectionState().HandshakeComplete {
			n++
		}
	}
	return n
}

// end closes all connections, or has them reset.
func (e *ending) end(reset bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for conn := range e.open {
		raw := withoutTLS(conn).(*net.TCPConn) // what TLS says of the end would be heard
		if reset {
			raw.SetLinger(0)
		}
		raw.Close()
	}
}

// begin starts a server, with TLS or without.
func begin(s *httptest.Server, secure bool) {
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
}

// rootsOf returns what is to be trusted so that the server is.
func rootsOf(s *httptest.Server) *x509.CertPool {
	if s.Certificate() == nil {
		return nil
	}
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return pool
}

// TestAllGone: where all connections are gone and nobody has heard of it, a request
// fails of which it is known that nobody took it, and the next goes at once on one that lives.
func TestAllGone(t *testing.T) {
	const connections = 25
	for _, tc := range []struct {
		name          string
		secure, reset bool
		used          bool // the connections have carried requests
	}{
		{"closed", false, false, false}, {"reset", false, true, false},
		{"closed, with TLS", true, false, false}, {"reset, with TLS", true, true, false},
		{"closed after use", false, false, true}, {"reset after use", false, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			may := make(chan struct{})
			s := newEnding(t, tc.secure, func(_ http.ResponseWriter, req *http.Request) { <-may })
			tr := overSockets(t, 10*time.Second, func(cfg *Config) { cfg.Connections, cfg.Roots = connections, rootsOf(s.Server) })
			var from atomic.Bool
			var ended atomic.Int64
			dial := tr.maker.http.DialContext
			tr.maker.http.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dial(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return &late{Conn: conn, from: &from, ended: &ended, woken: make(chan struct{})}, nil
			}
			base, _ := url.Parse(s.URL)
			tr.Keep(base)
			until(t, "all to be open", func() bool { return s.count() == connections && len(tr.Connections()) == connections })
			if tc.used {
				var wg sync.WaitGroup
				for range connections {
					wg.Go(func() {
						if _, err := put(tr, t.Context(), s.URL, 100, zeros(100)); err != nil {
							t.Error(err)
						}
					})
				}
				until(t, "all to be in use", func() bool { return s.requests.Load() == connections })
				close(may)
				wg.Wait()
			} else {
				close(may)
			}
			tr.pool.mu.Lock()
			for _, at := range tr.pool.places { // as if that had been a while ago
				at.member.since = at.member.since.Add(-time.Minute)
			}
			tr.pool.mu.Unlock()
			from.Store(true)
			s.end(tc.reset)
			until(t, "all to be gone", func() bool { return ended.Load() == connections })
			before := s.requests.Load()

			_, err := put(tr, t.Context(), s.URL, 100, zeros(100))
			if broken, ok := errors.AsType[*BrokenError](err); !ok || !broken.Reused || !broken.Idle || !broken.Untaken {
				t.Errorf("the first: %#v", err)
			}
			if _, err := put(tr, t.Context(), s.URL, 100, zeros(100)); err != nil || s.requests.Load() != before+1 {
				t.Errorf("the second: %v; the server has had %d requests", err, s.requests.Load()-before)
			}
		})
	}
}

// TestTaken: of what a store may have acted on, or has had some, it is not said that
// the connection was gone before.
func TestTaken(t *testing.T) {
	const much = 1 << 20
	for _, tc := range []struct {
		name          string
		secure, reset bool
		read          int64 // of the second request, before the connection ends
		size          int64
	}{
		{"all was read, and the end is said", false, false, much, much},
		{"all was read, and reset", false, true, much, much},
		{"a small one was read, and the end is said", false, false, 100, 100},
		{"a small one was read, and reset", false, true, 100, 100},
		{"half of it, and reset", false, true, much / 2, 64 * much}, // it was none that was gone
		{"with TLS, all was read, and the end is said", true, false, much, much},
		{"with TLS, all was read, and reset", true, true, much, much},
		{"with TLS, a small one was read, and the end is said", true, false, 100, 100},
		{"with TLS, a small one was read, and reset", true, true, 100, 100},
		{"with TLS, half of it, and reset", true, true, much / 2, 64 * much},
	} {
		t.Run(tc.name, func(t *testing.T) {
			second := false
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if !second {
					second = true
					io.Copy(io.Discard, req.Body)
					return
				}
				io.CopyN(io.Discard, req.Body, tc.read)
				raw := withoutTLS(hijack(t, w)).(*net.TCPConn)
				if tc.reset {
					raw.SetLinger(0)
				}
				raw.Close()
			}))
			begin(s, tc.secure)
			t.Cleanup(s.Close)
			tr := overSockets(t, 10*time.Second, func(cfg *Config) { cfg.Roots = rootsOf(s) })
			if _, err := put(tr, t.Context(), s.URL, 100, zeros(100)); err != nil {
				t.Fatal(err)
			}
			_, err := put(tr, t.Context(), s.URL, tc.size, zeros(tc.size))
			if broken, ok := errors.AsType[*BrokenError](err); !ok || !broken.Reused || broken.Untaken {
				t.Errorf("%#v", err)
			}
		})
	}
}
