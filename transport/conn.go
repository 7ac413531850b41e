package transport

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a TCP connection that a Dialer made. It keeps to the bandwidth, and
// knows how far it had got once it is closed.
type conn struct {
	net.Conn // the kernel's, or a counted one where the kernel tells nothing
	traits
	bandwidth *Bandwidth // nil: no limit
	patience  *patience
	last      atomic.Pointer[Info] // set before it is closed, and never again
	closed    func()               // called once
}

// newConn takes over a connection that has been made.
func newConn(made net.Conn, known traits, bandwidth *Bandwidth, closed func()) *conn {
	return &conn{Conn: metered(made), traits: known, bandwidth: bandwidth, patience: newPatience(), closed: sync.OnceFunc(closed)}
}

// Write has no ReadFrom beside it, by which the bandwidth could be passed by.
func (c *conn) Write(p []byte) (written int, err error) {
	if c.bandwidth == nil {
		return c.Conn.Write(p)
	}
	for {
		n, err := c.Conn.Write(p[:c.bandwidth.take(len(p), c.patience)])
		written, p = written+n, p[n:]
		if err != nil || len(p) == 0 {
			return written, err
		}
	}
}

func (c *conn) SetDeadline(t time.Time) error {
	c.patience.until(t)
	return c.Conn.SetDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.patience.until(t)
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) Close() error {
	if info, ok := kernelInfo(bare(c), c.traits); ok {
		c.last.CompareAndSwap(nil, &info)
	}
	err := c.Conn.Close()
	c.patience.end() // the writes that wait find it closed
	c.closed()
	return err
}

func (c *conn) info() (Info, bool) {
	if info, ok := kernelInfo(bare(c), c.traits); ok {
		return info, true
	}
	if last := c.last.Load(); last != nil {
		return *last, true
	}
	return Info{}, false
}

// progress is how far the sending on a connection has got.
type progress struct {
	acked   int64 // bytes that the other end has acknowledged since the connection was made
	waiting bool  // there are some that it has not acknowledged yet
}

// progressOf asks how far a connection has got, whatever is wrapped around it.
// It reports false where nobody can say.
func progressOf(conn net.Conn) (progress, bool) {
	if c, ok := countedIn(conn); ok {
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
		return bare(wrapped.Conn)
	default:
		return wrapped
	}
}

// countedIn returns the one that counts, if one does.
func countedIn(c net.Conn) (*counted, bool) {
	c = withoutTLS(c)
	if made, ok := c.(*conn); ok {
		c = made.Conn
	}
	count, ok := c.(*counted)
	return count, ok
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

// metered returns the connection itself where it can be told how far it has got,
// else one that counts.
func metered(conn net.Conn) net.Conn {
	if _, ok := progressOf(conn); ok {
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
