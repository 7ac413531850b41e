package transport

import (
	"context"
	"errors"
	"slices"
	"time"
)

// This file has what the pool does where a host takes no more connections than there
// are: that one is refused is no sign then that the host is away. Requests share those
// that are sound, and whether it takes more is tried by one at a time.

type dialKey struct{}

// Vouched reports whether that failure to make a connection says nothing of the host,
// since other connections to it are sound. The context is the one that Config.Dial was
// called with.
func Vouched(ctx context.Context, err error) bool {
	d, ok := ctx.Value(dialKey{}).(*dial)
	if !ok {
		return false
	}
	d.pool.mu.Lock()
	defer d.pool.unlock()
	return d.pool.vouchedLocked(d, err)
}

// vouchedLocked is Vouched. A host that refuses a connection has not ended those that
// are there; of one that is silent something must have been heard meanwhile, unless
// nobody waits for the connection: a request will find out.
func (p *pool) vouchedLocked(d *dial, err error) bool {
	switch {
	case p.once, errors.Is(err, ErrNotTried):
		return false
	case refused(err):
		return p.soundLocked(d.to, nil) || reached(err) && p.makingLocked(d.to)
	case timedOut(err):
		return slices.ContainsFunc(p.places, func(at place) bool {
			m := at.member
			return m != nil && m.to == d.to && m.sound() && (d.who == nil || m.heard(d.begun))
		})
	}
	return false
}

// soundLocked reports whether there is a sound connection to a host, other than that
// one: it will be free for the next request.
func (p *pool) soundLocked(to host, but *member) bool {
	return !p.once && slices.ContainsFunc(p.places, func(at place) bool {
		m := at.member
		return m != nil && m != but && m.to == to && m.sound()
	})
}

// lastLocked is told that a connection was lost that had lasted for a moment. Where no
// other has, none of those that are made now vouches for another until one has an
// answer: the host may be gone, and what takes them in its place turn all away.
func (p *pool) lastLocked(m *member, now time.Time) {
	for _, at := range p.places {
		if o := at.member; o != nil && o != m && o.to == m.to && o.sound() && now.Sub(o.made) >= staleAfter {
			return
		}
	}
	p.endLocked(m.to).turned = len(p.places)
}

// fullLocked reports whether a request is to wait for a connection that is given back,
// since the host takes no more of them just now.
func (p *pool) fullLocked(to host, now time.Time) bool {
	e := p.endLocked(to)
	e.retry.expire(now)
	if !e.retry.full || !p.soundLocked(to, nil) && !p.makingLocked(to) {
		return false
	}
	if now.Before(e.retry.at) {
		p.armLocked(e.retry.at, now)
		return true
	}
	return p.makingLocked(to)
}

// makingLocked reports whether a connection to a host is being made, or tried.
func (p *pool) makingLocked(to host) bool {
	return slices.ContainsFunc(p.places, func(at place) bool {
		return at.dial != nil && at.dial.to == to || at.member != nil && at.member.state == trying && at.member.to == to
	})
}

// tryLocked keeps a connection from requests until it has lasted for a moment: a host
// that takes no more may take one in order to close it.
func (p *pool) tryLocked(m *member, now time.Time) {
	m.state, m.since = trying, now
	p.armLocked(now.Add(staleAfter), now)
}

// triedLocked has those be used that have, and those that are all there is.
func (p *pool) triedLocked(now time.Time) {
	for _, at := range p.places {
		m := at.member
		if m == nil || m.state != trying {
			continue
		}
		alone := p.waitsLocked(m.to) && !p.soundLocked(m.to, m)
		if due := m.since.Add(staleAfter); now.Before(due) && !alone {
			p.armLocked(due, now)
			continue
		}
		p.restLocked(m, now)
	}
}

// waitsLocked reports whether a request waits for a connection to a host.
func (p *pool) waitsLocked(to host) bool {
	return slices.ContainsFunc(p.waiting, func(w *waiter) bool { return w.to == to })
}

// turnedAway is told that a connection broke before anything had come on it, which is
// as good as none. It reports whether others are sound, or on their way. That these may
// be new as well does no harm, as long as no more have been turned away since the last
// answer than there are places: then the host turns all away.
func (p *pool) turnedAway(m *member) bool {
	p.mu.Lock()
	defer p.unlock()
	return p.turnedAwayLocked(m, time.Now())
}

func (p *pool) turnedAwayLocked(m *member, now time.Time) bool {
	e := p.endLocked(m.to)
	e.turned++
	others := e.turned <= len(p.places) && (p.soundLocked(m.to, m) || p.makingLocked(m.to))
	e.retry.failed(others, now)
	return others
}
