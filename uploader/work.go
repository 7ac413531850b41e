package uploader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

// What ends a run of a push, beside its own failure.
var (
	errCancelled = errors.New("the push was cancelled")
	errImpatient = errors.New("its caller has waited long enough")
)

// work is a worker: it runs pushes of one kind, one after the other, until the
// uploader is closed. There is one for each place.
func (u *Uploader) work(k kind) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for {
		now := time.Now()
		if u.queue.expire(now) {
			u.wakeLocked() // it may be of the other kind
		}
		e := u.queue.next(k, now)
		switch {
		case u.closed:
			return
		case e == nil:
			u.armLocked(now)
			u.turn[k].Wait()
			continue
		}
		u.endWarmUpLocked(errPushesFirst)
		t := u.taskLocked(e)
		t.startedAt = now.UTC()
		ctx, cancel := context.WithCancelCause(u.stopped)
		t.cancel = cancel
		if u.queue.mayStart(k) {
			u.turn[k].Signal()
		}
		u.mu.Unlock()
		u.settle(e, t, u.run(ctx, e, t))
		cancel(nil)
		u.mu.Lock()
	}
}

// result is what came of one run of a push.
type result struct {
	got          outcome
	err          error
	cause        error // why the run was ended, if it was
	attempts     int
	differed     int       // times that the store had, or had got, other bytes
	stored       bool      // the store said that it has the object
	maybe        bool      // an attempt ended so that the store may have the object
	unclearSince time.Time // see delivery
	asked        bool      // and it was asked for it
	unclear      bool      // in vain
	inParts      bool      // it may have left an upload
	useless      time.Time // when the upload was begun that cannot be completed
	doubt        doubt
}

// run delivers a push, once.
func (u *Uploader) run(ctx context.Context, e *entry, t *task) result {
	r, err := u.record(e, t)
	if err != nil {
		return result{err: err}
	}
	d, same, err := u.newDelivery(ctx, r, t)
	if err != nil {
		return result{err: err}
	}
	defer d.file.Close()
	d.maybeBefore = e.maybe
	d.begun = t.inParts || e.maybe && d.file.Size() >= 2*u.plan.split
	if !same {
		if err := u.adopt(e, t, r, d.file.Identity()); err != nil {
			return result{err: err}
		}
	}
	got, err := d.run(ctx)
	err = u.mayBeChanged(err)
	res := result{got: got, err: err, attempts: d.mostAttempts(), differed: int(d.mismatches.Load()), stored: d.stored, maybe: d.maybe || d.stored && err != nil, unclearSince: d.unclearSince, useless: d.useless, doubt: d.doubt, inParts: d.partSize > 0}
	if errors.Is(err, errAtIt) { // that was none
		res.attempts = 0
	}
	if ctx.Err() != nil {
		res.cause = context.Cause(ctx)
	}
	if errors.Is(res.cause, errCancelled) && err != nil && !d.stored && (d.maybe || e.maybe) && u.stopped.Err() == nil {
		res.asked = true
		res.got, res.err, res.unclear = d.lookUp(err)
	}
	return res
}

// record returns the record of a push that has its turn.
func (u *Uploader) record(e *entry, t *task) (*journal.Record, error) {
	u.mu.Lock()
	r := t.record
	u.mu.Unlock()
	if r != nil {
		return r, nil
	}
	kept, found, err := u.journal.Get(e.id)
	if err == nil && !found {
		err = errors.New("it is not in the journal")
	}
	if err != nil {
		return nil, &push.Error{Code: push.Internal, Err: err, Detail: "the daemon cannot read its record of the push: its log has the cause"}
	}
	u.mu.Lock()
	t.record = &kept
	u.mu.Unlock()
	return &kept, nil
}

// destinationOf returns where a push of the journal goes, which may have been
// accepted when other places were allowed than now.
func (u *Uploader) destinationOf(r *journal.Record) (push.Destination, error) {
	dest, err := push.ParseDestination(r.Request.Destination)
	if err == nil {
		err = u.checkPlace(dest)
	}
	return dest, err
}

