package uploader

import (
	"cmp"
	"slices"
	"time"
)

const (
	// failuresForTrial is how many failures in a row put a bucket on trial; a
	// bucket that has just taken a push, twice as many as there are places.
	failuresForTrial = 5
	// trialInterval is between the end of one trial and the next.
	trialInterval = time.Second
	// trialPatience is how long a trial may take before there is another
	// beside it, since the first may have met a connection that hangs.
	trialPatience = 5 * time.Second
	// mostTrials is how many there may be of one bucket at once.
	mostTrials = 2
	// chanceWithin is how long one that is to be given up waits for its last
	// chance, where the tries before it hang.
	chanceWithin = 10 * time.Second
)

// bucket is what the queue knows of a bucket that has pushes in it.
type bucket struct {
	name     string
	entries  int
	failures int       // in a row
	trial    *trial    // nil while all is well
	hastened time.Time // when those that wait for another try had it at once, the last time
	sound    time.Time // when it was acquitted last
	problem  string    // the last failure that put it on trial, or kept it there, for people
}

// trial is the state of a bucket that takes nothing. Not every failure means
// that the whole store is away: a bucket may be over its quota, its shard may
// be down. The other buckets must not notice, and the store must not be asked
// for this one by every push that waits for it.
//
// Nor does it mean that the bucket is sick: some of its keys may be. So what
// somebody waits for tries it first, then what has failed least often, in turn an
// old one and a young one: sick pushes, of which there may be many that have not
// been tried yet, do not keep the sound ones from being tried, the first of which
// acquits the bucket.
type trial struct {
	since time.Time
	due   time.Time // of the next try
	// tries are those that have not ended. Those that hang must not take all the
	// places.
	tries  map[*entry]struct{}
	starts int             // of tries that somebody waits for, since one that nobody does
	late   bool            // a young one of those that nobody waits for is next
	aside  [2][noLane]heap // ready entries of the bucket, by kind and lane; may have entries that have left meanwhile
	last   [2]heap         // those of them that have a last chance; may have others
}

func newTrial(since time.Time) *trial {
	t := &trial{since: since, tries: make(map[*entry]struct{})}
	for k := range t.aside {
		for lane := range t.aside[k] {
			t.aside[k][lane].before = leastFailed
		}
	}
	return t
}

// leastFailed is the order within a lane of those set aside.
func leastFailed(a, b *entry) bool {
	if a.failures != b.failures {
		return a.failures < b.failures
	}
	return a.id.Compare(b.id) < 0
}

// waits reports whether there is anything to try the bucket with, and may be.
func (t *trial) waits() bool {
	if len(t.tries) >= mostTrials {
		return false
	}
	for k := range t.aside {
		for lane := range t.aside[k] {
			if t.aside[k][lane].len() > 0 {
				return true
			}
		}
	}
	return false
}

// setAside puts an entry that is ready where it waits for its try at the bucket.
func (t *trial) setAside(e *entry) {
	e.stage, e.lane = aside, e.laneOf()
	t.aside[e.kind][e.lane].push(e)
}

// choose takes the entry that is to try the bucket next. As with places, every
// eighth try is not for one that somebody waits for.
func (t *trial) choose(k kind) *entry {
	if t.starts < wantedInARow {
		if e := t.take(k, wanted); e != nil {
			t.starts++
			return e
		}
	}
	t.starts = 0
	if t.late = !t.late; !t.late {
		if e := t.takeLate(k); e != nil {
			return e
		}
	}
	for _, lane := range []uint8{fresh, failed, wanted} {
		if e := t.take(k, lane); e != nil {
			return e
		}
	}
	return nil
}

// takeLate takes one of the youngest that never failed: the last of a heap is
// among those.
func (t *trial) takeLate(k kind) *entry {
	for h := &t.aside[k][fresh]; h.len() > 0; {
		if e := h.popLast(); e.stage == aside && e.lane == fresh {
			return e
		}
	}
	return nil
}

