package uploader

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

// settleTime is how long the memory may be behind the disk: a push is in the
// queue a moment after the commit that accepted it.
const settleTime = 5 * time.Millisecond

// find looks a push up. Its entry and task are nil if it has ended; an id that
// no push has is an error.
func (u *Uploader) find(ctx context.Context, id push.ID) (*entry, *task, *journal.Record, error) {
	for {
		r, err := u.read(id)
		if err != nil || r.State.Ended() {
			return nil, nil, r, err
		}
		dest, err := push.ParseDestination(r.Request.Destination)
		if err != nil {
			return nil, nil, nil, unreadable(err)
		}
		u.mu.Lock()
		if e := u.queue.find(id, u.objectHash(dest)); e != nil {
			t := u.taskLocked(e)
			u.mu.Unlock()
			return e, t, r, nil
		}
		u.mu.Unlock()
		select {
		case <-time.After(settleTime):
		case <-ctx.Done():
			return nil, nil, r, nil // he has left
		}
	}
}

// read returns the record of a push. An id that no push has is an error.
func (u *Uploader) read(id push.ID) (*journal.Record, error) {
	r, found, err := u.journal.Get(id)
	switch {
	case err != nil:
		return nil, unreadable(err)
	case !found:
		return nil, push.Errorf(push.PushNotFound, "no push has the id %s: it may have left the history, which S3DAEMON_HISTORY_AGE and S3DAEMON_HISTORY_COUNT bound", id)
	}
	return &r, nil
}

// stands returns how a push stands now. An id that no push has is an error.
func (u *Uploader) stands(id push.ID) (push.Receipt, error) {
	r, err := u.read(id)
	if err != nil {
		return push.Receipt{}, err
	}
	receipt := u.describe(r)
	if receipt.State != push.Queued || u.remembers(r) {
		return receipt, nil
	}
	// It has ended since it was read, unless it has just been accepted.
	if r, err = u.read(id); err == nil && r.State.Ended() {
		receipt = receiptOf(r)
	}
	return receipt, nil
}

// remembers reports whether the push of a record is in the queue by now, and not out of it
// yet.
func (u *Uploader) remembers(r *journal.Record) bool {
	dest, err := push.ParseDestination(r.Request.Destination)
	if err != nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.queue.find(r.ID, u.objectHash(dest)) != nil
}

// Get returns a push. With a wait that is not 0 it does so when the push has
// ended, the context has, or the time is over, whichever is first. That
// somebody asks does not change when the push has its turn, nor when it is
// given up.
func (u *Uploader) Get(ctx context.Context, id push.ID, wait time.Duration) (push.Receipt, error) {
	if wait == 0 {
		return u.stands(id)
	}
	_, t, r, err := u.find(ctx, id)
	if err != nil {
		return push.Receipt{}, err
	}
	if t == nil {
		return u.describe(r), nil
	}
	t.await(ctx, wait)
	u.mu.Lock()
	if t.final != nil {
		r = t.final
	}
	u.mu.Unlock()
	return u.describe(r), nil
}

// List returns a page of pushes, newest first. With a wait it is a barrier: it
// answers when no push with the filter's label (or none at all, without one)
// is queued or running, when the context has ended or the time is over;
// Pending tells which. If the daemon stops before, that is an error: who looks
// at no more than whether there is a page must not take the barrier for passed.
func (u *Uploader) List(ctx context.Context, f push.Filter, wait time.Duration) (push.Page, error) {
	pending, err := u.barrier(ctx, f.Label, wait)
	if err != nil {
		return push.Page{}, err
	}
	limit := f.Limit
	if limit == 0 {
		limit = push.DefaultPage
	}
	page := push.Page{Pushes: []push.Receipt{}, Pending: pending}
	more := false
	selects := selection(f)
	wanted := func(b *journal.Brief) bool { return ctx.Err() != nil || selects(b) } // any will do to end it once he has left
	err = u.journal.NewestWhere(f.Before, wanted, func(r *journal.Record) bool {
		if ctx.Err() != nil {
			return false
		}
		receipt := u.describe(r)
		if len(f.States) > 0 && !slices.Contains(f.States, receipt.State) {
			return true
		}
		if len(page.Pushes) == limit {
			more = true
			return false
		}
		page.Pushes = append(page.Pushes, inList(receipt))
		if len(page.Pushes)%listAtOnce == 0 {
			runtime.Gosched()
		}
		return true
	})
	if err != nil {
		return push.Page{}, unreadable(err)
	}
	if more {
		page.Next = page.Pushes[limit-1].ID
	}
	return page, nil
}

