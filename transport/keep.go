package transport

import (
	"errors"
	"time"
)

// This file has what the pool does unasked, for hosts that it is to keep
// connections to: it opens them, replaces those that are lost, and has those that
// the other end would close refreshed before.

const (
	// leastLimit is the shortest limit for idle connections that is worth being
	// refreshed against.
	leastLimit = 5 * time.Second
	// mostLimit is the longest that is heeded.
	mostLimit = time.Hour
	// scoutEvery is between two tries whether the limit is longer by now.
	scoutEvery = 10 * time.Minute
	// dialEvery is between two connections in one place that nobody asked for, and
	// rarelyEvery where they do not last.
	dialEvery   = time.Second
	rarelyEvery = 30 * time.Second
	mostPause   = 30 * time.Second
	// retireEvery is between two looks for connections to ends that have moved.
	retireEvery = 30 * time.Second
)

// keeping is the state of that.
type keeping struct {
	timer      *time.Timer
	next       time.Time // when the timer is to fire; zero: it is not
	down       bool      // nothing is done
	refreshing int       // connections that are
	retire     time.Time // when those are looked for that are to be replaced
}

// endurance is what was learned of how long the other end leaves a connection
// idle.
type endurance struct {
	limit   time.Duration // after which it closes one; 0: after longer than anybody saw
	scouted time.Time     // when a longer one was tried last
	vain    bool          // it closes one that is refreshed, too
}

// lost says that a connection was closed after it had been idle for so long. The
// last such time is the limit: what had been idle for less before may have been
// closed for another reason.
func (e *endurance) lost(rested time.Duration, now time.Time) { e.limit, e.scouted = rested, now }

// survived says that a connection was sound after it had been idle for so long.
func (e *endurance) survived(rested time.Duration) {
	if e.limit != 0 && rested > e.limit {
		e.limit = rested
	}
	if e.limit > mostLimit {
		e.limit = 0
	}
}

// refreshAfter returns when an idle connection is to be refreshed; 0 for never. A
// scout is left for longer than is known to be safe.
func (e *endurance) refreshAfter(scout bool) time.Duration {
	switch {
	case e.vain, e.limit < leastLimit:
		return 0
	case scout:
		return e.limit * 3 / 2
	}
	return e.limit * 3 / 4
}

// pause returns how long a place is left alone after a connection was begun there,
// and one was used there or not. Where they cannot be kept open it is no use to open
// all of them again and again.
func (e *endurance) pause(used bool) time.Duration {
	switch {
	case e.limit == 0, e.limit >= leastLimit && !e.vain:
		return dialEvery
	case used, e.limit >= rarelyEvery:
		return rarelyEvery
	}
	return scoutEvery
}

// retry says when a host is tried again that no connection could be made to.
type retry struct {
	pause time.Duration // 0: all is well
	at    time.Time
	full  bool // others are sound: it takes no more than those
}

// expire forgets that a host takes no more where it has refused none for a while.
func (r *retry) expire(now time.Time) {
	if r.full && now.Sub(r.at) >= mostPause {
		*r = retry{}
	}
}

// failed notes a failure, while others are sound or not. Those at the same time are
// one.
func (r *retry) failed(full bool, now time.Time) {
	r.full = full
	if now.Before(r.at) {
		return
	}
	r.pause = max(dialEvery, min(2*r.pause, mostPause))
	r.at = now.Add(r.pause)
}

// keep has the pool be full of connections to a host from now on.
func (p *pool) keep(to host) {
	p.mu.Lock()
	defer p.unlock()
	p.endLocked(to).kept = true
	p.tendLocked(time.Now())
}

// rest has the pool close what is idle, and what is free later, and do nothing unasked
// until wake. A host that takes no more than those has room then for who asks whether
// it is there.
func (p *pool) rest() {
	p.mu.Lock()
	defer p.unlock()
	p.keeping.down = true
	p.dropIdleLocked()
}

// wake has the pool be filled at once.
func (p *pool) wake() {
	p.mu.Lock()
	defer p.unlock()
	p.keeping.down = false
	for _, e := range p.ends {
		e.retry, e.endure.vain = retry{}, false
	}
	for i := range p.places {
		p.places[i].begun = time.Time{}
	}
	p.tendLocked(time.Now())
}

// tend does what is due.
func (p *pool) tend() {
	p.mu.Lock()
	defer p.unlock()
	p.keeping.next = time.Time{}
	now := time.Now()
	p.tendLocked(now)
	p.dialLocked(now)
}

