package uploader

import (
	"context"
	"errors"
	"hash/maphash"
	"time"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/source"
)

// journalRetryAfter is when a caller should ask again whose push could not be
// put on disk.
const journalRetryAfter = 5 * time.Second

// Push accepts a push, and waits for its end as long as the options say. It is
// on disk before anything of it is sent and before Push returns; from then on
// it will be delivered or end in a failure that can be seen, whatever becomes
// of the caller or of this process.
//
// Where the error is nil the receipt says how far the push is: Done, or, once
// the wait is over or the context has ended, Queued or Running. An error is a
// *push.Error: of a request that was refused if the receipt has no id, else of
// a push that has failed, was cancelled, or stays in the journal because the
// daemon stops.
func (u *Uploader) Push(ctx context.Context, req push.Request, opts push.Options) (push.Receipt, error) {
	dest, err := req.Check()
	if err == nil {
		err = u.checkPlace(dest)
	}
	if err != nil {
		return push.Receipt{}, u.refuse(req, opts.Traceparent, err)
	}
	var hash [32]byte
	if opts.IdempotencyKey != "" {
		hash = hashOf(req)
	}
	if id, found, err := u.repeated(opts.IdempotencyKey, hash); err != nil {
		return push.Receipt{}, u.refuse(req, opts.Traceparent, err)
	} else if found {
		return u.join(ctx, id, opts.Wait)
	}
	e, t, err := u.accept(req, dest, hash, opts)
	if err != nil {
		return push.Receipt{}, u.refuse(req, opts.Traceparent, err)
	}
	if opts.Wait < 0 {
		t.await(ctx, opts.Wait) // one wait for both acceptance and end
	}
	<-t.accepted
	if twin, ok := errors.AsType[*journal.DuplicateError](t.refused); ok {
		if err := sameRequest(hash, twin.RequestHash); err != nil {
			return push.Receipt{}, u.refuse(req, opts.Traceparent, err)
		}
		return u.join(ctx, twin.ID, opts.Wait)
	}
	if t.refused != nil {
		return push.Receipt{}, u.refuse(req, opts.Traceparent, unwritable(t.refused))
	}
	if opts.Wait > 0 {
		t.await(ctx, opts.Wait)
	}
	return u.answer(e, t, opts.Wait != 0)
}

// accept looks at the file and hands the push to the journal. The task says
// what comes of it.
func (u *Uploader) accept(req push.Request, dest push.Destination, hash [32]byte, opts push.Options) (*entry, *task, error) {
	if err := u.enter(); err != nil {
		return nil, nil, err
	}
	file, err := u.look(req.File)
	if err != nil {
		u.exit()
		return nil, nil, err
	}
	req.Destination = dest.String()
	r := &journal.Record{State: push.Queued, Request: req, AcceptedAt: time.Now().UTC(), Traceparent: opts.Traceparent}
	u.describeFile(r, file.Identity())
	if opts.IdempotencyKey != "" {
		r.IdempotencyKey, r.RequestHash = opts.IdempotencyKey, hash
	}
	t := newTask(r)
	t.file = u.keep(file)
	e := u.entryOf(r, dest)
	e.task = t
	if opts.Wait != 0 {
		e.wanted, t.wantedSince = 1, r.AcceptedAt
	}
	u.journal.Accept(r, func(err error) { u.accepted(e, dest.Bucket, err) })
	return e, t, nil
}

// entryOf makes the queue's entry of a push.
func (u *Uploader) entryOf(r *journal.Record, dest push.Destination) *entry {
	e := &entry{id: r.ID, object: u.objectHash(dest), kind: u.kindOf(r.Size), since: r.AcceptedAt.UnixNano()}
	if !r.RetriedAt.IsZero() {
		e.since = r.RetriedAt.UnixNano()
	}
	return e
}

func (u *Uploader) kindOf(size int64) kind {
	if u.plan.parts(size) > 1 {
		return part
	}
	return single
}

// objectHash names an object in little memory.
func (u *Uploader) objectHash(d push.Destination) uint64 {
	var h maphash.Hash
	h.SetSeed(u.seed)
	h.WriteString(d.Bucket)
	h.WriteByte('/')
	h.WriteString(d.Key)
	return h.Sum64()
}

