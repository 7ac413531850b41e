package uploader

import (
	"context"
	"log/slog"
	"time"
)

// cutOffTimeout is for the ends of pushes that are cut off: what is under way
// breaks off, and each caller has an answer.
const cutOffTimeout = 3 * time.Second

// Close refuses pushes from now on; those accepted go on.
func (u *Uploader) Close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.draining = true
	u.endWarmUpLocked(errLeaving)
}

// Drain refuses new pushes and waits until those that run have ended, and with
// Config.DrainQueue those that are queued too, and a warm-up has cleared up. When the context ends first, what
// runs is cut off. Whatever has not ended stays in the journal; callers who wait
// for it are told so. Drain returns how many pushes stay.
//
// It does not wait for long for a push that will not end even then, because
// the journal cannot be written.
func (u *Uploader) Drain(ctx context.Context) (stay int) {
	u.Close()
	u.mu.Lock()
	u.idle = make(chan struct{})
	if deadline, limited := ctx.Deadline(); limited {
		u.cutOffAt.Store(&deadline)
	}
	if !u.drainQueue {
		u.leaveRestLocked()
	}
	idle := u.idle
	u.idleLocked()
	u.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}

	u.mu.Lock()
	u.leaveRestLocked()
	u.idleLocked()
	u.mu.Unlock()
	u.stop()
	select {
	case <-idle:
	case <-time.After(cutOffTimeout):
		u.log.Warn("some pushes do not end even though they were cut off: is the disk of the journal full?")
	}
	return u.shut()
}

// timeFor reports whether a request that takes so long would end before what runs
// is cut off. Where it would not, nothing is gained by its beginning: a file in
// parts goes on after the restart with those that have arrived.
func (u *Uploader) timeFor(request time.Duration) bool {
	at := u.cutOffAt.Load()
	return at == nil || time.Until(*at) > request
}

// leaveRestLocked has nothing start any more, and tells the callers of what has
// not started.
func (u *Uploader) leaveRestLocked() {
	if u.left {
		return
	}
	u.left, u.queue.paused = true, true
	close(u.leaving)
	for _, e := range u.live {
		if e.stage != started && e.stage != ending {
			u.leaveInJournalLocked(e)
		}
	}
}

// leaveInJournalLocked tells the callers of a push that it goes on another
// time.
func (u *Uploader) leaveInJournalLocked(e *entry) {
	if t := e.task; t != nil && !t.left {
		t.left = true
		u.closeFileLocked(t)
		close(t.ended)
	}
}

// leave is the end of a run that was cut off.
func (u *Uploader) leave(e *entry, t *task) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.queue.stay(e)
	u.leaveInJournalLocked(e)
	u.log.LogAttrs(context.Background(), slog.LevelWarn, "push cut off: it stays in the journal", e.aboutLocked()...)
	u.idleLocked()
}

// idleLocked tells Drain when there is nothing left to wait for. Whatever makes one of
// its terms fall calls it: else Drain takes all its time, with nothing under way.
func (u *Uploader) idleLocked() {
	underWay := u.entering + u.ending + u.queue.running[single] + u.queue.running[part]
	if u.idle == nil || u.warming != nil || underWay > 0 || !u.left && u.queue.size > 0 {
		return
	}
	select {
	case <-u.idle:
	default:
		close(u.idle)
	}
}

// shut ends the workers and tells those who still wait. It returns how many
// pushes have not ended.
func (u *Uploader) shut() int {
	u.mu.Lock()
	u.closed = true
	if u.timer != nil {
		u.timer.Stop()
	}
	stuck := u.queue.running[single]+u.queue.running[part] > 0
	for _, e := range u.live {
		u.leaveInJournalLocked(e)
	}
	stay := u.queue.size
	for _, c := range u.turn {
		c.Broadcast()
	}
	u.mu.Unlock()
	if !stuck {
		u.workers.Wait()
	}
	u.endpoint.asking.Wait()
	u.wire.Close()
	u.asker.Close()
	return stay
}
