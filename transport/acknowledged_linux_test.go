package transport

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDialerOptions reads back what the kernel was told about a connection: a
// limit for its silence, and probes of which several fit into it.
func TestDialerOptions(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, stall := range []time.Duration{10 * time.Second, time.Hour} {
		conn, err := NewDialer(DialConfig{ConnectTimeout: time.Second, StallTimeout: stall, Congestion: Auto}).Dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		got := make(map[string]int)
		control(conn, func(fd int) {
			for name, option := range map[string]int{"limit": unix.TCP_USER_TIMEOUT, "idle": unix.TCP_KEEPIDLE, "interval": unix.TCP_KEEPINTVL} {
				if got[name], err = unix.GetsockoptInt(fd, unix.IPPROTO_TCP, option); err != nil {
					t.Error(err)
				}
			}
			if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); on != 1 || err != nil {
				t.Errorf("keep-alive is %d, %v", on, err)
			}
		})
		if time.Duration(got["limit"])*time.Millisecond != stall {
			t.Errorf("TCP_USER_TIMEOUT is %d ms, want %v", got["limit"], stall)
		}
		if probes := (int(stall.Seconds()) - got["idle"]) / got["interval"]; probes < 3 || got["idle"] > 15 {
			t.Errorf("%d probes fit into %v: the first after %d s, then each %d s", probes, stall, got["idle"], got["interval"])
		}
	}
}

// stopping is a server that reads so many bytes of each request's body and no
// more, but all of one to /all; its connections have a small buffer, of a size
// that is told.
func stopping(t *testing.T, tls bool, most int64) (s *httptest.Server, buffer func() int) {
	s = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/all" {
			io.Copy(io.Discard, req.Body)
			return
		}
		io.CopyN(io.Discard, req.Body, most)
		hijack(t, w)
	}))
	l := &smallBuffers{s.Listener.(*net.TCPListener), make(chan int, 1)}
	s.Listener = l
	if tls {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s, func() int { return <-l.size }
}

// smallBuffers has connections with small buffers, which do not grow.
type smallBuffers struct {
	*net.TCPListener
	size chan int
}

func (l *smallBuffers) Accept() (net.Conn, error) {
	conn, err := l.TCPListener.AcceptTCP()
	if err != nil {
		return nil, err
	}
	err = conn.SetReadBuffer(64 << 10)
	control(conn, func(fd int) {
		if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil {
			l.size <- n
		}
	})
	return conn, err
}

// putWatched sends a body and looks at how much of it is acknowledged, until the
// request ends.
func putWatched(t *testing.T, tr *Transport, x *Exchange, url string, size int64) (acked int64, err error) {
	ended := make(chan error, 1)
	go func() {
		_, err := put(tr, With(t.Context(), x), url, size, zeros(size))
		ended <- err
	}()
	for {
		select {
		case err := <-ended:
			return acked, err
		case <-time.After(10 * time.Millisecond):
			now := x.Acknowledged()
			if now < acked {
				t.Errorf("%d bytes after %d", now, acked)
			}
			acked = now
		}
	}
}

// TestAcknowledged sends to a server that stops reading: what counts is what it
// took, and not what the kernel here did, nor what the connection had carried
// before; with TLS too. That is what a stall is seen by.
func TestAcknowledged(t *testing.T) {
	const took, size = 1 << 20, 64 << 20
	for _, secure := range []bool{false, true} {
		s, buffer := stopping(t, secure, took)
		cfg := Config{
			Connections: 1, ConnectTimeout: 5 * time.Second, StallTimeout: time.Second, Answer: time.Minute, Rest: time.Minute,
			Dial: (&net.Dialer{}).DialContext, // so that the kernel is not quicker
		}
		if secure {
			cfg.Roots = x509.NewCertPool()
			cfg.Roots.AddCert(s.Certificate())
		}
		tr, x := newTransport(t, cfg), new(Exchange)
		if _, err := put(tr, t.Context(), s.URL+"/all", size, zeros(size)); err != nil {
			t.Fatal(err)
		}
		acked, err := putWatched(t, tr, x, s.URL, size)
		if stalled, ok := errors.AsType[*StallError](err); !ok || stalled.Limit != cfg.StallTimeout {
			t.Errorf("error %v", err)
		}
		const held = 64 << 10 // more than the server's side has in its own memory: what it reads ahead, and records of TLS
		most, read := int64(took+held+buffer()), x.transit.Load().body.read.Load()
		if acked < took/2 || acked > most || read <= acked {
			t.Errorf("TLS %v: %d bytes count as acknowledged of %d read; the server took %d, and %d at most with its buffer", secure, acked, read, took, most)
		}
	}
}