// inList is what a receipt has where there are many: its attempts that failed are
// told to who asks for the push alone.
func inList(receipt push.Receipt) push.Receipt {
	receipt.FailedAttempts = nil
	return receipt
}

// listAtOnce is how many pushes of a page are looked at before others have their
// turn, which the runtime itself would see to after 10 ms only.
const listAtOnce = 16

// selection returns what of a filter can be seen on disk: a push that runs is
// queued there.
func selection(f push.Filter) func(*journal.Brief) bool {
	finds := func(*journal.Brief) bool { return true }
	if f.Text != "" {
		finds = newTextSearch(f.Text).finds
	}
	return func(b *journal.Brief) bool {
		if f.Label != "" && f.Label != string(b.Label) {
			return false
		}
		stands := len(f.States) == 0 || slices.ContainsFunc(f.States, func(s push.State) bool {
			return s == b.State || !s.Ended() && !b.State.Ended()
		})
		return stands && finds(b)
	}
}

// barrier waits until nothing with the label is under way, and returns how much
// is.
func (u *Uploader) barrier(ctx context.Context, labelName string, wait time.Duration) (pending int, err error) {
	var over <-chan time.Time
	if wait >= 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		over = timer.C
	}
	for {
		u.mu.Lock()
		var quiet <-chan struct{}
		quiet, pending = u.quietLocked(labelName)
		stopping := u.left
		u.mu.Unlock()
		switch {
		case pending == 0 || wait == 0:
			return pending, nil
		case stopping:
			return pending, push.Errorf(push.ShuttingDown, "the daemon is shutting down, and pushes that you wait for stay in the journal: ask again once it has been started anew")
		}
		select {
		case <-quiet:
			return 0, nil
		case <-u.leaving:
		case <-ctx.Done():
			wait = 0 // what was counted is as old as the wait
		case <-over:
			wait = 0
		}
	}
}

// receiptOf returns what a record says.
func receiptOf(r *journal.Record) push.Receipt {
	receipt := push.Receipt{
		ID: r.ID.String(), State: r.State, File: r.Request.File, Destination: r.Request.Destination, Label: r.Request.Label, Traceparent: r.Traceparent,
		Size: r.Size, ETag: r.ETag, Checksum: r.Checksum, Verified: r.Verified, VersionID: r.VersionID, Attempts: r.Attempts, Parts: r.Parts,
		AcceptedAt: r.AcceptedAt, StartedAt: r.StartedAt, FinishedAt: r.FinishedAt, Problem: r.Problem,
		FailedAttempts: r.FailedAttempts,
	}
	if dest, err := push.ParseDestination(r.Request.Destination); err == nil { // which was checked when it was accepted
		receipt.Bucket, receipt.Key = dest.Bucket, dest.Key
	}
	end := r.FinishedAt
	if end.IsZero() {
		end = time.Now()
	}
	took := max(0, end.Sub(r.AcceptedAt))
	receipt.Seconds, receipt.Timing = took.Seconds(), timingOf(r.Spent, took)
	return receipt
}

// describe returns what a record says, and how far the push is by now.
func (u *Uploader) describe(r *journal.Record) push.Receipt {
	receipt := receiptOf(r)
	if r.State.Ended() {
		return receipt
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	e := u.live[r.ID]
	if e == nil {
		return receipt
	}
	t := e.task
	if t.record != nil { // which has the file that is sent, if another was accepted
		receipt = receiptOf(t.record)
	}
	receipt.Attempts, receipt.FailedAttempts = t.attempts, t.failed.after(receipt.FailedAttempts)
	if t.problem != nil {
		receipt.Problem = t.problem.Problem()
	}
	switch e.stage {
	case started, ending:
		receipt.State, receipt.StartedAt = push.Running, t.startedAt
		if d := t.delivery; d != nil {
			receipt.SentBytes = d.sent.bytes()
			receipt.Parts = cmp.Or(d.planned(), receipt.Parts)
			receipt.Attempts = max(1, t.attempts+d.mostAttempts())
		}
	case backoff:
		receipt.RetryAt = time.Unix(0, e.due).UTC()
	}
	if failure := u.away(); failure != nil && receipt.Problem == nil {
		receipt.Problem = failure.Problem()
	}
	return receipt
}