// tendLocked does what is due, and has the timer fire when there is more to do.
func (p *pool) tendLocked(now time.Time) {
	if p.closed || p.keeping.down {
		return
	}
	p.triedLocked(now)
	for to, e := range p.ends {
		if e.kept {
			p.fillLocked(to, e, now)
		}
	}
	for _, at := range p.places {
		if m := at.member; m != nil && m.state == idle {
			p.refreshLocked(m, now)
		}
	}
	if p.current != nil {
		p.retireLocked(now)
	}
}

// fillLocked begins connections to a host in the places that are free. Where the
// last could not be made, one tries whether they can be by now.
func (p *pool) fillLocked(to host, e *end, now time.Time) {
	e.retry.expire(now)
	failing := e.retry.pause > 0
	if failing && p.makingLocked(to) {
		return // whose end comes here again
	}
	for i, at := range p.places {
		if !at.free() {
			continue
		}
		due := at.begun.Add(e.endure.pause(at.used))
		if at.begun.IsZero() {
			due = now
		}
		if failing {
			due = e.retry.at
		}
		if now.Before(due) {
			p.armLocked(due, now)
			continue
		}
		p.beginLocked(to, i, nil, nil, now)
		if failing {
			return
		}
	}
}

// dueLocked returns when an idle connection is to be refreshed; zero for never.
func (p *pool) dueLocked(m *member, e *end) time.Time {
	after := e.endure.refreshAfter(e.scout == m)
	if p.ask == nil || after == 0 {
		return time.Time{}
	}
	return m.since.Add(after)
}

// refreshLocked refreshes an idle connection if that is due, and no more at once
// than leave most of them to requests. Now and then the least warm is left for
// longer instead, to see whether it endures that.
func (p *pool) refreshLocked(m *member, now time.Time) {
	e := p.endLocked(m.to)
	if due := p.dueLocked(m, e); due.IsZero() || now.Before(due) {
		p.armLocked(due, now)
		return
	}
	if e.scout == nil && now.Sub(e.endure.scouted) >= scoutEvery {
		e.scout, e.endure.scouted = choose(p.places, m.to, 0), now
		if e.scout == m {
			p.armLocked(p.dueLocked(m, e), now)
			return
		}
	}
	if p.keeping.refreshing > len(p.places)/4 { // their end comes here again
		return
	}
	p.keeping.refreshing++
	p.useLocked(m, now)
	p.background.Go(func() {
		err := p.ask(p.ctx, m)
		p.mu.Lock()
		defer p.unlock()
		p.keeping.refreshing--
		if err == nil {
			p.count.refreshed++
		}
		if broken, ok := errors.AsType[*BrokenError](err); err == nil || ok && !broken.Untaken {
			e.endure.vain = m.state == left
		}
		p.tendLocked(time.Now())
	})
}

// retireLocked replaces the idle connections whose other end has moved, the least
// warm first, and one after the other. Each is closed when there is another.
func (p *pool) retireLocked(now time.Time) {
	if now.Before(p.keeping.retire) {
		p.armLocked(p.keeping.retire, now)
		return
	}
	var old *member
	for _, at := range p.places {
		m := at.member
		switch {
		case m == nil || m.state != idle:
		case at.dial != nil:
			return // whose end comes here again
		case (old == nil || m.info.Rate < old.info.Rate) && !p.current(m):
			old = m
		}
	}
	if old == nil {
		p.keeping.retire = now.Add(retireEvery)
		p.armLocked(p.keeping.retire, now)
		return
	}
	p.beginLocked(old.to, old.place, nil, nil, now)
}

// armLocked has the timer fire at that time, if it would not before; zero is never.
func (p *pool) armLocked(at, now time.Time) {
	k := &p.keeping
	if at.IsZero() || !k.next.IsZero() && !at.Before(k.next) {
		return
	}
	k.next = at
	k.timer.Reset(at.Sub(now))
}

// learnLocked notes that a connection was closed by the other end after it had been
// idle for so long, unless another has been for longer, and is not closed: then the
// reason is another, as when a server is stopped that has closed a few so far.
func (p *pool) learnLocked(m *member, rested time.Duration, now time.Time) {
	for _, at := range p.places {
		if o := at.member; o != nil && o != m && o.state == idle && o.to == m.to && now.Sub(o.since) > rested+staleAfter && o.alive() {
			return
		}
	}
	p.endLocked(m.to).endure.lost(rested, now)
}
