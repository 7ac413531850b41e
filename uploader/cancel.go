package uploader

import (
	"context"
	"errors"
	"time"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

// cancelTimeout is how long Cancel waits for the end of a push that runs.
const cancelTimeout = 20 * time.Second

// Cancel has a push not delivered, if that can still be had. A push that waits
// and of which nothing was ever sent is cancelled at once. One that runs is cut
// off, unless all of its object may have been sent: then the store's answer
// decides. If there is none, or was none to an earlier attempt, what the store
// shows when it is asked decides. Where the receipt says neither Cancelled nor
// Done, that is not known yet; the wish is not kept if the daemon stops before
// it is. A push that had ended before is an error, unless it was cancelled then.
func (u *Uploader) Cancel(ctx context.Context, id push.ID) (push.Receipt, error) {
	e, t, r, err := u.find(ctx, id)
	if err != nil {
		return push.Receipt{}, err
	}
	if e == nil {
		if r.State == push.Cancelled {
			return receiptOf(r), nil
		}
		return receiptOf(r), push.Errorf(push.PushEnded, "the push %s had ended before as %s: there is nothing to cancel", id, r.State)
	}
	u.beginCancel(e, t, r)
	t.await(ctx, cancelTimeout)
	left, final := u.standing(t)
	switch {
	case final == nil && left:
		return u.describe(r), errStays(r)
	case final == nil:
		return u.describe(r), nil
	case final.State == push.Failed:
		return receiptOf(final), push.Errorf(push.PushEnded, "the push %s failed before it could be cancelled, or whether it was delivered could not be found out: %s", id, final.Problem.Detail)
	}
	return receiptOf(final), nil
}

// standing returns whether the push stays in the journal, and its end.
func (u *Uploader) standing(t *task) (left bool, final *journal.Record) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return t.left, t.final
}

// beginCancel has a push cancelled, wherever it is.
func (u *Uploader) beginCancel(e *entry, t *task, r *journal.Record) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case t.final != nil, t.left, e.stage == ending: // it ends just now, or not any more
	case e.stage == started:
		t.cancelled = true // settle sees it, if its run ends before it hears of it
		t.cancel(errCancelled)
	default:
		u.cancelLocked(e, t, r)
	}
}

// cancelLocked cancels a push that has no place.
func (u *Uploader) cancelLocked(e *entry, t *task, r *journal.Record) {
	u.queue.end(e)
	u.closeFileLocked(t)
	switch {
	case t.earlier:
		u.ending++
		u.write(e, t, r, push.Failed, outcome{}, errEarlier(r))
	case !e.maybe:
		u.ending++
		u.write(e, t, r, push.Cancelled, outcome{}, errWasCancelled())
	default:
		u.idleLocked() // its run may have been the last
		go u.ask(e, t, r)
	}
}

// cancelWaiting cancels a push whose run has ended.
func (u *Uploader) cancelWaiting(e *entry, t *task, r *journal.Record) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cancelLocked(e, t, r)
}

// Retry puts a push back that failed or was cancelled, with the file as it is
// now. It is refused if a newer push to the same object was accepted since, and
// was not cancelled: the older file would overwrite the newer one, which even
// one that failed may have delivered.
func (u *Uploader) Retry(ctx context.Context, id push.ID) (push.Receipt, error) {
	e, _, r, err := u.find(ctx, id)
	if err != nil {
		return push.Receipt{}, err
	}
	if e != nil || r.State != push.Failed && r.State != push.Cancelled {
		return u.describe(r), push.Errorf(push.PushNotFailed, "the push %s is %s: only one that failed or was cancelled can be put back", id, u.describe(r).State)
	}
	dest, err := u.destinationOf(r)
	if err != nil {
		return receiptOf(r), err
	}
	if err := u.enter(); err != nil {
		return receiptOf(r), err
	}
	file, err := u.look(r.Request.File)
	if err != nil {
		u.exit()
		return receiptOf(r), err
	}
	identity := file.Identity()
	file.Close()
	return u.putBack(r, dest, func(again *journal.Record) {
		u.describeFile(again, identity)
	})
}

