package uploader

import (
	"math"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// queue decides which of the accepted pushes goes next. It is a plain value:
// no lock, no clock, no goroutine. There may be a million pushes in it, so an
// entry is small, and what is known of a push that nobody has looked at yet is
// on disk alone.
//
// Its rules:
//
//   - Pushes to one object go one at a time, in the order of their ids, which
//     is the order of acceptance. The first of such a chain stands for all: the
//     others follow when it has ended, however long it waits for another try.
//   - Small pushes (one part) and large ones have places of their own, so that
//     no number of large files keeps a small one from starting.
//   - A chain with a push in it that somebody waits for goes before all others,
//     but for every eighth start, which is the others'.
//   - Then by age. Pushes that failed before take at most half of the places
//     while there are others, so that no number of failing pushes holds up the
//     rest.
//   - A bucket whose requests failed several times in a row is on trial: one
//     push a second tries it, and the others are set aside, where they hold up
//     nobody. What has failed least often goes first there, so that keys that are
//     sick do not hide those that are not. One success brings them all back. See
//     trial.
//   - While nothing can be sent at all (paused), nothing starts.
type queue struct {
	places int // of each kind
	paused bool
	// jitter is the random part of pauses, which may begin for many daemons at the same
	// moment: all of it unless it is set.
	jitter func(time.Duration) time.Duration

	chains  map[uint64]*entry // the first push to each object, by the object's hash
	buckets map[string]*bucket
	onTrial map[*bucket]struct{}

	ready   [2][3]heap // by kind and lane; may have entries that have left meanwhile
	waiting heap       // entries that wait for another try, by due
	running [2]int     // places taken, by kind
	again   [2]int     // those of them that are taken by pushes that failed before
	starts  [2]int     // of chains somebody waits for, since one that nobody does
	size    int        // entries in all

	atWork   map[*entry]struct{} // those that have a place, and those whose end is being put on disk
	retrying int                 // those that wait for another try
	changes  changes
}

// stage is where an entry is.
type stage uint8

const (
	held    stage = iota // behind another push to its object
	ready                // in a lane
	aside                // ready, but its bucket is on trial
	backoff              // waits for another try
	started              // has a place
	ending               // its end is being put on disk
)

// entry is one push that has not ended.
type entry struct {
	id     push.ID
	object uint64 // hash of bucket and key; two objects of one hash wait for each other, which does no harm
	bucket *bucket
	label  *label
	next   *entry // the push to the same object that follows
	last   *entry // of the first of a chain: its last
	task   *task  // nil while nobody has looked at it
	due    int64  // in backoff: when it ends, in nanoseconds since the epoch
	since  int64  // when it was accepted or put back, in nanoseconds since the epoch

	wanted      int32 // callers who wait for it
	chainWanted int32 // of the first of a chain: callers who wait for any of it
	kind        kind
	stage       stage
	lane        uint8
	failures    uint8 // attempts that failed, or as many as there is room for
	chance      bool  // it tries a bucket on trial out of turn
	kept        bool  // it was promised to go on without anybody who waits
	maybe       bool  // an attempt, perhaps of an earlier process, ended so that the store may have the object
}

// waited reports whether a caller waits who is to be told when the push does
// not get on. One who came later, to a push that was promised to go on, does not
// end it.
func (e *entry) waited() bool { return e.wanted > 0 && !e.kept }

func newQueue(places int) queue {
	return queue{
		places: places, jitter: func(d time.Duration) time.Duration { return d }, chains: make(map[uint64]*entry), buckets: make(map[string]*bucket), onTrial: make(map[*bucket]struct{}), atWork: make(map[*entry]struct{}),
		waiting: heap{before: func(a, b *entry) bool { return a.due < b.due }},
	}
}

// add takes an entry in, with id, object, kind, label, since and wanted set.
// Entries of one object must come in the order of their ids.
func (q *queue) add(e *entry, bucketName string) {
	b := q.buckets[bucketName]
	if b == nil {
		b = &bucket{name: bucketName}
		q.buckets[bucketName] = b
	}
	b.entries++
	e.bucket = b
	e.kept = e.kept || e.wanted == 0
	q.size++
	q.changes.note(e.id)
	first := q.chains[e.object]
	switch {
	case first == nil:
		e.last, e.chainWanted = e, e.wanted
		q.chains[e.object] = e
		q.makeReady(e)
	default:
		first.last.next = e
		first.last = e
		q.want(first, e.wanted)
	}
}

// atWorkIDs returns the pushes that are under way, in no order.
func (q *queue) atWorkIDs() []push.ID {
	ids := make([]push.ID, 0, len(q.atWork))
	for e := range q.atWork {
		ids = append(ids, e.id)
	}
	return ids
}

// find returns the entry of that id and object, or nil.
func (q *queue) find(id push.ID, object uint64) *entry {
	for e := q.chains[object]; e != nil; e = e.next {
		if e.id == id {
			return e
		}
	}
	return nil
}

// setWanted adds n callers who wait for the push.
func (q *queue) setWanted(e *entry, n int32) {
	e.wanted += n
	e.kept = e.kept || e.wanted == 0
	q.want(q.chains[e.object], n)
}

// want adds n callers who wait for any push of the chain.
func (q *queue) want(first *entry, n int32) {
	before := first.chainWanted
	first.chainWanted += n
	switch {
	case (before == 0) == (first.chainWanted == 0):
	case first.stage == ready:
		q.makeReady(first)
	case first.stage == aside:
		first.bucket.trial.setAside(first)
	case first.stage == backoff && before == 0: // its backoff was that of a push nobody waits for
		q.hasten(func(e *entry) bool { return e == first })
	}
}

// makeReady puts the first of a chain into the lane that it belongs in.
func (q *queue) makeReady(e *entry) {
	q.endWait(e)
	e.stage, e.lane = ready, e.laneOf()
	q.ready[e.kind][e.lane].push(e)
}

// laneOf returns the lane that a ready entry belongs in.
func (e *entry) laneOf() uint8 {
	switch {
	case e.chainWanted > 0:
		return wanted
	case e.failures > 0:
		return failed
	}
	return fresh
}

// endWait notes that an entry does not wait for another try any more, if it did.
func (q *queue) endWait(e *entry) {
	if e.stage == backoff {
		q.retrying--
	}
}

// start gives an entry a place.
func (q *queue) start(e *entry) {
	e.stage, e.lane = started, noLane
	q.running[e.kind]++
	if t := e.bucket.trial; t != nil {
		t.tries[e] = struct{}{}
	}
	if e.failures > 0 {
		q.again[e.kind]++
	}
	q.atWork[e] = struct{}{}
	q.changes.note(e.id)
}

// stay takes the place of a push that does not go on while this process lives.
func (q *queue) stay(e *entry) {
	q.leave(e)
	e.stage, e.lane = held, noLane
	delete(q.atWork, e)
	q.changes.note(e.id)
}

// leave takes the place of an entry back.
func (q *queue) leave(e *entry) {
	q.running[e.kind]--
	q.endTry(e)
	if e.failures > 0 {
		q.again[e.kind]--
	}
}

// endTry notes that an entry does not try its bucket any more, if it did.
func (q *queue) endTry(e *entry) {
	e.chance = false
	if t := e.bucket.trial; t != nil {
		delete(t.tries, e)
	}
}

// retry takes the place of a push whose attempt failed, and has it wait until
// the time given for another.
func (q *queue) retry(e *entry, until time.Time) {
	q.leave(e)
	e.failures = min(e.failures, math.MaxUint8-1) + 1
	q.wait(e, until)
}

// postpone takes the place of a push that was not attempted, and has it wait until
// the time given.
func (q *queue) postpone(e *entry, until time.Time) {
	q.leave(e)
	q.wait(e, until)
}

func (q *queue) wait(e *entry, until time.Time) {
	e.stage, e.lane, e.due = backoff, noLane, until.UnixNano()
	q.waiting.push(e)
	q.retrying++
	delete(q.atWork, e)
	q.changes.note(e.id)
}

// end marks a push whose end is being put on disk, and takes its place if it
// has one. It cannot start any more, and what follows it cannot yet.
func (q *queue) end(e *entry) {
	switch e.stage {
	case started:
		q.leave(e)
	case ending:
	default: // whoever asks is told from now on that it is under way
		q.changes.note(e.id)
	}
	q.endTry(e)
	q.endWait(e)
	e.stage, e.lane = ending, noLane
	q.atWork[e] = struct{}{}
}

// remove takes out a push that has ended. What follows it is ready then.
func (q *queue) remove(e *entry) {
	q.size--
	delete(q.atWork, e)
	q.changes.note(e.id)
	first := q.chains[e.object]
	switch {
	case first != e:
		at := first
		for at.next != e {
			at = at.next
		}
		if at.next = e.next; at.next == nil {
			first.last = at
		}
		q.want(first, -e.wanted)
	case e.next == nil:
		delete(q.chains, e.object)
	default:
		n := e.next
		n.last, n.chainWanted = e.last, e.chainWanted-e.wanted
		q.chains[e.object] = n
		if n.stage == held { // not one that was cancelled while it waited behind
			q.makeReady(n)
		}
	}
	e.next, e.last = nil, nil
	if e.bucket.entries--; e.bucket.entries == 0 {
		q.acquit(e.bucket, time.Time{})
		delete(q.buckets, e.bucket.name)
	}
}

// expire makes ready what has waited long enough for another try, and reports
// whether there was any.
func (q *queue) expire(now time.Time) (any bool) {
	for q.waiting.len() > 0 {
		e := q.waiting.top()
		if e.stage == backoff && e.due > now.UnixNano() {
			break
		}
		q.waiting.pop()
		if e.stage == backoff {
			q.makeReady(e)
			any = true
		}
	}
	return any
}

// hasten makes ready those of the entries in backoff that the function is true
// of.
func (q *queue) hasten(which func(*entry) bool) {
	kept := q.waiting.entries[:0]
	var now []*entry
	for _, e := range q.waiting.entries {
		switch {
		case e.stage != backoff: // it has left
		case which(e):
			now = append(now, e)
		default:
			kept = append(kept, e)
		}
	}
	clear(q.waiting.entries[len(kept):])
	q.waiting.entries = kept
	q.waiting.restore()
	for _, e := range now {
		q.makeReady(e)
	}
}

// resume ends a pause. What waits for another try has it at once.
func (q *queue) resume() {
	q.paused = false
	q.hasten(func(*entry) bool { return true })
}

// wakeup returns when something that waits is due, or false where only a call
// of another method can change anything.
func (q *queue) wakeup() (time.Time, bool) {
	var at int64
	if q.waiting.len() > 0 {
		at = q.waiting.top().due
	}
	for b := range q.onTrial {
		if due := b.trial.due.UnixNano(); b.trial.waits() && (at == 0 || due < at) {
			at = due
		}
	}
	return time.Unix(0, at), at != 0
}