// accepted is called by the journal: the push survives kill -9 from here on, or
// err says that it is not on disk. It runs in the order of the ids.
func (u *Uploader) accepted(e *entry, bucketName string, err error) {
	t := e.task
	if err == nil {
		u.logAccepted("push accepted", t.record) // before anything else can be said of it
	}
	u.mu.Lock()
	u.entering--
	if err != nil {
		t.refused = err
		u.closeFileLocked(t)
		u.idleLocked()
		u.mu.Unlock()
		close(t.accepted)
		close(t.ended)
		return
	}
	e.id = t.record.ID
	u.enqueueLocked(e, t.record.Request.Label, bucketName)
	u.idleLocked() // it stays in the queue, if nothing starts any more
	u.mu.Unlock()
	close(t.accepted)
}

// enqueueLocked puts a push that is on disk into the queue. Of those that wait
// in a long one, and that nobody waits for, no more than the entry is kept.
func (u *Uploader) enqueueLocked(e *entry, labelName, bucketName string) {
	u.enterLocked("")
	if labelName != "" {
		e.label = u.enterLocked(labelName)
	}
	if _, overtaken := u.puttingBack[e.object]; overtaken {
		u.puttingBack[e.object] = true
	}
	switch {
	case e.task != nil && e.wanted == 0 && u.queue.size >= keptRecords:
		u.closeFileLocked(e.task)
		e.task = nil
	case e.task != nil:
		u.live[e.id] = e
	}
	u.queue.add(e, bucketName)
	if e.task != nil && e.stage != ready {
		u.closeFileLocked(e.task)
	}
	if u.left {
		u.leaveInJournalLocked(e)
	}
	u.wakeLocked()
}

// keptRecords is how many pushes may be in the queue before their records are
// left on disk until their turn.
const keptRecords = 1000

// enter counts a push that is about to be accepted, or says why it is not.
func (u *Uploader) enter() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.draining {
		return errShuttingDown()
	}
	if u.queue.size+u.entering >= u.queueLimit {
		e := push.Errorf(push.QueueFull, "%d pushes wait already, which is the most (S3DAEMON_QUEUE_LIMIT): push again later", u.queueLimit)
		e.RetryAfter = u.rate.untilRoom(time.Now(), u.queueLimit)
		return e
	}
	u.entering++
	return nil
}

// exit takes enter back.
func (u *Uploader) exit() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.entering--
	u.idleLocked()
}

func errShuttingDown() error {
	return push.Errorf(push.ShuttingDown, "the daemon is shutting down: push again once it has been started anew")
}

// look opens the file, and has it put on disk if that was asked for. It goes on
// if the caller hangs up, who does not take his push back by that.
func (u *Uploader) look(path string) (*source.File, error) {
	file, err := u.files.Open(u.stopped, path)
	if err == nil && u.syncFiles {
		if err = file.Sync(u.stopped); err != nil {
			file.Close()
		}
	}
	if err != nil && u.stopped.Err() != nil { // which ended the look
		return nil, errShuttingDown()
	}
	return file, err
}

// keep returns the file if its push will have its turn at once, so that it need
// not be opened again. Else it closes it: what waits holds no file open.
func (u *Uploader) keep(file *source.File) *source.File {
	u.mu.Lock()
	free := !u.queue.paused && u.queue.running[single]+u.queue.running[part]+u.kept < u.limit
	if free {
		u.kept++
	}
	u.mu.Unlock()
	if free {
		return file
	}
	file.Close()
	return nil
}

// takeFileLocked returns the file that was kept for the push, if any, to one
// who will close it.
func (u *Uploader) takeFileLocked(t *task) *source.File {
	file := t.file
	if file != nil {
		t.file = nil
		u.kept--
	}
	return file
}

// closeFileLocked closes the file of a push that does not have its turn.
func (u *Uploader) closeFileLocked(t *task) {
	if file := u.takeFileLocked(t); file != nil {
		file.Close()
	}
}

// unwritable explains why nothing is accepted.
func unwritable(err error) error {
	return &push.Error{Code: push.JournalUnavailable, Err: err, RetryAfter: journalRetryAfter,
		Detail: "the push cannot be put on disk, so it is not accepted: make room on the disk of S3DAEMON_DATA_DIR, or look into the daemon's log, and push again"}
}
