package transport

import (
	"crypto/tls"
	"net"
	"sync/atomic"
)

// conn is a TCP connection that a Dialer made. Once it is closed it still knows
// how far it had got.
type conn struct {
	net.Conn
	traits
	last atomic.Pointer[Info] // set before it is closed, and never again
}

func newConn(made net.Conn) *conn { return &conn{Conn: made, traits: traitsOf(made)} }

func (c *conn) info() (Info, bool) {
	if info, ok := kernelInfo(c.Conn, c.traits); ok {
		return info, true
	}
	if last := c.last.Load(); last != nil {
		return *last, true
	}
	return Info{}, false
}

func (c *conn) Close() error {
	if info, ok := kernelInfo(c.Conn, c.traits); ok {
		c.last.CompareAndSwap(nil, &info)
	}
	return c.Conn.Close()
}

// progress is how far the sending on a connection has got.
type progress struct {
	acked   int64 // bytes that the other end has acknowledged since the connection was made
	waiting bool  // there are some that it has not acknowledged yet
}

// progressOf asks how far a connection has got, whatever is wrapped around it.
// It reports false where nobody can say.
func progressOf(conn net.Conn) (progress, bool) {
	if c, ok := withoutTLS(conn).(*counted); ok {
		return c.progress(), true
	}
	info, ok := infoOf(conn)
	return progress{acked: info.Acked, waiting: info.Unacked > 0 || info.Unsent > 0}, ok
}

// discard has the kernel forget what has not been sent when the connection is
// closed. Else it would go on by itself, and the store could take an object long
// after it was given up, and after a newer one.
func discard(c net.Conn) {
	if tcp, ok := bare(c).(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // which fails if it has been closed
	}
}

// bare returns the connection under all that is wrapped around it here.
func bare(c net.Conn) net.Conn {
	switch wrapped := withoutTLS(c).(type) {
	case *counted:
		return bare(wrapped.Conn)
	case *conn:
		return wrapped.Conn
	default:
		return wrapped
	}
}

func withoutTLS(conn net.Conn) net.Conn {
	for {
		wrapped, ok := conn.(*tls.Conn)
		if !ok {
			return conn
		}
		conn = wrapped.NetConn()
	}
}

// metered returns the connection itself where the kernel can tell how far it
// has got, else one that counts.
func metered(conn net.Conn) net.Conn {
	if _, ok := infoOf(conn); ok {
		return conn
	}
	return &counted{Conn: conn}
}

// counted is a connection that takes for acknowledged what was written to it:
// the best that can be known where there is no kernel to ask.
type counted struct {
	net.Conn
	written atomic.Int64
	writing atomic.Int32
}

func (c *counted) Write(p []byte) (int, error) {
	c.writing.Add(1)
	defer c.writing.Add(-1)
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

func (c *counted) progress() progress {
	return progress{acked: c.written.Load(), waiting: c.writing.Load() > 0}
}
