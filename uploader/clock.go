package uploader

import (
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// blockedTick is how often those are looked at who wait for what does not move.
const blockedTick = time.Second

// armLocked sets the clock to the next moment at which something may happen by
// the passing of time alone.
func (u *Uploader) armLocked(now time.Time) {
	at, ok := u.queue.wakeup()
	blocked := u.queue.paused || len(u.queue.onTrial) > 0 || u.queue.waiting.len() > 0
	if tick := now.Add(blockedTick); blocked && (!ok || !at.After(now) || tick.Before(at)) {
		at, ok = tick, true
	}
	switch {
	case !ok || u.closed || u.left:
	case u.timer == nil:
		u.timer = time.AfterFunc(at.Sub(now), u.tick)
	default:
		u.timer.Reset(at.Sub(now))
	}
}

// tick is what the clock does.
func (u *Uploader) tick() {
	now := time.Now()
	u.mu.Lock()
	since, _, down := u.endpoint.down()
	if u.left || u.closed {
		u.mu.Unlock()
		return
	}
	u.queue.expire(now)
	overdue := append(u.impatientLocked(now, since, down), u.tooOldLocked(now, down)...)
	u.wakeLocked()
	u.armLocked(now)
	u.mu.Unlock()
	for _, o := range overdue {
		u.giveUp(o.e, o.t)
	}
}

// overdue is a push that is given up without another attempt.
type overdue struct {
	e *entry
	t *task
}

// impatientLocked takes the pushes out of the queue whose callers have waited
// for something that does not move for as long as their attempts would have
// taken.
func (u *Uploader) impatientLocked(now, downSince time.Time, down bool) (out []overdue) {
	if !down && len(u.queue.onTrial) == 0 && u.queue.waiting.len() == 0 {
		return nil
	}
	patience := u.retry.patience()
	for _, e := range u.live {
		t := e.task
		if !e.waited() || e.stage == ending {
			continue
		}
		since, blocked := u.blockedLocked(e, downSince, down)
		if !blocked || now.Sub(later(since, t.wantedSince)) < patience {
			continue
		}
		if e.stage == started {
			t.cancel(errImpatient)
			continue
		}
		if !down && e.stage == aside && t.attempts == 0 && now.Sub(later(since, t.wantedSince)) < patience+chanceWithin {
			u.queue.lastChance(e)
			continue
		}
		u.queue.end(e)
		out = append(out, overdue{e, t})
	}
	return out
}

// blockedLocked reports whether the push cannot get on, and since when.
func (u *Uploader) blockedLocked(e *entry, downSince time.Time, down bool) (time.Time, bool) {
	switch {
	case down:
		return downSince, true
	case e.stage == started:
		return time.Time{}, false
	case e.bucket.trial != nil:
		return e.bucket.trial.since, true
	case e.stage == held && (u.queue.chains[e.object].stage == backoff || u.queue.chains[e.object].stage == ending):
		return time.Time{}, true // behind one that fails, or of which nobody knows whether it was delivered
	}
	return time.Time{}, false
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// tooOldAtOnce bounds how many pushes are given up in one tick.
const tooOldAtOnce = 1000

// tooOldLocked takes the oldest pushes that nobody waits for out of the queue
// if they are older than a push may become. Others are looked at when their
// next attempt has failed; these may never have one.
func (u *Uploader) tooOldLocked(now time.Time, down bool) (out []overdue) {
	tooOld := func(e *entry) bool { return !e.waited() && now.Sub(time.Unix(0, e.since)) >= u.retry.giveUp }
	take := func(h *heap, in stage) {
		for h.len() > 0 && len(out) < tooOldAtOnce && (h.top().stage != in || tooOld(h.top())) {
			if e := h.pop(); e.stage == in {
				u.queue.end(e)
				out = append(out, overdue{e, u.taskLocked(e)})
			}
		}
	}
	search := func(h *heap, in stage) {
		for _, e := range h.entries {
			if len(out) < tooOldAtOnce && e.stage == in && tooOld(e) {
				u.queue.end(e)
				out = append(out, overdue{e, u.taskLocked(e)})
			}
		}
	}
	for k := range u.queue.ready {
		if down {
			take(&u.queue.ready[k][fresh], ready)
			take(&u.queue.ready[k][failed], ready)
		}
		for b := range u.queue.onTrial {
			take(&b.trial.aside[k][fresh], aside)
			search(&b.trial.aside[k][failed], aside) // which are not by age, and few: each has had a try
			search(&b.trial.aside[k][wanted], aside)
		}
	}
	return out
}

// giveUp ends a push that was taken out of the queue.
func (u *Uploader) giveUp(e *entry, t *task) {
	r, err := u.record(e, t)
	if err != nil { // which cannot be, short of a broken disk
		u.logUnreadable("a push cannot be given up: its record cannot be read; the next start takes it up", e, err)
		return
	}
	u.finish(e, t, r, push.Failed, outcome{}, u.unreachable(e, t))
}