// newDelivery opens the file of a push, and reports whether it is the file of
// the record, as it was.
func (u *Uploader) newDelivery(ctx context.Context, r *journal.Record, t *task) (d *delivery, same bool, err error) {
	dest, err := u.destinationOf(r)
	if err != nil {
		return nil, false, err
	}
	d = &delivery{up: u, id: r.ID, req: r.Request, dest: dest, retriedAt: r.RetriedAt, clock: &t.clock, traceparent: r.Traceparent, failed: &t.failed}
	u.mu.Lock()
	t.inParts = t.inParts || r.Parts > 1
	d.madeBefore = u.lately[u.objectHash(dest)]
	t.delivery, d.file, d.before, d.unclearSince, d.useless, d.doubt = d, u.takeFileLocked(t), t.attempts, t.unclearSince, t.useless, t.doubt
	u.mu.Unlock()
	if d.file != nil {
		return d, true, nil
	}
	if d.file, err = d.up.files.Open(ctx, r.Request.File); err != nil {
		return nil, false, err
	}
	return d, d.file.Identity().Same(identityOf(r)), nil
}

// settle decides what follows a run: the end, another try, or, when the daemon
// stops, nothing until it is started again.
func (u *Uploader) settle(e *entry, t *task, res result) {
	u.mu.Lock()
	t.delivery = nil
	awaits, putOff := errors.AsType[*awaitsError](res.err)
	if putOff {
		res.attempts = 0 // a question may have gone before
	}
	if ofFile(res.err) {
		res.attempts = max(res.attempts, 1) // it may have ended before there was a request
	}
	t.attempts += res.attempts
	t.differed += res.differed
	t.inParts = t.inParts || res.inParts
	if !res.unclearSince.IsZero() {
		t.unclearSince = res.unclearSince
	}
	if res.useless.After(t.useless) {
		t.useless = res.useless
	}
	if !res.doubt.begun.IsZero() {
		t.doubt = res.doubt
	}
	e.maybe = e.maybe || res.maybe
	if known, is := asFileError(res.err); is && res.stored && known.Code == push.FileChanged {
		t.earlier = true
	}
	attempts, differed, cancelled, waited, r, maybe, earlier := t.attempts, t.differed, t.cancelled, e.waited(), t.record, e.maybe, t.earlier
	u.mu.Unlock()
	now := time.Now()

	switch {
	case r == nil:
		u.logUnreadable("a push cannot go on: its record cannot be read", e, res.err)
		u.again(e, t, res.err, now.Add(patientCap))
	case res.err == nil:
		u.finish(e, t, r, push.Done, res.got, nil)
	case cancelled && earlier:
		u.finish(e, t, r, push.Failed, outcome{}, errEarlier(r))
	case cancelled && !res.stored && !res.unclear && (res.asked || !maybe):
		u.finish(e, t, r, push.Cancelled, outcome{}, errWasCancelled())
	case errors.Is(res.err, errLeaving):
		u.leave(e, t)
	case u.stopped.Err() != nil && (errors.Is(res.err, context.Canceled) || transient(res.err)):
		u.leave(e, t)
	case cancelled && res.unclear:
		u.finish(e, t, r, push.Failed, outcome{}, errMayBeThere(res.err))
	case cancelled && !res.stored:
		u.cancelWaiting(e, t, r)
	case cancelled: // too late, and the object is not the file
		t.noteRun(res.err, now)
		u.finish(e, t, r, push.Failed, outcome{}, u.explain(r.Request.Destination, attempts, res.err))
	case errors.Is(res.cause, errImpatient):
		why := u.unreachable(e, t)
		t.noteRun(why, now)
		u.finish(e, t, r, push.Failed, outcome{}, why)
	case putOff:
		u.putOff(e, t, awaits.over, now)
	case res.err == errOtherKind:
		u.again(e, t, nil, now)
	default:
		u.afterFailure(e, t, r, failure{err: res.err, attempts: attempts, differed: differed, waited: waited, age: now.Sub(time.Unix(0, e.since))}, now)
	}
}

