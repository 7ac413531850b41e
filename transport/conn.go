package transport

import (
	"crypto/tls"
	"net"
	"sync/atomic"
)

// progress is how far the sending on a connection has got.
type progress struct {
	acked   int64 // bytes that the other end has acknowledged since the connection was made
	waiting bool  // there are some that it has not acknowledged yet
}

// progressOf asks how far a connection has got, whatever is wrapped around it.
// It reports false where nobody can say, as of a connection that was closed.
func progressOf(conn net.Conn) (progress, bool) {
	conn = withoutTLS(conn)
	if c, ok := conn.(*counted); ok {
		return c.progress(), true
	}
	return kernelProgress(conn)
}

// discard has the kernel forget what has not been sent when the connection is
// closed. Else it would go on by itself, and the store could take an object long
// after it was given up, and after a newer one.
func discard(conn net.Conn) {
	conn = withoutTLS(conn)
	if c, ok := conn.(*counted); ok {
		conn = c.Conn
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // which fails if it has been closed
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
	if _, ok := kernelProgress(conn); ok {
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
