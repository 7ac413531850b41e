package uploader

import (
	"context"
	"sync"
)

// kind tells the requests that carry a part of a large file from all others:
// whole small files, and the short requests around a multipart upload.
type kind uint8

const (
	single kind = iota
	part
)

// slots is the pool's gate: a slot is the right to have one request with the
// store. Who gets the next one is slotQueue's decision.
type slots struct {
	mu    sync.Mutex
	queue slotQueue // guarded by mu, as all below
	lent  int       // those of the singles' that are borrowed
}

func newSlots(limit int) *slots { return &slots{queue: newSlotQueue(limit)} }

// acquire waits for a slot for a request of the push that the turn belongs to.
// It fails only with the context's error, and then holds nothing.
func (s *slots) acquire(ctx context.Context, who *turn, k kind) error {
	t := &ticket{who: who, kind: k, granted: make(chan struct{})}
	s.mu.Lock()
	s.queue.add(t)
	s.grantLocked()
	s.mu.Unlock()

	select {
	case <-t.granted:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.queue.remove(t) { // it was granted meanwhile
		s.queue.done(t.who, t.kind)
		s.grantLocked()
	}
	return ctx.Err()
}

// release gives back a slot that acquire gave for the same turn and kind.
func (s *slots) release(who *turn, k kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.done(who, k)
	s.grantLocked()
}

// inUse returns how many slots are held.
func (s *slots) inUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.singles + s.queue.parts
}

// room returns how many more parts would have a slot at once, or in a moment, once
// what is borrowed has been given back.
func (s *slots) room() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := &s.queue
	wanted := q.singles + q.parts + len(q.waiting[single]) + len(q.waiting[part]) - s.lent
	return max(0, q.limit-q.reserved-wanted)
}

// borrow takes a slot that nobody waits for, if there is one, for what can wait.
func (s *slots) borrow() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := &s.queue
	if q.singles+q.parts >= q.limit || len(q.waiting[single])+len(q.waiting[part]) > 0 {
		return false
	}
	q.singles++
	s.lent++
	return true
}

// giveBack gives back a slot that was borrowed.
func (s *slots) giveBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lent--
	s.queue.done(nil, single)
	s.grantLocked()
}

func (s *slots) grantLocked() {
	for t := s.queue.next(); t != nil; t = s.queue.next() {
		close(t.granted)
	}
}

// turn is one push's standing among those that wait for slots for parts. Its
// fields belong to the slotQueue.
type turn struct {
	held int    // slots that its parts hold
	last uint64 // when one of its parts was last granted a slot; 0 is never
}

// ticket is one request that waits for a slot.
type ticket struct {
	who     *turn
	kind    kind
	granted chan struct{} // closed when it has its slot
}

// slotQueue decides which waiting request goes next. It is a plain value: no
// lock, no clock, no goroutine. Its rules, for a pool of limit slots:
//
//   - Parts never hold the last eighth of the slots (at least one), so a small
//     file waits for small ones only, however many large ones are under way:
//     a part may take minutes.
//   - Parts always have that many, so small files in an endless stream do not
//     stop the large ones either.
//   - Between these bounds a waiting single goes before a waiting part.
//   - Singles go in order of arrival. Among parts, the push with the fewest
//     slots goes first, then the one that has waited longest since its last:
//     large files share evenly, whatever their sizes.
//   - A pool of one slot alternates by arrival.
type slotQueue struct {
	limit    int // slots in all
	reserved int // kept from parts, and guaranteed to them
	singles  int // slots held by singles
	parts    int // slots held by parts
	clock    uint64
	waiting  [2][]*waiter // by kind, in order of arrival
}

type waiter struct {
	*ticket
	arrived uint64
}

func newSlotQueue(limit int) slotQueue {
	q := slotQueue{limit: limit}
	if limit > 1 {
		q.reserved = max(1, limit/8)
	}
	return q
}

func (q *slotQueue) add(t *ticket) {
	q.clock++
	q.waiting[t.kind] = append(q.waiting[t.kind], &waiter{t, q.clock})
}

// remove takes a ticket that has not been granted out again, and reports
// whether it was still there.
func (q *slotQueue) remove(t *ticket) bool {
	for i, w := range q.waiting[t.kind] {
		if w.ticket == t {
			q.take(t.kind, i)
			return true
		}
	}
	return false
}

// next grants a slot to the request whose turn it is and returns its ticket,
// or nil if none may go now.
func (q *slotQueue) next() *ticket {
	if q.singles+q.parts >= q.limit {
		return nil
	}
	singleWaits := len(q.waiting[single]) > 0
	partWaits := len(q.waiting[part]) > 0 && q.parts < q.limit-q.reserved

	switch {
	case singleWaits && partWaits && q.reserved == 0:
		singleWaits = q.waiting[single][0].arrived < q.waiting[part][0].arrived
	case singleWaits && partWaits && q.parts < q.reserved:
		singleWaits = false
	}
	switch {
	case singleWaits:
		q.singles++
		return q.take(single, 0)
	case partWaits:
		t := q.take(part, q.fairest())
		q.parts++
		q.clock++
		t.who.held++
		t.who.last = q.clock
		return t
	}
	return nil
}

// done takes a granted slot back.
func (q *slotQueue) done(who *turn, k kind) {
	if k == single {
		q.singles--
		return
	}
	q.parts--
	who.held--
}

// fairest returns the index of the waiting part that goes first.
func (q *slotQueue) fairest() int {
	best := 0
	for i, w := range q.waiting[part] {
		b := q.waiting[part][best].who
		if w.who.held < b.held || w.who.held == b.held && w.who.last < b.last {
			best = i
		}
	}
	return best
}

// take removes the i-th waiting ticket of a kind. Nothing keeps a reference to
// what has left.
func (q *slotQueue) take(k kind, i int) *ticket {
	w := q.waiting[k]
	t := w[i].ticket
	copy(w[i:], w[i+1:])
	w[len(w)-1] = nil
	q.waiting[k] = w[:len(w)-1]
	return t
}