func (t *trial) take(k kind, lane uint8) *entry {
	for h := &t.aside[k][lane]; h.len() > 0; {
		if e := h.pop(); e.stage == aside && e.lane == lane {
			return e
		}
	}
	return nil
}

// onTrial is a bucket on trial, for who wants to see it.
type onTrial struct {
	name    string
	since   time.Time
	problem string // its last failure
}

// trials returns the buckets on trial, those first that have been so for longest.
func (q *queue) trials() []onTrial {
	var all []onTrial
	for b := range q.onTrial {
		all = append(all, onTrial{b.name, b.trial.since, b.problem})
	}
	slices.SortFunc(all, func(a, b onTrial) int { return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.name, b.name)) })
	return all
}

// triesBucket takes the push that is to try a bucket that is on trial, if that
// is due.
func (q *queue) triesBucket(k kind, now time.Time) *entry {
	for b := range q.onTrial {
		if e := q.takeLastChance(b.trial, k); e != nil {
			return e
		}
		if b.trial.due.After(now) || len(b.trial.tries) >= mostTrials {
			continue
		}
		if e := b.trial.choose(k); e != nil {
			b.trial.due = now.Add(trialPatience)
			return e
		}
	}
	return nil
}

// lastChance has a push that was set aside try the bucket out of turn. It is for
// one that is to be given up else without ever having been tried.
func (q *queue) lastChance(e *entry) {
	if e.stage == aside && !e.chance {
		e.chance = true
		e.bucket.trial.last[e.kind].push(e)
	}
}

// takeLastChance takes the next of those, of which no more than a quarter of the
// places may be tried at once, in case they hang.
func (q *queue) takeLastChance(t *trial, k kind) *entry {
	for h := &t.last[k]; h.len() > 0 && len(t.tries) < max(mostTrials, q.places/4); {
		if e := h.pop(); e.stage == aside && e.chance {
			return e
		}
	}
	return nil
}

// failure notes that a push to the bucket failed for a reason that may pass,
// and that the store asked to be left alone for a while, if it did.
func (q *queue) failure(b *bucket, now time.Time, pause time.Duration) {
	enough := failuresForTrial
	if !b.sound.IsZero() && now.Sub(b.sound) < trialInterval { // some keys are sick, it seems, and others sound
		enough = max(enough, 2*q.places)
	}
	if b.failures++; b.failures < enough {
		return
	}
	wait := trialInterval
	if b.trial == nil {
		b.trial = newTrial(now)
		q.onTrial[b] = struct{}{}
		wait = q.jitter(trialInterval)
	}
	if pause > 0 {
		wait = max(wait, pause+q.jitter(backoffBase))
	}
	due := now.Add(wait)
	if pause == 0 && b.trial.due.After(now) && b.trial.due.Before(due) {
		return // what fails out of turn does not put the next try off
	}
	b.trial.due = due
}

// untried notes that a push ended without the bucket having been asked: the next
// one may try it at once.
func (q *queue) untried(b *bucket, now time.Time) {
	if b.trial != nil && b.trial.due.After(now) {
		b.trial.due = now
	}
}

// acquit notes that the bucket takes pushes, and brings back those that were
// set aside; and those that wait for another try at it, but not again and again:
// where some keys are sick and others sound, the sick would be tried as often as
// the sound ones succeed.
func (q *queue) acquit(b *bucket, now time.Time) {
	b.failures, b.sound = 0, now
	t := b.trial
	if t == nil {
		return
	}
	b.trial = nil
	delete(q.onTrial, b)
	for k := range t.aside {
		for lane := range t.aside[k] {
			for _, e := range t.aside[k][lane].entries {
				if e.stage == aside {
					q.makeReady(e)
				}
			}
		}
	}
	if !b.hastened.IsZero() && now.Sub(b.hastened) < patientCap { // they have their try within that time anyway
		return
	}
	b.hastened = now
	q.hasten(func(e *entry) bool { return e.bucket == b })
}
