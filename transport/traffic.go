package transport

import (
	"cmp"
	"context"
	"math"
	"net"
	"slices"
	"sync"
	"time"
)

// This file has what the requests do for each other that send over a long link at the
// same time. Left alone each takes what its connection remembers: together that is
// more than the link carries, much of it is lost, and whose connection remembers little
// is late. So they take turns: each look lets in whom there is room for, which makes
// them begin one after the other and not in step, none sends faster than its share, and
// when the last byte of one has left its share is the others', while it waits for its
// answer. The shares are what keeps to the link; whose turn it is only says when one
// begins, so it never waits for long.

const (
	// leastTurnSize is the size from which on a body waits for its turn, in bytes.
	// What is smaller is gone in some packets.
	leastTurnSize = 128 << 10
	// leastTurnTrip is the round trip from which on a link is long. The queue before a
	// shorter one fills and empties within moments, and shares it well enough.
	leastTurnTrip = 5 * time.Millisecond
	// slowStart is which part of what it may send a connection does well to begin with.
	slowStart = 0.8
	// highGain is how much faster than its window in a round trip bbr begins: 2/ln 2.
	highGain = 2.885
	// looksATrip is how often in a round trip it is looked who has sent everything.
	looksATrip = 16
	leastLook  = 4 * time.Millisecond
	// A turn comes in any case after some round trips, and a moment.
	turnTrips  = 8
	turnMoment = time.Second
	// mostRenewals is how often a connection begins anew in one turn: what is slow after
	// that has a limit of its own.
	mostRenewals = 4
)

// traffic is the requests that send over long links, and those that wait to.
type traffic struct {
	seen   func() seen                 // of all connections
	infoOf func(net.Conn) (Info, bool) // of one

	mu      sync.Mutex // guards all below
	timer   *time.Timer
	sending []*turn
	waiting []*turn // in order of arrival
	flow    flow
}

// turn is a request's.
type turn struct {
	m     *member
	body  *countedBody
	size  int64
	ready chan struct{} // closed when it may send

	came      time.Time
	remembers float64 // what its connection carried when it came, in bytes a second
	info      Info
	begun     time.Time // to send
	renewed   time.Time // when its connection began anew last
	renewals  int
	limit     float64 // that its connection was told, in bytes a second; infinite at first
}

func newTraffic(seen func() seen) *traffic {
	t := &traffic{seen: seen, infoOf: infoOf}
	t.timer = time.AfterFunc(math.MaxInt64, t.look)
	return t
}

// enter waits for the request's turn; it returns nil at once where it needs none. It
// fails with the context's cause.
func (t *traffic) enter(ctx context.Context, m *member, body *countedBody, size int64) (*turn, error) {
	if body == nil || size < leastTurnSize {
		return nil, nil
	}
	info, known := t.infoOf(m.conn)
	if !known || info.Algorithm != bbr || roundTrip(info) < leastTurnTrip {
		return nil, nil
	}
	one := &turn{m: m, body: body, size: size, ready: make(chan struct{}), came: time.Now(), remembers: info.Rate, info: info, limit: math.Inf(1)}
	if info.Starting { // which is faster than it ever was
		one.remembers /= highGain
	}
	t.mu.Lock()
	t.waiting = append(t.waiting, one)
	t.lookLocked(time.Now())
	t.mu.Unlock()
	select {
	case <-one.ready:
		return one, nil
	case <-ctx.Done():
		t.leave(one)
		return nil, context.Cause(ctx)
	}
}

// leave ends a turn; nil is none.
func (t *traffic) leave(one *turn) {
	if one == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if info, ok := t.infoOf(one.m.conn); ok && !one.begun.IsZero() {
		one.info = info
		t.hearLocked(one)
	}
	is := func(other *turn) bool { return other == one }
	t.waiting = slices.DeleteFunc(t.waiting, is)
	t.sending = slices.DeleteFunc(t.sending, is)
	one.slow(math.Inf(1))
	t.lookLocked(now)
}

// shut ends what is done when nobody sends any more.
func (t *traffic) shut() { t.timer.Stop() }

func (t *traffic) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lookLocked(time.Now())
}