// afterFailure does what the retry policy says.
func (u *Uploader) afterFailure(e *entry, t *task, r *journal.Record, f failure, now time.Time) {
	why := u.explain(r.Request.Destination, f.attempts, f.err)
	if pause := retryAfter(f.err); pause > 0 {
		why.RetryAfter = pause
	}
	what := u.retry.after(f)
	u.judgeBucket(e.bucket, f.err, now)
	if !errors.Is(f.err, errAtIt) { // else nothing was attempted
		t.noteRun(f.err, now)
	}
	if !what.again {
		u.finish(e, t, r, push.Failed, outcome{}, why)
		return
	}
	reason := reasonOf(f.err)
	u.metrics.retries.WithLabelValues(reason).Inc()
	if u.log.Enabled(context.Background(), slog.LevelDebug) {
		u.log.LogAttrs(context.Background(), slog.LevelDebug, "push waits for another attempt", append(about(e.id.String(), r.Request.Label, r.Traceparent),
			slog.String("destination", r.Request.Destination), slog.Int("attempts", f.attempts), slog.Float64("wait_seconds", what.wait.Seconds()),
			slog.String("reason", reason), slog.String("error", textOf(f.err)))...)
	}
	u.again(e, t, why, now.Add(what.wait))
}

// noteRun keeps with its push that a run of it has failed.
func (t *task) noteRun(err error, now time.Time) {
	t.failed.note(tried{begun: t.startedAt, ended: now}.failed(err))
}

// judgeBucket notes what a failure says about the bucket, whether the push has
// another attempt or not.
func (u *Uploader) judgeBucket(b *bucket, err error, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.endpoint.blamed(err): // nothing: the way to the store is the endpoint's matter
	case ofFile(err), errors.Is(err, errAtIt): // nor is the file the bucket's, or what it was not asked for
		u.queue.untried(b, now)
	// It answers, though it says no, or has other bytes than were sent.
	case mismatched(err), ofObject(err), !transient(err) && answerOf(err).Status != 0:
		u.queue.acquit(b, now)
	case transient(err):
		u.queue.failure(b, now, retryAfter(err))
		b.problem = inBrief(err)
	default: // it was not asked
		u.queue.untried(b, now)
	}
}

// again has the push wait for another try.
func (u *Uploader) again(e *entry, t *task, why error, until time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	t.problem, t.awaits = asPushError(why), nil
	u.queueAgainLocked(e, t, func() { u.queue.retry(e, until) })
}

// putOff has the push wait, without a place and without an attempt, until that is
// over. It has another look after a time in any case.
func (u *Uploader) putOff(e *entry, t *task, over <-chan struct{}, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	t.awaits = over
	until := now.Add(probeTakes)
	if isClosed(over) { // meanwhile: nobody will hasten it
		until = now
	}
	u.queue.untried(e.bucket, now)
	u.queueAgainLocked(e, t, func() { u.queue.postpone(e, until) })
}

// hastenAwaiting has those go on that were put off for what is over.
func (u *Uploader) hastenAwaiting() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.queue.hasten(func(e *entry) bool { return e.task != nil && isClosed(e.task.awaits) })
	u.wakeLocked()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// queueAgainLocked puts a push that has run back into the queue, as back does.
func (u *Uploader) queueAgainLocked(e *entry, t *task, back func()) {
	size := int64(-1)
	if t.record != nil {
		size = t.record.Size
	}
	if e.wanted == 0 && u.queue.size > keptRecords && !t.cancelled {
		t.record = nil
	}
	back()
	if size >= 0 { // it may be another file's by now
		e.kind = u.kindOf(size)
	}
	if t.cancelled && t.record != nil { // after the run had ended
		u.cancelLocked(e, t, t.record)
		return
	}
	if u.left {
		u.leaveInJournalLocked(e)
	}
	u.armLocked(time.Now()) // its worker may go on with another push, and no worker be idle
	u.idleLocked()
}

