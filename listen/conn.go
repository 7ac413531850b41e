package listen

import (
	"container/list"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// answerTimeout is how long a caller may leave a piece of his answer where it
	// is. It bounds no answer: only the time in which none of it is taken.
	answerTimeout = 30 * time.Second
	// leastLie is how long he may in any case, even where his place is wanted.
	leastLie = time.Second
	// answerPiece is what has that time, in bytes.
	answerPiece = 64 << 10
)

// conn is a connection that came through a Door. A caller who takes nothing of
// his answer for answerTimeout is given up, so that he holds no place for ever.
type conn struct {
	net.Conn
	door *Door

	// What the daemon is at on it, which only the two loops of net/http change.
	reading, ending atomic.Bool
	writing         atomic.Pointer[time.Time] // since when a piece of the answer; nil: nothing

	// The door's mu guards these.
	place  *list.Element // among those that are served or wait; nil once it was, or is about to be, closed
	served bool
	since  time.Time // when it began to wait
}

// waits reports whether the daemon waits for the caller: to send something,
// while nothing of his has arrived; to take his answer; or to hang up.
func (c *conn) waits() bool {
	return c.lying() > 0 || c.ending.Load() || c.reading.Load() && !c.arrived()
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

func (c *conn) Read(p []byte) (int, error) {
	c.reading.Store(true)
	defer c.reading.Store(false)
	return c.Conn.Read(p)
}

func (c *conn) Write(p []byte) (int, error) {
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
	c.ending.Store(true)
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// NetConn returns the connection as it was accepted.
func (c *conn) NetConn() net.Conn { return c.Conn }

func (c *conn) Close() error {
	c.door.leave(c)
	return c.Conn.Close()
}