// lookLocked takes out who has sent everything, lets in whom there is room for, and
// tells each its share.
func (t *traffic) lookLocked(now time.Time) {
	t.sending = slices.DeleteFunc(t.sending, func(one *turn) bool {
		info, ok := t.infoOf(one.m.conn)
		if ok {
			one.info = info
		}
		return !ok || one.body.read.Load() >= one.size && info.Unsent == 0
	})
	if len(t.sending)+len(t.waiting) == 0 {
		t.flow.pause(now)
		return
	}
	total := t.flowLocked(now)
	for len(t.waiting) > 0 {
		one := t.waiting[0]
		overdue := now.Sub(one.came) >= turnMoment+turnTrips*roundTrip(one.info)
		if len(t.sending) > 0 && total >= t.flow.allowed && !overdue {
			break
		}
		t.waiting = t.waiting[1:]
		t.sending = append(t.sending, one)
		one.begun = now
		one.hasten(t.flow.allowed/float64(len(t.sending)), now)
		total += one.rate()
		close(one.ready)
	}
	t.shareLocked(now)
	t.timer.Reset(max(leastLook, roundTrip(t.sending[0].info)/looksATrip))
}

// shareLocked tells each its share.
func (t *traffic) shareLocked(now time.Time) {
	if one := t.sending[0]; len(t.sending)+len(t.waiting) == 1 && one.renewed.IsZero() { // it remembers what it may have
		one.slow(math.Inf(1))
		return
	}
	uses := make([]float64, len(t.sending))
	for i, one := range t.sending {
		uses[i] = 2 * one.rate() // in the next round trip, at most
	}
	for i, share := range shares(t.flow.allowed, uses) {
		one := t.sending[i]
		if !t.flow.full && !one.info.Starting && one.renewals < mostRenewals && now.Sub(one.begun) > 2*roundTrip(one.info) {
			one.hasten(share, now)
		}
		one.slow(share)
	}
}

// shares divides a rate among those that can use so much each: what one cannot use is
// for the others. He is told all the same what he would have, as he may grow into it.
func shares(all float64, uses []float64) []float64 {
	order, divided := make([]int, len(uses)), make([]float64, len(uses))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(uses[a], uses[b]) })
	for n, i := range order {
		divided[i] = all / float64(len(order)-n)
		all -= min(divided[i], uses[i])
	}
	return divided
}

// flowLocked looks at how much may be sent, and returns how much those that send do.
func (t *traffic) flowLocked(now time.Time) (total float64) {
	if t.flow.idle(now) {
		t.flow.resume(t.seen(), now)
	}
	all, best := 0.0, 0.0
	for _, one := range append(slices.Clone(t.waiting), t.sending...) {
		all, best = all+one.remembers, max(best, one.remembers)
	}
	for _, one := range t.sending {
		total += one.rate()
	}
	t.flow.promise(all, best)
	if len(t.sending) == 0 || now.Sub(t.flow.since) < roundTrip(t.sending[0].info)*5/4 {
		return total
	}
	for _, one := range t.sending {
		if now.Sub(one.begun) >= roundTrip(one.info)*5/4 {
			t.hearLocked(one)
		}
	}
	t.flow.see(total, t.seen(), now)
	return total
}

// hearLocked notes how long the way is for one that has sent for a while. Who has heard
// nothing for long says nothing of it.
func (t *traffic) hearLocked(one *turn) {
	least := roundTrip(one.info)
	if one.info.SinceHeard > 2*one.info.RTT+turnMoment/4 {
		return
	}
	queued := max(queuedTime, time.Duration(queuedShare*float64(least)))
	t.flow.heard(one.info.RTT > least+queued+one.apart())
}

// apart is the time between two packets of a connection, for which its round trip is
// longer without any queue: the other end waits for a second packet before it
// acknowledges. Of one that is told to be slow that would look like a queue for ever.
func (one *turn) apart() time.Duration {
	seconds := float64(one.info.Segment) / max(1, one.rate())
	return min(mostApart, time.Duration(seconds*float64(time.Second)))
}

// rate is what the connection sends at now.
func (one *turn) rate() float64 { return min(one.info.Pacing, one.limit) }

// hasten has the connection begin anew where it would send much more slowly than it
// may, and its window holds more: what it remembers is what it had to send, or its
// share of a burst, and bbr would take many round trips to find out.
func (one *turn) hasten(share float64, now time.Time) {
	i := &one.info
	most := min(share, highGain*i.Anew, float64(i.SendBuffer)/roundTrip(*i).Seconds())
	if i.Anew == 0 || math.IsInf(share, 1) || i.Recovering || i.Window <= initialWindow || i.Rate > slowStart*most || now.Sub(one.renewed) < 2*roundTrip(*i) || !restart(one.m.conn) {
		return
	}
	one.renewed, i.Pacing = now, highGain*i.Anew
	one.renewals++
}

