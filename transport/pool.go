package transport

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"
)

// pool has the connections, and says which request has which. It makes one for
// a request that finds none idle, as long as there is a place; the request takes
// that or one that is given back, whichever comes first, and those that wait are
// served in order. What it does unasked is in keep.go.
type pool struct {
	dial    func(ctx context.Context, to host) (*member, error)
	ask     func(context.Context, *member) error // refreshes a connection and releases it; nil: none is refreshed
	current func(*member) bool                   // whether it would be made to the same end today; it does not wait
	once    bool                                 // each connection is for one request

	ctx        context.Context // of what is done unasked
	end        context.CancelFunc
	background sync.WaitGroup // Add only with mu held and not closed

	mu       sync.Mutex // guards all below, and once; given back by unlock
	closed   bool       // nothing is done unasked any more
	places   []place
	waiting  []*waiter // in order of arrival
	ends     map[host]*end
	dropped  []*member // that are to be closed, without mu
	count    counts
	keeping  keeping
	meter    meter
	departed Info // sums of what the connections had done that are no more
}

// place is where a connection may be, or one is being made, in place of the other
// where there are both.
type place struct {
	member *member
	dial   *dial
	begun  time.Time // when the last dial was
	used   bool      // the last connection that was there carried a request
}

// dial is a connection in the making.
type dial struct {
	pool   *pool
	to     host
	who    *waiter // has its failure; nil where nobody waits for it
	begun  time.Time
	cancel context.CancelFunc
}

// waiter is a request without a connection.
type waiter struct {
	to    host
	dial  *dial      // that was begun for it; nil where there was no place
	ready chan grant // has room for one
}

type grant struct {
	member *member
	err    error
}

// end is what is known of a host.
type end struct {
	kept   bool // its connections are opened before they are needed
	endure endurance
	scout  *member // that shows whether one may be idle for longer; nil where none does
	retry  retry
	turned int           // connections that broke before anything had come on them, since the last answer
	doubt  time.Time     // when one was found gone that had been idle; zero once one was sound since
	trip   time.Duration // the round trip of the connection that was free last; 0: none is known
}

type counts struct{ dials, failures, lost, refreshed, reused int64 }

func newPool(connections int, dial func(context.Context, host) (*member, error)) *pool {
	p := &pool{dial: dial, places: make([]place, connections), ends: make(map[host]*end)}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.keeping.timer = time.AfterFunc(math.MaxInt64, p.tend) // which uses the timer, so it is set thereafter
	p.meter.timer = time.AfterFunc(math.MaxInt64, p.measure)
	return p
}

// unlock gives mu back, and has closed what was dropped: by the background, since over
// TLS each says goodbye first, which a full buffer or a low bandwidth may hold up.
func (p *pool) unlock() {
	dropped := p.dropped
	p.dropped = nil
	end := func() {
		for _, m := range dropped {
			m.client.Close() // which calls lost
		}
	}
	if len(dropped) == 0 || p.closed {
		p.mu.Unlock()
		end()
		return
	}
	p.background.Go(end)
	p.mu.Unlock()
}

func newWaiter(to host) *waiter { return &waiter{to: to, ready: make(chan grant, 1)} }

// acquire returns a connection for a request; see choose. It fails as the dial
// does that was begun for it, or with the context's cause.
func (p *pool) acquire(ctx context.Context, w *waiter, enough float64) (*member, error) {
	p.enter(w, enough)
	select {
	case g := <-w.ready:
		return g.member, g.err
	case <-ctx.Done():
		p.forget(w)
		return nil, context.Cause(ctx)
	}
}

// enter serves a request, or has it wait.
func (p *pool) enter(w *waiter, enough float64) {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	m, gone := choose(p.places, w.to, enough), false
	for ; m != nil && !m.alive(); m = choose(p.places, w.to, enough) {
		p.lostLocked(m, now)
		gone = true
	}
	if m != nil {
		p.grantLocked(w, m, now)
	} else {
		p.waiting = append(p.waiting, w)
		p.dialLocked(now)
	}
	if gone {
		p.tendLocked(now) // last, since it makes some of those that are idle busy
	}
}

// grantLocked gives a connection to a request.
func (p *pool) grantLocked(w *waiter, m *member, now time.Time) {
	if m.state == idle || m.requests > 0 {
		p.count.reused++
	}
	p.useLocked(m, now)
	m.requests++
	w.ready <- grant{member: m}
}

// useLocked makes a connection busy.
func (p *pool) useLocked(m *member, now time.Time) {
	m.rested = 0
	if m.state == idle {
		m.rested = now.Sub(m.since)
		m.waited = m.waited || m.rested > staleAfter
	}
	m.state = busy
	p.meterLocked(now)
}

// kept notes that a connection was idle for a while more, though a request has it.
func (p *pool) kept(m *member, idle time.Duration) {
	if idle <= staleAfter {
		return
	}
	p.mu.Lock()
	defer p.unlock()
	m.waited = true
	m.rested += idle
}

