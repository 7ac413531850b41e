package uploader

import (
	"context"
	"sync"
	"time"
)

// pace decides how many parts of one file are under way at once. What is under
// way when the daemon is killed is sent again, so it is to be little; but a link
// that is long and fat is filled by many only. So there are as many at first as the link is
// known to need, or few, and more as long as they do not get slower by that: as
// fast as few means that the link has room.
//
// It is a plain value: no lock, no clock.
type pace struct {
	room     int // parts that may be under way
	most     int // that room may grow to
	underway map[int32]pacedPart
	slowest  time.Duration // that a part took which has ended

	ended   int     // parts
	forgets int     // at how many of them another time begins, and all but this one is forgotten
	fastest float64 // bytes a second of the fastest part in this time
	before  float64 // and in the one before
}

// pacedPart is a part that is under way.
type pacedPart struct {
	since time.Time // it has had its slot; zero: it has none yet
	room  int       // there was when it began
}

const (
	firstParts = 4    // go at once at first, at least
	keepsUp    = 0.75 // of the speed of the fastest part is fast enough for one more
	// firstForgets is how many parts may tell what the link was like at first. Some
	// let through more for a moment, and no part is ever as fast again. The next
	// times are longer: by what is forgotten a link that is really full is tried
	// again, and the parts that are under way in vain are to stay few beside those
	// that have arrived.
	firstForgets = 16
	forgetsLess  = 3 // times as many parts are to have ended the next time
)

// newPace has that many parts begin, and more up to the most.
func newPace(first, most int) pace {
	return pace{room: min(first, most), most: most, underway: make(map[int32]pacedPart), forgets: firstForgets}
}

// mayBegin reports whether another part may begin.
func (p *pace) mayBegin() bool { return len(p.underway) < p.room }

// begin counts the part of that number among those under way.
func (p *pace) begin(number int32) { p.underway[number] = pacedPart{room: p.room} }

// sending notes that a part that has begun is sent from now on, perhaps again.
func (p *pace) sending(number int32, now time.Time) {
	one := p.underway[number]
	one.since = now
	p.underway[number] = one
}

// end notes that the store has the part, which had that many bytes. What it took
// beside as many others as could go then says how many may go: a quarter more.
func (p *pace) end(number int32, size int64, now time.Time) {
	one := p.underway[number]
	delete(p.underway, number)
	took := max(now.Sub(one.since), time.Microsecond)
	speed := float64(size) / took.Seconds()
	p.fastest, p.slowest = max(p.fastest, speed), max(p.slowest, took)
	if speed >= keepsUp*max(p.fastest, p.before) {
		p.room = max(p.room, min(p.room+1, one.room+max(1, one.room/4), p.most))
	}
	if p.ended++; p.ended == p.forgets {
		p.before, p.fastest, p.forgets = p.fastest, 0, forgetsLess*p.forgets
	}
}

// give takes a part back that was not sent.
func (p *pace) give(number int32) { delete(p.underway, number) }

// longest is how long a part takes, as far as is known: as the slowest that has
// ended, or that is under way still.
func (p *pace) longest(now time.Time) time.Duration {
	longest := p.slowest
	for _, one := range p.underway {
		if !one.since.IsZero() {
			longest = max(longest, now.Sub(one.since))
		}
	}
	return longest
}

// pacer holds the parts of one file to its pace. Once one has failed no other
// begins.
type pacer struct {
	mu     sync.Mutex
	pace   pace          // guarded by mu
	failed error         // guarded by mu: why nothing begins any more
	moved  chan struct{} // guarded by mu: closed when one of these has changed
}

func newPacer(first, most int) *pacer {
	return &pacer{pace: newPace(first, most), moved: make(chan struct{})}
}

// enter waits until the part may begin.
func (p *pacer) enter(ctx context.Context, number int32) error {
	for {
		p.mu.Lock()
		moved, failed := p.moved, p.failed
		if failed == nil && p.pace.mayBegin() {
			p.pace.begin(number)
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		if failed != nil {
			return failed
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sending notes that the part has its slot, and returns how long one takes.
func (p *pacer) sending(number int32) (longest time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	longest = p.pace.longest(now)
	p.pace.sending(number, now)
	return longest
}

// leave is the end of a part of that many bytes that has entered.
func (p *pacer) leave(number int32, size int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.failed = err
		p.pace.give(number)
	} else {
		p.pace.end(number, size, time.Now())
	}
	close(p.moved)
	p.moved = make(chan struct{})
}