// TestNeverMoreThanAll: what TLS adds to a body does not count, when the store
// has all of it and has not answered yet.
func TestNeverMoreThanAll(t *testing.T) {
	const size = 8 << 20
	has, may := make(chan struct{}), make(chan struct{})
	s := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		close(has)
		<-may
	}))
	t.Cleanup(s.Close)
	cfg := usual((&net.Dialer{}).DialContext)
	cfg.Roots = x509.NewCertPool()
	cfg.Roots.AddCert(s.Certificate())
	tr, x := newTransport(t, cfg), new(Exchange)
	ended := make(chan error, 1)
	go func() {
		_, err := put(tr, With(t.Context(), x), s.URL, size, zeros(size))
		ended <- err
	}()
	<-has
	if n := x.Acknowledged(); n < size-size/10 || n > size {
		t.Errorf("%d bytes of %d count as acknowledged", n, size)
	}
	close(may)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestNothingComesLate: what the kernel had not sent of a request that stood still
// never arrives, though the server reads again.
func TestNothingComesLate(t *testing.T) {
	const size = 64 << 20
	stalled, arrived := make(chan struct{}), make(chan int64, 1)
	s := serve(t, func(w http.ResponseWriter, req *http.Request) {
		<-stalled
		n, _ := io.Copy(io.Discard, req.Body)
		arrived <- n
	})
	cfg := usual((&net.Dialer{}).DialContext) // so that the kernel is not quicker
	cfg.StallTimeout = time.Second
	acked, err := putWatched(t, newTransport(t, cfg), new(Exchange), s.URL, size)
	if _, ok := errors.AsType[*StallError](err); !ok {
		t.Errorf("error %v", err)
	}
	close(stalled)
	if n := <-arrived; n > acked+longestHeads {
		t.Errorf("%d bytes arrived, of which %d had been acknowledged", n, acked)
	}
}

// longestHeads is more than a request's head has here.
const longestHeads = 1 << 10

// TestKernelEndsSilence: with the dialer's own limit, a server that takes
// nothing stalls a request all the same, whoever notices first.
func TestKernelEndsSilence(t *testing.T) {
	s, _ := stopping(t, false, 0)
	_, err := put(overSockets(t, time.Second), t.Context(), s.URL, 64<<20, zeros(64<<20))
	if _, ok := errors.AsType[*StallError](err); !ok {
		t.Errorf("error %v", err)
	}
}

// TestAllAcknowledged: after a success all of the body is, also where requests
// follow one another on a connection.
func TestAllAcknowledged(t *testing.T) {
	s := serve(t, func(_ http.ResponseWriter, req *http.Request) { io.Copy(io.Discard, req.Body) })
	tr := overSockets(t, 10*time.Second)
	for _, size := range []int64{small + 1, 20 << 20, 1 << 20} {
		x := new(Exchange)
		if _, err := put(tr, With(t.Context(), x), s.URL, size, zeros(size)); err != nil || x.Acknowledged() != size {
			t.Errorf("%v: %d bytes of %d", err, x.Acknowledged(), size)
		}
	}
}

// TestDiscard: nor does what it had not sent of a request that was cancelled, if that
// was asked for.
func TestDiscard(t *testing.T) {
	const size = 64 << 20
	over, arrived := make(chan struct{}), make(chan int64, 1)
	s := serve(t, func(w http.ResponseWriter, req *http.Request) {
		<-over
		n, _ := io.Copy(io.Discard, req.Body)
		arrived <- n
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tr, x := newTransport(t, usual((&net.Dialer{}).DialContext)), new(Exchange)
	x.Discard() // there is nothing yet
	ended := make(chan error, 1)
	go func() {
		_, err := put(tr, With(ctx, x), s.URL, size, zeros(size))
		ended <- err
	}()
	until(t, "the kernel has more than it could send", func() bool {
		way := x.transit.Load()
		return way != nil && way.body.read.Load() > way.acknowledged()+1<<20
	})
	x.Discard()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	acked := x.Acknowledged()
	close(over)
	const meanwhile = 256 << 10 // what was on its way
	if n := <-arrived; n > acked+meanwhile {
		t.Errorf("%d bytes arrived, and %d had been acknowledged", n, acked)
	}
}
