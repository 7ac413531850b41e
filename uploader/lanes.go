package uploader

import "time"

// lanes of ready chains.
const (
	wanted = iota // somebody waits
	fresh         // first try
	failed        // another try
	noLane
)

// wantedInARow is after how many starts for somebody who waits one is given to
// those that nobody waits for.
const wantedInARow = 7

// next gives a place of that kind to the push whose turn it is, or returns nil
// if none may start now.
func (q *queue) next(k kind, now time.Time) *entry {
	if q.paused || q.running[k] >= q.places {
		return nil
	}
	if len(q.onTrial) > 0 { // what has come since is set aside, and has its turn among the others there
		for lane := range uint8(noLane) {
			q.peek(k, lane)
		}
	}
	e := q.triesBucket(k, now)
	if e == nil {
		e = q.choose(k)
	}
	if e != nil {
		q.start(e)
	}
	return e
}

// choose takes the next entry out of the lanes.
func (q *queue) choose(k kind) *entry {
	if q.starts[k] < wantedInARow {
		if e := q.take(k, wanted); e != nil {
			q.starts[k]++
			return e
		}
	}
	q.starts[k] = 0
	if e := q.byAge(k); e != nil {
		return e
	}
	if e := q.take(k, wanted); e != nil {
		q.starts[k] = 1
		return e
	}
	return nil
}

// byAge takes the oldest of those that nobody waits for.
func (q *queue) byAge(k kind) *entry {
	first, retried := q.peek(k, fresh), q.peek(k, failed)
	switch {
	case first == nil:
		return q.take(k, failed)
	case retried == nil || q.again[k] >= (q.places+1)/2 || first.id.Compare(retried.id) < 0:
		return q.take(k, fresh)
	}
	return q.take(k, failed)
}

// peek returns the entry that take would. It sets aside those whose bucket is
// on trial, and forgets those that are not in the lane any more.
func (q *queue) peek(k kind, lane uint8) *entry {
	h := &q.ready[k][lane]
	for h.len() > 0 {
		e := h.top()
		switch {
		case e.stage != ready || e.lane != lane:
			h.pop()
		case e.bucket.trial != nil:
			h.pop()
			e.bucket.trial.setAside(e)
		default:
			return e
		}
	}
	return nil
}

// oldestInTurn returns the oldest push that waits for its turn alone, and has not been
// tried; nil where there is none.
func (q *queue) oldestInTurn() (oldest *entry) {
	for k := range q.ready {
		for lane := range uint8(noLane) {
			e := q.peek(kind(k), lane)
			if e != nil && e.failures == 0 && (oldest == nil || e.id.Compare(oldest.id) < 0) {
				oldest = e
			}
		}
	}
	return oldest
}

func (q *queue) take(k kind, lane uint8) *entry {
	e := q.peek(k, lane)
	if e != nil {
		q.ready[k][lane].pop()
	}
	return e
}

// mayStart reports whether there may be another push of that kind to start.
func (q *queue) mayStart(k kind) bool {
	if q.paused || q.running[k] >= q.places {
		return false
	}
	for lane := range q.ready[k] {
		if q.ready[k][lane].len() > 0 {
			return true
		}
	}
	return len(q.onTrial) > 0
}