// slow tells the connection how fast it may send, where that has changed.
func (one *turn) slow(limit float64) {
	limit = max(limit, initialWindow/roundTrip(one.info).Seconds())
	if limit == one.limit || limit > 0.95*one.limit && limit < 1.05*one.limit {
		return
	}
	one.limit = limit
	limitRate(one.m.conn, limit)
}

const (
	// headroom is how much more is allowed than the link was seen to carry.
	headroom = 1.05
	// growth is how much more is allowed as long as the way does not get longer by that,
	// and retreat how much less, at most, once it does.
	growth  = 1.25
	retreat = 0.7
	// leastOfMost is which part of what was seen lately is allowed in any case, and
	// mostOfMost how much more of what connections remember together is believed.
	leastOfMost = 0.25
	mostOfMost  = 2.5
	// A queue before the link makes the way longer by more than this share of it, and
	// this time.
	queuedShare = 0.05
	queuedTime  = 3 * time.Millisecond
	// mostApart is how long an acknowledgement is put off at most, with Linux.
	mostApart = 40 * time.Millisecond
	// forgotten is how long nobody may have sent for what was seen of the link to hold.
	forgotten = time.Second
	// mostResent is the share of the packets that may be lost on a link with room.
	mostResent = 0.02
)

// flow is how much may be sent over the link in all, for as long as anything is. It is
// a plain value.
//
// What was known before may be too little, as where nobody had more to send, or too much
// by now. So it is looked once in a while, a little longer than a round trip: more is
// allowed as long as what is allowed is used and no queue shows, and what gets through
// once one does.
type flow struct {
	allowed float64   // bytes a second; infinite where nothing is known
	full    bool      // there was a queue, or much was lost, when that was looked at last
	met     bool      // a queue was seen at any time
	since   time.Time // when that was looked at last, or the beginning; zero: there was none
	seen    seen      // then
	first   bool      // nothing had arrived then
	paused  time.Time // since when nobody sends; zero: somebody does

	trips, longer int // that were heard of since then, and those of them that were longer by a queue
}

// seen is what was seen of all connections together.
type seen struct {
	most    float64 // that they delivered lately, in bytes a second; 0 where nothing is known
	arrived int64   // packets, ever
	resent  int64   // packets, ever
	segment int64   // bytes in one
}

// pause notes that nobody sends.
func (f *flow) pause(now time.Time) {
	if f.paused.IsZero() {
		f.paused = now
	}
}

// idle reports whether there was none, or nobody sent.
func (f *flow) idle(now time.Time) bool { return f.since.IsZero() || !f.paused.IsZero() }

// resume has one begin with what was seen before; or go on, unless nobody has sent for
// so long that it may be another by now.
func (f *flow) resume(s seen, now time.Time) {
	if f.since.IsZero() || now.Sub(f.paused) > forgotten {
		*f = flow{allowed: headroom * s.most}
		if s.most == 0 {
			f.allowed = math.Inf(1)
		}
	}
	f.since, f.seen, f.first, f.paused = now, s, true, time.Time{}
}

// promise notes what the connections remember that share it, together and the best of
// them. Several that had the link each for itself remember it several times.
func (f *flow) promise(all, best float64) {
	if !f.met {
		f.allowed = max(f.allowed, headroom*max(best, min(all, mostOfMost*f.seen.most)))
	}
}

// heard notes whether the way was longer by a queue for one that sends.
func (f *flow) heard(longer bool) {
	f.trips++
	if longer {
		f.longer++
	}
}

// see looks at it: how fast those that send do, and what was seen.
func (f *flow) see(total float64, s seen, now time.Time) {
	arrived, resent := float64((s.arrived-f.seen.arrived)*s.segment), float64((s.resent-f.seen.resent)*s.segment)
	rate := arrived / now.Sub(f.since).Seconds()
	if f.first {
		rate = s.most
	}
	queue, lossy := 2*f.longer > f.trips, resent > mostResent*arrived
	switch {
	case math.IsInf(f.allowed, 1):
		if queue || lossy {
			f.met, f.allowed = true, headroom*max(rate, s.most)
		}
	case queue:
		f.met, f.allowed = true, max(min(rate, f.allowed), retreat*f.allowed, leastOfMost*s.most)
	case !lossy && f.trips > 0 && total > slowStart*f.allowed:
		f.allowed *= growth
	}
	f.full = queue || lossy
	f.since, f.seen, f.first, f.trips, f.longer = now, s, false, 0, 0
}