// finish puts the end of a push on disk. Nobody hears of it before it is there.
func (u *Uploader) finish(e *entry, t *task, accepted *journal.Record, state push.State, got outcome, failure *push.Error) {
	u.mu.Lock()
	u.queue.end(e)
	u.closeFileLocked(t)
	u.ending++
	if state == push.Done {
		u.queue.acquit(e.bucket, time.Now())
	}
	u.mu.Unlock()
	u.write(e, t, accepted, state, got, failure)
}

// write puts the end of a push on disk that counts among those that end.
func (u *Uploader) write(e *entry, t *task, accepted *journal.Record, state push.State, got outcome, failure *push.Error) {
	r := *accepted
	r.State, r.FinishedAt = state, time.Now().UTC()
	r.StartedAt, r.Attempts = t.startedAt, t.attempts
	r.ETag, r.VersionID, r.Checksum = got.etag, got.versionID, got.checksum
	r.Verified = got.verified
	r.Parts = cmp.Or(got.parts, r.Parts)
	r.Spent, r.FailedAttempts = t.clock.spent(), t.failed.after(accepted.FailedAttempts)
	if failure != nil {
		r.Problem = failure.Problem()
	}
	u.journal.End(&r, func() {
		u.ended(e, t, &r, failure)
		// What is done has no other upload than the one that made it, unless the
		// file has become a small one, or went in one request all the same.
		if failure != nil || got.orphans || t.inParts && got.over == nil {
			u.janitor.wake()
		}
	})
	if got.over != nil { // after the end: else a crash between the two would forget what the object was made of
		u.journal.DropUpload(got.over, nil)
	}
}

// ended is called by the journal: the end of the push survives kill -9 from
// here on, and may be told.
func (u *Uploader) ended(e *entry, t *task, r *journal.Record, failure *push.Error) {
	receipt := receiptOf(r)
	u.metrics.ended(receipt, failure)
	u.logEnd(receipt, failure)
	u.tellEnd(receipt)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rate.ended(r.FinishedAt)
	if r.State == push.Done && r.Parts > 1 {
		u.noteMadeLocked(e.object, time.Now())
	}
	u.ending--
	u.queue.remove(e)
	delete(u.live, e.id)
	u.leaveLocked(u.labels[""])
	if e.label != nil {
		u.leaveLocked(e.label)
	}
	t.final, t.failure = r, failure
	if !t.left {
		close(t.ended)
	}
	u.wakeLocked()
	u.idleLocked()
}

// noteMadeLocked notes when an object of parts was made, and forgets those that were
// long enough ago to be told from newer ones by their age.
func (u *Uploader) noteMadeLocked(object uint64, now time.Time) {
	maps.DeleteFunc(u.lately, func(_ uint64, made time.Time) bool { return now.Sub(made) > u.retry.apart })
	u.lately[object] = now
}

func errWasCancelled() *push.Error {
	return push.Errorf(push.WasCancelled, "the push was cancelled by a request to do so (DELETE)")
}

// away says why nothing is sent at present; nil while the store can be reached.
func (u *Uploader) away() *push.Error {
	_, cause, is := u.endpoint.down()
	if !is {
		return nil
	}
	return &push.Error{Code: push.StoreUnreachable, Err: cause,
		Detail: fmt.Sprintf("the store at %s cannot be reached: %s", u.name, push.OneLine(rootText(cause)))}
}

// unreachable says why a caller does not wait any longer for a store that
// cannot be asked.
func (u *Uploader) unreachable(e *entry, t *task) *push.Error {
	if failure := u.away(); failure != nil {
		return failure
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if t.problem != nil {
		return t.problem
	}
	if e.bucket.problem != "" {
		return push.Errorf(push.StoreUnreachable, "the store at %s takes nothing for the bucket at present: push again later; the last that was tried failed: %s", u.name, e.bucket.problem)
	}
	return push.Errorf(push.StoreUnreachable, "the store at %s takes nothing for the bucket at present: push again later", u.name)
}
