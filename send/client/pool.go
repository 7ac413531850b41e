package client

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// maxIdle is for how long a connection is kept for another push. It is short,
// so that at most times there is none that a daemon could just be closing, and
// that nothing is left of a burst.
const maxIdle = time.Second

// conn is a connection to the daemon.
type conn struct {
	net.Conn
	reader *bufio.Reader
	bound  io.LimitedReader // below reader, over Conn
	most   int64            // bytes that the present answer may have
	reused bool
	since  time.Time // when it became idle
}

func newConn(c net.Conn) *conn {
	conn := &conn{Conn: c, bound: io.LimitedReader{R: c}}
	conn.reader = bufio.NewReader(&conn.bound)
	return conn
}

// pool keeps connections that a push may use again.
type pool struct {
	mu    sync.Mutex
	idle  []*conn     // longest idle first; guarded by mu
	timer *time.Timer // runs reap while idle has any; guarded by mu
}

// get returns the connection that was used last and is still open, or nil.
func (p *pool) get() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if time.Since(c.since) < maxIdle && silent(c.Conn) {
			c.reused = true
			return c
		}
		c.Close()
	}
	return nil
}

func (p *pool) put(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.since = time.Now()
	p.idle = append(p.idle, c)
	if p.timer == nil {
		p.timer = time.AfterFunc(maxIdle, p.reap)
	}
}

// reap closes what has been idle for maxIdle.
func (p *pool) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.idle) > 0 && time.Since(p.idle[0].since) >= maxIdle {
		p.idle[0].Close()
		p.idle = p.idle[1:]
	}
	if p.timer = nil; len(p.idle) > 0 {
		p.timer = time.AfterFunc(maxIdle-time.Since(p.idle[0].since), p.reap)
	}
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.idle {
		c.Close()
	}
	p.idle = nil
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}

// silent reports whether the connection is open and has nothing to read: not
// the end that a daemon leaves which stopped meanwhile, and nothing that
// nobody asked for.
func silent(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	open := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = errors.Is(err, syscall.EAGAIN)
		return true
	})
	return err == nil && open
}
