package legacy

import (
	"container/list"
	"context"
	"net"
	"sync"
	"time"
)

// lobby holds the connections that are still sending their line, oldest
// first. It never lets one wait for longer than senderGrace before it is in,
// however slow the others are.
type lobby struct {
	most int
	left chan struct{} // has an element when somebody has left since enter last looked

	mu    sync.Mutex
	queue list.List // of *place; guarded by mu
}

// place is one connection's place in the lobby.
type place struct {
	conn  net.Conn
	since time.Time
	at    *list.Element // nil once it has left or was dropped; guarded by lobby.mu
}

func newLobby(most int) *lobby {
	return &lobby{most: most, left: make(chan struct{}, 1)}
}

// enter gives the connection a place. In a full lobby it drops the oldest
// connection, by ending its time to send, once that had senderGrace: enough
// that of a crowd of quick clients none is dropped, only because the crowd was
// accepted faster than it was read. When ctx is cancelled it lets everybody in.
//
// Only one goroutine may be in enter.
func (l *lobby) enter(ctx context.Context, conn net.Conn) *place {
	p := &place{conn: conn, since: time.Now()}
	for {
		wait := l.tryEnter(p, ctx.Err() != nil)
		if wait <= 0 {
			return p
		}
		select {
		case <-l.left:
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// tryEnter returns 0 when p is in, else for how long to wait before it is
// worth while to drop somebody.
func (l *lobby) tryEnter(p *place, force bool) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue.Len() >= l.most && !force {
		oldest := l.queue.Front().Value.(*place)
		if wait := senderGrace - time.Since(oldest.since); wait > 0 {
			return wait
		}
		l.removeLocked(oldest)
		oldest.conn.SetReadDeadline(time.Unix(1, 0))
	}
	p.at = l.queue.PushBack(p)
	return 0
}

// leave takes the connection out, if it is still in.
func (l *lobby) leave(p *place) {
	l.mu.Lock()
	l.removeLocked(p)
	l.mu.Unlock()
	select {
	case l.left <- struct{}{}:
	default:
	}
}

func (l *lobby) removeLocked(p *place) {
	if p.at != nil {
		l.queue.Remove(p.at)
		p.at = nil
	}
}

// hurry gives everybody in the lobby until the deadline.
func (l *lobby) hurry(deadline time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := l.queue.Front(); e != nil; e = e.Next() {
		e.Value.(*place).conn.SetReadDeadline(deadline)
	}
}
