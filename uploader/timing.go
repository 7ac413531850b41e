package uploader

import (
	"context"
	"sync"
	"time"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/transport"
)

// clock says where the time of a push goes, through all its runs. It counts the
// time in which requests of the push are with the store, or connect to it, once
// however many they are. All other time the push is queued.
type clock struct {
	mu       sync.Mutex    // guards all below, and the trips
	since    time.Time     // of what has not been counted yet
	trips    [over + 1]int // requests of the push in each phase; of those before and after the others it means nothing
	connect  time.Duration // in which some connected, and none was under way
	transfer time.Duration // in which some were under way
	// What those that have ended took, each by itself. It is the proportion that
	// counts.
	send, store time.Duration
}

// move has a request leave one phase and enter another.
func (c *clock) move(from, to phase, now time.Time) {
	switch {
	case c.trips[underway] > 0:
		c.transfer += now.Sub(c.since)
	case c.trips[connecting] > 0:
		c.connect += now.Sub(c.since)
	}
	c.since = now
	c.trips[from]--
	c.trips[to]++
}

// took notes for how long a request was under way, and for how long it was sent.
// That it was not sent at all means that it broke before the store had all of it.
func (c *clock) took(all, sent time.Duration) {
	if sent <= 0 || sent > all {
		sent = all
	}
	c.send += sent
	c.store += all - sent
}

// spent returns where the time went up to now. No request is under way.
func (c *clock) spent() *journal.Spent {
	c.mu.Lock()
	defer c.mu.Unlock()
	send := c.transfer
	if all := c.send + c.store; all > 0 {
		send = time.Duration(float64(c.transfer) * float64(c.send) / float64(all))
	}
	return &journal.Spent{Connect: c.connect, Send: send, Store: c.transfer - send}
}

// phase is what a request is doing.
type phase int

const (
	before     phase = iota // it is being made
	connecting              // until it has a connection
	underway                // until its answer has been read
	over
)

// trip is one request on its push's clock.
type trip struct {
	transport.Exchange
	clock *clock // nil where it is no push's
	phase phase
	since time.Time // of the phase

	traceparent string // that the request has, if any

	signedBy uint64 // credentials.number of what the request was signed with; 0: it was not
}

// newTrip makes a trip, and the context for its request.
func newTrip(ctx context.Context, c *clock) (*trip, context.Context) {
	t := &trip{clock: c}
	t.Connected = func() { t.enter(underway) }
	return t, transport.With(context.WithValue(ctx, tripKey{}, t), &t.Exchange)
}

type tripKey struct{}

// tripOf returns the trip whose request has the context.
func tripOf(ctx context.Context) *trip {
	t, _ := ctx.Value(tripKey{}).(*trip)
	return t
}

// enter begins a phase, unless the trip is beyond it.
func (t *trip) enter(p phase) {
	if t == nil || t.clock == nil {
		return
	}
	c := t.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	if p <= t.phase {
		return
	}
	now := time.Now()
	if t.phase == underway {
		c.took(now.Sub(t.since), t.Times().Send)
	}
	c.move(t.phase, p, now)
	t.phase, t.since = p, now
}

// timingOf returns where the time of a push went: what was not spent with the store
// it was queued. Where a clock was set back in the meantime it is less than was
// spent, and each part is as much less.
func timingOf(s *journal.Spent, took time.Duration) *push.Timing {
	if s == nil {
		return nil
	}
	connect, send, store := s.Connect, s.Send, s.Store
	if spent := connect + send + store; spent > took {
		scale := float64(took) / float64(spent)
		connect, send = time.Duration(float64(connect)*scale), time.Duration(float64(send)*scale)
		store = max(0, took-connect-send)
	}
	return &push.Timing{
		Queued: max(0, took-connect-send-store).Seconds(), Connect: connect.Seconds(), Send: send.Seconds(), Store: store.Seconds(),
	}
}
