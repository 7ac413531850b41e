package journal

import (
	"runtime"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// A change is one thing to write.
type change struct {
	kind  kind
	id    push.ID
	key   string // an accepted push's idempotency key; what an upload or a part is under
	hash  [32]byte
	value []byte
	err   error       // why it is not to be, found out while it was applied
	undo  []byte      // of a requeue: what the history had
	done  func(error) // of what can be refused
	ended func()      // of all else
}

type kind uint8

const (
	accept kind = iota
	requeue
	end
	putUpload
	putPart
	dropUpload
	barrier
)

// refusable reports whether such a change is refused if it cannot be written.
// The others tell of what has happened, so they are kept until they can be.
func (k kind) refusable() bool { return k == accept || k == requeue }

// tell calls done or ended.
func (c *change) tell(err error) {
	if c.kind.refusable() {
		c.done(err)
	} else if c.ended != nil {
		c.ended()
	}
}

// Accept gives the record an id, which is later than every id that the journal
// has ever given, and queues it to be written.
//
// Once it is on disk, done(nil) is called. Before that nobody may be told that
// the push is accepted; after it the push survives kill -9 and the loss of
// power. If done gets an error, the push is not in the journal and never will
// be: where the disk has left it open whether it was written, the next
// transaction that succeeds takes it out again before it does anything else.
// If the idempotency key is taken, done gets a *DuplicateError, nothing is
// written and r.ID means nothing.
//
// done is called once, in the order of the ids, on the writer's goroutine (or
// at once with ErrClosed, after Close). It must be quick, and may not wait for
// the journal. The record may be changed as soon as Accept returns.
func (j *Journal) Accept(r *Record, done func(error)) {
	c := change{kind: accept, key: r.IdempotencyKey, hash: r.RequestHash, value: encode(r, push.Queued), done: done}
	now := j.cfg.now()
	j.mu.Lock()
	if j.closing {
		j.mu.Unlock()
		done(ErrClosed)
		return
	}
	// The order of the ids is the order of pending, and so that of the dones.
	r.ID = j.ids.next(now)
	c.id = r.ID
	seal(c.value, c.id[:])
	j.submitLocked(c)
}

// End moves a push from the queue to the history, with its end. done, which
// may be nil, is called on the writer's goroutine once that is on disk, however
// long that takes: on a full disk the end is kept in memory and tried again.
// Before done is called nobody may be told of the end. Ends are written in the
// order in which they are given. After Close, or if Close gives up, done is
// never called.
func (j *Journal) End(r *Record, done func()) {
	if !r.State.Ended() {
		panic("journal: the end of a push that is " + string(r.State))
	}
	c := change{kind: end, id: r.ID, value: encode(r, r.State), ended: done}
	seal(c.value, c.id[:])
	j.submit(c)
}

// Requeue moves an ended push back to the queue, under the same id. done is
// called as Accept calls it; it gets ErrNotEnded if the push is not in the
// history, or not any more.
func (j *Journal) Requeue(r *Record, done func(error)) {
	c := change{kind: requeue, id: r.ID, value: encode(r, push.Queued), done: done}
	seal(c.value, c.id[:])
	j.mu.Lock()
	if j.closing {
		j.mu.Unlock()
		done(ErrClosed)
		return
	}
	j.submitLocked(c)
}

// submit hands a change that cannot be refused to the writer, unless that has
// ended.
func (j *Journal) submit(c change) {
	j.mu.Lock()
	if j.closing {
		j.mu.Unlock()
		return
	}
	j.submitLocked(c)
}

// submitLocked hands a change to the writer, and unlocks.
func (j *Journal) submitLocked(c change) {
	j.pending = append(j.pending, c)
	j.mu.Unlock()
	j.wakeUp()
}

func (j *Journal) wakeUp() {
	select {
	case j.wake <- struct{}{}:
	default: // it is awake, and will see it
	}
}

// take returns what waits, and leaves spare in its place.
func (j *Journal) take(spare []change) (batch []change, closing bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	batch, j.pending = j.pending, spare
	return batch, j.closing
}

// How the writer behaves while nothing can be written.
const (
	retryAfter  = 250 * time.Millisecond // before the next transaction, at least
	retryFactor = 4                      // and this many times what the last one took
	retryMost   = 10 * time.Second
	closeWait   = 2 * time.Second // that Close waits for what cannot be refused
)

// spareMost is how many changes there is room for between two batches.
const spareMost = 4096

// run is the writer's goroutine: all that waits becomes one transaction, so
// that the more is asked for, the less each costs.
func (j *Journal) run() {
	defer close(j.stopped)
	w := &j.writer
	var spare []change
	for {
		// Whoever is about to submit something does so first.
		runtime.Gosched()
		batch, closing := j.take(spare)
		if len(batch) > 0 || w.overdue() {
			j.write(batch)
		}
		clear(batch) // so that it holds no values
		if spare = batch[:0]; cap(spare) > spareMost {
			spare = nil
		}
		switch {
		case closing:
			j.flush()
			return
		case len(batch) == 0:
			j.sleep()
		}
	}
}

// sleep returns when there may be something to do.
func (j *Journal) sleep() {
	if j.writer.failure == nil {
		<-j.wake
		return
	}
	timer := time.NewTimer(time.Until(j.writer.nextTry))
	defer timer.Stop()
	select {
	case <-j.wake:
	case <-timer.C:
	}
}

// flush tries to write what could not be written so far, for a while. All that
// was submitted before Close has been tried once.
func (j *Journal) flush() {
	for until := time.Now().Add(closeWait); j.writer.waits() && time.Now().Before(until); {
		time.Sleep(min(time.Until(j.writer.nextTry), time.Until(until)))
		j.write(nil)
	}
}
