package listen

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limits bound what the callers of a Door can hold.
type Limits struct {
	Callers int // requests that are served at once
	Spare   int // connections that may be open beside theirs, at least 1
	Rush    int // more of them, for a moment, where none may be closed yet
}

// Door lets connections in, so that nobody keeps others out by holding some.
//
//	door := listen.NewDoor(listen.Limits{Callers: 2000, Spare: 1000}, registry)
//	server := &http.Server{ConnContext: door.ConnContext, ConnState: door.ConnState, ...}
//	server.Serve(door.Guard(listener))
//
// A connection waits, or it is served. It waits while the daemon waits for its
// caller: from the beginning, and again from each answer, until a handler that
// has read a whole request calls Admit. It is served from then on until the
// answer has been written. Of those that are served there are as many as Limits
// say, and none of them is closed for another while its caller waits for the
// daemon. When all places are taken and one more caller comes, the connection
// that has waited longest is closed. It is none whose caller has sent something
// that was not looked at yet, since it is the daemon that is late then, and none
// that has hardly begun to wait: there are more for a moment then, and at last
// the newcomer waits.
//
// Who does not take his answer is given up too, sooner where his place is
// wanted: see conn.
type Door struct {
	limits  Limits
	metrics *metrics
	desks   chan struct{} // has one for each request that is looked at

	mu      sync.Mutex // guards what follows
	serving list.List  // of *conn
	waiting list.List  // of *conn, who has waited longest first
	// lookedAt is when those who are served were looked through last: with all
	// places taken that must not be once for each who comes.
	lookedAt time.Time
}

// NewDoor returns a door that nobody has come through. The registry may be nil.
func NewDoor(limits Limits, registry prometheus.Registerer) *Door {
	d := &Door{limits: limits, desks: make(chan struct{}, desks)}
	d.metrics = newMetrics(registry, d)
	return d
}

// Guard returns a listener whose connections come through the door. It may be
// called for several listeners.
func (d *Door) Guard(l net.Listener) net.Listener {
	return &guarded{Listener: l, door: d, closed: make(chan struct{})}
}

// connKey is the key of a request's *conn in its context.
type connKey struct{}

// ConnContext is for http.Server's field of that name: Admit finds the
// connection by it.
func (d *Door) ConnContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// ConnState is for http.Server's field of that name: it says when an answer has
// been written, and when the head of a request is there.
func (d *Door) ConnState(c net.Conn, state http.ConnState) {
	if known, ok := c.(*conn); ok && (state == http.StateActive || state == http.StateIdle) {
		d.wait(known)
	}
}

// Admit reports whether the request with that context, all of which has been
// read, may be served; if not, as many are as may be, and its caller should be
// told to come again. What did not come through a door is admitted.
func (d *Door) Admit(ctx context.Context) bool {
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		return true
	}
	c.leaveDesk()
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.place == nil { // closed meanwhile
		return false
	}
	if d.serving.Len() >= d.limits.Callers && !d.giveUpLocked() {
		d.metrics.refused.Inc()
		return false
	}
	d.waiting.Remove(c.place)
	c.place, c.served = d.serving.PushBack(c), true
	return true
}

// wait puts a connection behind all those that wait.
func (d *Door) wait(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.place != nil {
		d.leaveLocked(c)
		d.waitLocked(c)
	}
}

func (d *Door) waitLocked(c *conn) {
	c.place, c.served = d.waiting.PushBack(c), false
	c.since = time.Now()
}

// enter lets a connection in if there is room, or can be made.
func (d *Door) enter(c *conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	over := d.serving.Len() + d.waiting.Len() - d.limits.Callers - d.limits.Spare
	for range 2 { // one for the newcomer, and one of a rush that is over
		if over >= 0 && d.dropLocked() {
			over--
		}
	}
	if over >= d.limits.Rush {
		return false
	}
	d.waitLocked(c)
	return true
}

// dropLocked closes the connection that has waited for its caller longest, if
// there is one that may be.
func (d *Door) dropLocked() bool {
	e := d.waiting.Front()
	for n := 0; e != nil && n < mostLooked; n, e = n+1, e.Next() {
		c := e.Value.(*conn)
		if time.Since(c.since) < leastWait {
			return false
		}
		if c.waits() {
			d.leaveLocked(c)
			c.Conn.Close()
			if end := c.yielding.Load(); end != nil {
				(*end)()
			}
			d.metrics.crowded.Inc()
			return true
		}
	}
	return false
}

// giveUpLocked closes a connection that is served and whose caller does not take
// his answer, if there is one.
func (d *Door) giveUpLocked() bool {
	if time.Since(d.lookedAt) < lookApart {
		return false
	}
	d.lookedAt = time.Now()
	for e := d.serving.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*conn); c.lying() >= leastLie {
			d.leaveLocked(c)
			c.Conn.Close()
			d.metrics.notTaken.Inc()
			d.lookedAt = time.Time{} // there may be more
			return true
		}
	}
	return false
}

// leave forgets a connection that is about to be closed.
func (d *Door) leave(c *conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.place != nil {
		d.leaveLocked(c)
	}
}

func (d *Door) leaveLocked(c *conn) {
	if c.served {
		d.serving.Remove(c.place)
	} else {
		d.waiting.Remove(c.place)
	}
	c.place = nil
}

// counts returns how many connections are served, and how many wait.
func (d *Door) counts() (serving, waiting int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.serving.Len(), d.waiting.Len()
}

// guarded is a listener whose connections come through the door.
type guarded struct {
	net.Listener
	door   *Door
	taken  int // connections, which only the loop of net/http counts
	close  sync.Once
	closed chan struct{} // closed when the listener is
}

const (
	// leastWait is how long a connection waits at least before it is closed for
	// another. A caller on a busy host may need that from connect to send. It
	// bounds how fast connections replace each other, too: 10,000 a second, where
	// 1000 places and a rush of 4000 are left.
	leastWait = 500 * time.Millisecond
	// lookApart is the time between two looks through all who are served.
	lookApart = 100 * time.Millisecond
	// lookAgain is how often a newcomer looks whether there is room, where nobody
	// may be closed for him.
	lookAgain = 2 * time.Millisecond
	// takenAtOnce is how many newcomers are taken before others have a turn.
	takenAtOnce = 16
	// mostLooked is at how many he looks. That none of those who have waited
	// longest may be closed lasts for a moment only, until the daemon has looked
	// at what they sent.
	mostLooked = 8
)

// Accept returns the next connection once there is room for it. Others have a
// turn after each few, or a thousand who come together would all be before the
// next step of a health check.
func (l *guarded) Accept() (net.Conn, error) {
	if l.taken++; l.taken%takenAtOnce == 0 {
		runtime.Gosched()
	}
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if sends, ok := raw.(interface{ SetWriteBuffer(int) error }); ok {
		_ = sends.SetWriteBuffer(sendBuffer)
	}
	c := &conn{Conn: raw, door: l.door}
	for !l.door.enter(c) {
		select {
		case <-l.closed:
			raw.Close()
			return nil, net.ErrClosed
		case <-time.After(lookAgain):
		}
	}
	return c, nil
}

// Close closes the listener, and turns away the newcomer who waits for room.
func (l *guarded) Close() error {
	l.close.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