// putBack moves an ended push from the history into the queue.
func (u *Uploader) putBack(r *journal.Record, dest push.Destination, update func(*journal.Record)) (push.Receipt, error) {
	superseded := errSuperseded(dest, r.ID)
	object := u.objectHash(dest)
	u.mu.Lock()
	if _, twice := u.puttingBack[object]; twice {
		u.mu.Unlock()
		u.exit()
		return receiptOf(r), push.Errorf(push.PushNotFailed, "another push to %s is being put back just now: ask again", dest)
	}
	u.puttingBack[object] = false
	u.mu.Unlock()
	if newer, err := u.isSuperseded(r); err != nil || newer {
		u.mu.Lock()
		delete(u.puttingBack, object)
		u.mu.Unlock()
		u.exit()
		if err != nil {
			return receiptOf(r), unreadable(err)
		}
		return receiptOf(r), superseded
	}
	again := journal.Record{
		ID: r.ID, State: push.Queued, Request: r.Request, AcceptedAt: r.AcceptedAt, RetriedAt: time.Now().UTC(),
		IdempotencyKey: r.IdempotencyKey, RequestHash: r.RequestHash, Traceparent: r.Traceparent, FailedAttempts: r.FailedAttempts,
	}
	update(&again)
	e := u.entryOf(&again, dest)
	e.task, e.maybe = newTask(&again), true
	close(e.task.accepted)
	answer := make(chan error, 1)
	u.journal.Requeue(&again, func(err error) {
		if err == nil {
			u.logAccepted("push put back", &again)
		}
		u.mu.Lock()
		overtaken := u.puttingBack[object]
		delete(u.puttingBack, object)
		u.entering--
		if err == nil {
			u.enqueueLocked(e, again.Request.Label, dest.Bucket)
		}
		if overtaken && err == nil {
			u.queue.end(e)
			u.ending++
			u.write(e, u.taskLocked(e), &again, push.Failed, outcome{}, superseded)
			err = superseded
		}
		u.idleLocked()
		u.mu.Unlock()
		answer <- err
	})
	err := <-answer
	var known *push.Error
	switch {
	case err == nil:
		return u.describe(&again), nil
	case errors.As(err, &known):
		return receiptOf(r), known
	case errors.Is(err, journal.ErrNotEnded):
		return receiptOf(r), push.Errorf(push.PushNotFailed, "the push %s has been put back by somebody else, or has left the history", r.ID)
	}
	return receiptOf(r), unwritable(err)
}

// isSuperseded reports whether a push to the same object was accepted after
// this one and not cancelled.
func (u *Uploader) isSuperseded(r *journal.Record) (newer bool, err error) {
	err = u.journal.SinceWhere(r.ID, func(b *journal.Brief) bool {
		return b.State != push.Cancelled && string(b.Destination) == r.Request.Destination
	}, func(*journal.Record) bool {
		newer = true
		return false
	})
	return newer, err
}

// checkPutBackLocked ends a push that a killed process had put back, if it was
// superseded at that very moment, and the process did not live to say so.
func (u *Uploader) checkPutBackLocked(r *journal.Record) error {
	newer, err := u.isSuperseded(r)
	if err != nil || !newer {
		return err
	}
	dest, err := push.ParseDestination(r.Request.Destination)
	if err != nil {
		return err
	}
	e := u.queue.find(r.ID, u.objectHash(dest))
	u.queue.end(e)
	u.ending++
	u.write(e, u.taskLocked(e), r, push.Failed, outcome{}, errSuperseded(dest, r.ID))
	return nil
}

func errSuperseded(dest push.Destination, id push.ID) *push.Error {
	return push.Errorf(push.Superseded, "a newer push to %s was accepted after %s: the older file would overwrite it, so push the file again if that is meant", dest, id)
}
