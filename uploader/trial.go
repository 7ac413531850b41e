package uploader

import "time"

const (
	// failuresForTrial is how many failures in a row put a bucket on trial.
	failuresForTrial = 5
	// trialInterval is between the end of one trial and the next.
	trialInterval = time.Second
	// trialPatience is how long a trial may take before there is another
	// beside it, since the first may have met a connection that hangs.
	trialPatience = 5 * time.Second
	// mostTrials is how many there may be of one bucket at once.
	mostTrials = 2
)

// bucket is what the queue knows of a bucket that has pushes in it.
type bucket struct {
	name     string
	entries  int
	failures int    // in a row
	trial    *trial // nil while all is well
}

// trial is the state of a bucket that takes nothing. Not every failure means
// that the whole store is away: a bucket may be over its quota, its shard may
// be down. The other buckets must not notice, and the store must not be asked
// for this one by every push that waits for it.
type trial struct {
	since time.Time
	due   time.Time // of the next try
	// tries are those that have not ended. Those that hang must not take all the
	// places.
	tries map[*entry]struct{}
	aside [2]heap // ready entries of the bucket, by kind; may have entries that have left meanwhile
}

// waits reports whether there is anything to try the bucket with, and may be.
func (t *trial) waits() bool {
	return len(t.tries) < mostTrials && t.aside[single].len()+t.aside[part].len() > 0
}

func (t *trial) setAside(e *entry) {
	e.stage = aside
	t.aside[e.kind].push(e)
}

// triesBucket takes the push that is to try a bucket that is on trial, if that
// is due.
func (q *queue) triesBucket(k kind, now time.Time) *entry {
	for b := range q.onTrial {
		if b.trial.due.After(now) || len(b.trial.tries) >= mostTrials {
			continue
		}
		h := &b.trial.aside[k]
		for h.len() > 0 {
			if e := h.pop(); e.stage == aside {
				b.trial.due = now.Add(trialPatience)
				b.trial.tries[e] = struct{}{}
				return e
			}
		}
	}
	return nil
}

// failure notes that a push to the bucket failed for a reason that may pass,
// and that the store asked to be left alone for a while, if it did.
func (q *queue) failure(b *bucket, now time.Time, pause time.Duration) {
	if b.failures++; b.failures < failuresForTrial {
		return
	}
	if b.trial == nil {
		b.trial = &trial{since: now, tries: make(map[*entry]struct{})}
		q.onTrial[b] = struct{}{}
	}
	b.trial.due = now.Add(max(trialInterval, pause))
}

// untried notes that a push ended without the bucket having been asked: the next
// one may try it at once.
func (q *queue) untried(b *bucket, now time.Time) {
	if b.trial != nil && b.trial.due.After(now) {
		b.trial.due = now
	}
}

// acquit notes that the bucket takes pushes, and brings back those that were
// set aside or wait for another try at it.
func (q *queue) acquit(b *bucket) {
	b.failures = 0
	t := b.trial
	if t == nil {
		return
	}
	b.trial = nil
	delete(q.onTrial, b)
	for k := range t.aside {
		for _, e := range t.aside[k].entries {
			if e.stage == aside {
				q.makeReady(e)
			}
		}
	}
	q.hasten(func(e *entry) bool { return e.bucket == b })
}