// forget takes out a request that waits no more. The connection that is being made
// for it goes on, unless it would be for nobody.
func (p *pool) forget(w *waiter) {
	p.mu.Lock()
	d := w.dial
	waited := p.leaveLocked(w)
	p.dialLocked(time.Now()) // it may do for another
	if d != nil && d.who == nil && p.once {
		d.cancel()
	}
	p.unlock()
	if !waited { // it was served at that moment
		if g := <-w.ready; g.member != nil {
			p.release(g.member, nil)
		}
	}
}

// leaveLocked takes a request out of those that wait, if it is among them. What is
// being made for it is for nobody then; see adoptLocked.
func (p *pool) leaveLocked(w *waiter) bool {
	i := slices.Index(p.waiting, w)
	if i < 0 {
		return false
	}
	p.waiting = slices.Delete(p.waiting, i, i+1)
	if d := w.dial; d != nil {
		w.dial, d.who = nil, nil
	}
	return true
}

// queues reports whether a request waits for a connection that is given back, and
// for none that is being made.
func (p *pool) queues(w *waiter) bool {
	p.mu.Lock()
	defer p.unlock()
	return w.dial == nil && slices.Contains(p.waiting, w)
}

// dialLocked begins connections for the requests that wait without one.
func (p *pool) dialLocked(now time.Time) {
	p.triedLocked(now)
	for _, w := range p.waiting {
		if w.dial != nil || p.fullLocked(w.to, now) || p.adoptLocked(w) {
			continue
		}
		at, instead := p.roomLocked(w.to)
		if at < 0 {
			return
		}
		p.beginLocked(w.to, at, w, instead, now)
	}
}

// adoptLocked has a request wait for what is being made for nobody.
func (p *pool) adoptLocked(w *waiter) bool {
	for _, at := range p.places {
		if d := at.dial; d != nil && d.who == nil && d.to == w.to && at.member == nil {
			d.who, w.dial = w, d
			return true
		}
	}
	return false
}

// roomLocked returns a place for a connection, and what is to be closed for it; -1
// where there is none. The least warm of the idle ones to other hosts makes room, but
// for one that is being replaced: its place is the other's.
func (p *pool) roomLocked(to host) (at int, instead *member) {
	if at := slices.IndexFunc(p.places, place.free); at >= 0 {
		return at, nil
	}
	for _, other := range p.places {
		if m := other.member; m != nil && other.dial == nil && m.state == idle && m.to != to && (instead == nil || m.info.Rate < instead.info.Rate) {
			instead = m
		}
	}
	if instead == nil {
		return -1, nil
	}
	p.partLocked(instead)
	return instead.place, instead
}

func (at place) free() bool { return at.member == nil && at.dial == nil }

// beginLocked begins a connection, for a request or for nobody.
func (p *pool) beginLocked(to host, at int, who *waiter, instead *member, now time.Time) {
	d := &dial{pool: p, to: to, who: who, begun: now}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), dialKey{}, d))
	d.cancel = cancel
	if who != nil {
		who.dial = d
	}
	p.places[at].dial, p.places[at].begun = d, now
	p.count.dials++
	begin := p.background.Go
	if p.closed {
		begin = func(f func()) { go f() }
	}
	begin(func() {
		defer cancel()
		if instead != nil {
			instead.client.Close() // first, so that there are never more than may be
		}
		m, err := p.dial(ctx, to)
		p.made(at, m, err)
		if m != nil {
			m.client.SetStateHook(func(*http.ClientConn) {
				if m.client.Err() != nil {
					p.lost(m)
				}
			})
		}
	})
}

// made takes what a dial made, or why it could not.
func (p *pool) made(at int, m *member, err error) {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	d := p.places[at].dial
	p.places[at].dial = nil
	vouched := err != nil && p.vouchedLocked(d, err)
	if w := d.who; w != nil {
		w.dial, d.who = nil, nil
		if err != nil && !vouched { // else it waits for one that is given back
			p.leaveLocked(w)
			w.ready <- grant{err: err}
		}
	}
	if err != nil {
		p.count.failures++
		e := p.endLocked(d.to)
		e.retry.failed(vouched || e.retry.full && errors.Is(err, ErrNotTried), now)
		p.keeping.retire = now.Add(retireEvery)
	} else {
		p.placeLocked(m, at, now)
	}
	p.dialLocked(now)
	p.tendLocked(now)
}

// placeLocked puts a new connection where it was made for. One that it was to
// replace may have been taken meanwhile: then it is one too many.
func (p *pool) placeLocked(m *member, at int, now time.Time) {
	old := p.places[at].member
	if old != nil && old.state == busy {
		p.dropped = append(p.dropped, m)
		m.state = left
		p.keeping.retire = now.Add(retireEvery)
		return
	}
	if old != nil {
		p.dropLocked(old)
	}
	p.places[at].member, m.place = m, at
	if e := p.endLocked(m.to); !e.retry.full || p.keeping.down || !p.soundLocked(m.to, m) {
		e.retry = retry{}
		p.restLocked(m, now)
	} else {
		p.tryLocked(m, now)
	}
}

