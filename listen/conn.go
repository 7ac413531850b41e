package listen

import (
	"container/list"
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// desks is how many requests are looked at at once, from what has come of them
	// until a handler serves them or more must come. That takes no time to speak
	// of, but for a thousand together it is long, and whoever comes then, a health
	// check too, would have his turn behind them.
	desks = 16
	// answerTimeout is how long a caller may leave a piece of his answer where it
	// is. It bounds no answer: only the time in which none of it is taken.
	answerTimeout = 30 * time.Second
	// leastLie is how long he may in any case, even where his place is wanted.
	leastLie = time.Second
	// answerPiece is what has that time, in bytes.
	answerPiece = 64 << 10
	// sendBuffer is how many bytes of an answer the kernel keeps for a caller who
	// does not read, about. By itself it would keep some MB of a long list for
	// each, which are made for nobody.
	sendBuffer = 64 << 10
)

// conn is a connection that came through a Door. A caller who takes nothing of
// his answer for answerTimeout is given up, so that he holds no place for ever.
type conn struct {
	net.Conn
	door *Door

	// What the daemon is at on it, which only the two loops of net/http change, and
	// the handler.
	reading, ending atomic.Bool
	atDesk          atomic.Bool
	writing         atomic.Pointer[time.Time] // since when a piece of the answer; nil: nothing
	yielding        atomic.Pointer[context.CancelFunc]

	// The door's mu guards these.
	place  *list.Element // among those that are served or wait; nil once it was, or is about to be, closed
	served bool
	since  time.Time // when it began to wait
}

// waits reports whether the daemon waits for the caller: to send something,
// while nothing of his has arrived; to take his answer; or to hang up; or whether
// his request has yielded.
func (c *conn) waits() bool {
	return c.yielding.Load() != nil || c.lying() > 0 || c.ending.Load() || c.reading.Load() && !c.arrived()
}

// lying returns how long a piece of the answer has waited to be taken.
func (c *conn) lying() time.Duration {
	if since := c.writing.Load(); since != nil {
		return max(1, time.Since(*since))
	}
	return 0
}

// arrived reports whether there is something to read, the end included.
func (c *conn) arrived() bool {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	something := false
	_ = raw.Control(func(fd uintptr) { // and not Read, which would wait for the one that is under way
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		something = !errors.Is(err, syscall.EAGAIN)
	})
	return something
}

// Read reads, and returns once there is a desk for what came.
func (c *conn) Read(p []byte) (int, error) {
	c.leaveDesk()
	c.reading.Store(true)
	n, err := c.Conn.Read(p)
	c.reading.Store(false)
	if n > 0 && len(p) > 1 { // with one byte net/http only looks whether the caller hangs up
		c.door.desks <- struct{}{}
		c.atDesk.Store(true)
	}
	return n, err
}

// Yield lets others be looked at while the request with that context, which was
// not admitted, waits for something. It has no claim to its place meanwhile: if
// it is closed for another, the context that Yield returns ends. The function
// ends that state.
func Yield(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		return ctx, cancel
	}
	c.leaveDesk()
	c.yielding.Store(&cancel)
	return ctx, func() {
		c.yielding.Store(nil)
		cancel()
	}
}

// leaveDesk makes room for the next request: this one is served now, or waits
// for its caller.
func (c *conn) leaveDesk() {
	if c.atDesk.CompareAndSwap(true, false) {
		<-c.door.desks
	}
}

func (c *conn) Write(p []byte) (int, error) {
	c.leaveDesk()
	defer c.writing.Store(nil)
	written := 0
	for {
		now := time.Now()
		c.writing.Store(&now)
		_ = c.SetWriteDeadline(now.Add(answerTimeout))
		n, err := c.Conn.Write(p[written:min(len(p), written+answerPiece)])
		written += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.door.metrics.notTaken.Inc()
		}
		if err != nil || written == len(p) {
			return written, err
		}
	}
}

// CloseWrite ends the answer; net/http then gives the caller a moment to read
// it, before it closes the connection.
func (c *conn) CloseWrite() error {
	c.leaveDesk()
	c.ending.Store(true)
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// NetConn returns the connection as it was accepted.
func (c *conn) NetConn() net.Conn { return c.Conn }

func (c *conn) Close() error {
	c.leaveDesk()
	c.door.leave(c)
	return c.Conn.Close()
}