// endLocked returns what is known of a host.
func (p *pool) endLocked(to host) *end {
	if p.ends[to] == nil {
		p.ends[to] = new(end)
	}
	return p.ends[to]
}

// release takes a connection back from its request, with the head of the answer, if
// one came.
func (p *pool) release(m *member, answer *head) {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	e := p.endLocked(m.to)
	if e.scout == m {
		e.scout = nil
	}
	if answer != nil {
		e.turned = 0
	}
	if answer != nil && answer.info.Known {
		m.info = answer.info
	}
	if m.alive() {
		e.doubt = time.Time{}
		e.endure.survived(m.rested)
	}
	m.waited = true
	if !p.restLocked(m, now) || len(p.waiting) > 0 {
		p.dialLocked(now)
		p.tendLocked(now)
	}
}

// restLocked gives a connection that is free to the request that has waited
// longest; else it is idle. It reports false for one that cannot be used again,
// which leaves the pool.
func (p *pool) restLocked(m *member, now time.Time) bool {
	i := slices.IndexFunc(p.waiting, func(w *waiter) bool { return w.to == m.to })
	if i < 0 && (p.once || p.keeping.down) || !m.alive() {
		p.dropLocked(m)
		return false
	}
	m.since = now
	e := p.endLocked(m.to)
	if trip := roundTrip(m.info); trip > 0 {
		e.trip = trip
	}
	if i >= 0 {
		w := p.waiting[i]
		p.leaveLocked(w)
		p.grantLocked(w, m, now)
		return true
	}
	m.state = idle
	p.armLocked(p.dueLocked(m, e), now)
	return true
}

// lost is told that the other end closed a connection, or we did.
func (p *pool) lost(m *member) {
	p.mu.Lock()
	defer p.unlock()
	if m.state != idle && m.state != trying { // its request finds out
		return
	}
	now := time.Now()
	p.lostLocked(m, now)
	p.dialLocked(now)
	p.tendLocked(now)
}

// lostLocked is what becomes of an idle connection that was closed by the other
// end. How long it had been idle says something where no other was for longer: else
// all are closed for another reason, as when the other end stops. One that was closed
// before it could carry anything is as good as none.
func (p *pool) lostLocked(m *member, now time.Time) {
	p.count.lost++
	if m.state == trying || m.requests == 0 && now.Sub(m.made) < staleAfter {
		p.turnedAwayLocked(m, now)
	} else {
		p.learnLocked(m, now.Sub(m.since), now)
		p.lastLocked(m, now)
	}
	p.dropLocked(m)
}

// distrust is told that a connection broke when it was used once more. Where it was
// gone before, those that have been idle as long, or longer, are as dead. Where it is
// the second in a row, all are that were idle when the first broke.
func (p *pool) distrust(m *member, gone bool) {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	e := p.endLocked(m.to)
	before := e.doubt
	p.lastLocked(m, now)
	if gone {
		p.count.lost++
		before = later(before, m.since.Add(staleAfter))
	}
	if gone && m.rested > staleAfter {
		p.learnLocked(m, m.rested, now)
	}
	for _, at := range p.places {
		if o := at.member; o != nil && o.state == idle && o.to == m.to && o.since.Before(before) {
			p.dropLocked(o)
		}
	}
	e.doubt = now
	p.dialLocked(now)
	p.tendLocked(now)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// dropLocked takes a connection out of the pool, and has it closed.
func (p *pool) dropLocked(m *member) {
	p.partLocked(m)
	p.dropped = append(p.dropped, m)
}

// partLocked takes a connection out of the pool.
func (p *pool) partLocked(m *member) {
	if e := p.endLocked(m.to); e.scout == m {
		e.scout = nil
	}
	m.state = left
	p.places[m.place].member, p.places[m.place].used = nil, m.requests > 0
	if info, ok := infoOf(m.conn); ok {
		m.info = info
	}
	p.departed = sum(p.departed, m.info)
	p.departed.Segment = 0 // of those that are there it is the largest
}

// shut ends what is done unasked, and closes what no request needs. From then on
// each connection is for one request.
func (p *pool) shut() {
	p.mu.Lock()
	p.closed, p.once = true, true
	p.end()
	p.dropIdleLocked()
	for _, at := range p.places {
		if at.dial != nil && at.dial.who == nil {
			at.dial.cancel()
		}
	}
	p.keeping.timer.Stop()
	p.meter.timer.Stop()
	p.unlock()
	p.background.Wait()
}

func (p *pool) dropIdleLocked() {
	for _, at := range p.places {
		if m := at.member; m != nil && (m.state == idle || m.state == trying) {
			p.dropLocked(m)
		}
	}
}
