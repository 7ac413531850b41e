package uploader

import (
	"errors"
	"time"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/source"
)

// fileSettles is how long nothing may have happened to a file that changed
// before it is taken to be whole.
const fileSettles = 2 * time.Second

// errUnsettled marks a change of a file that ends nothing: the push waits until
// its writer has done with it.
var errUnsettled = errors.New("the file is being written")

// errOtherKind marks a run that made way: its file has become a large or a small
// one, whose places are others.
var errOtherKind = errors.New("the push needs a place of the other kind")

// identityOf returns what the file of a record was.
func identityOf(r *journal.Record) source.Identity {
	return source.Identity{Size: r.Size, ModTime: r.ModTime, Device: r.Device, Inode: r.Inode}
}

// describeFile puts what the file is into a record.
func (u *Uploader) describeFile(r *journal.Record, is source.Identity) {
	r.Size, r.ModTime, r.Device, r.Inode = is.Size, is.ModTime, is.Device, is.Inode
	r.Parts = u.plan.parts(is.Size)
}

// adopt has a push be one of the file as it is now, where that is wanted and its
// writer has done with it. Else the push fails, or waits: what was promised are
// the bytes of the file that was accepted. The journal keeps that one, so that
// after a restart the file is adopted in the same way.
func (u *Uploader) adopt(e *entry, t *task, r *journal.Record, is source.Identity) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.retryChanged || !t.settled(is, time.Now(), u.retry.settles) {
		return u.mayBeChanged(push.Errorf(push.FileChanged, "file %s changed after its push was accepted (%d bytes then, %d now): push it again",
			push.Quote(r.Request.File), r.Size, is.Size))
	}
	adopted := *r
	u.describeFile(&adopted, is)
	t.record = &adopted
	if u.kindOf(is.Size) != e.kind {
		return errOtherKind
	}
	return nil
}

// settled reports whether the file has been as it is for so long. It was, by its
// own time, or by ours: the clock that files get their times from may be that of
// a server, and go before ours. If it goes after ours a file may be taken too
// early, which shows when it has been sent. It is called with Uploader.mu held.
func (t *task) settled(is source.Identity, now time.Time, long time.Duration) bool {
	if now.Sub(is.ModTime) >= long {
		return true
	}
	if !t.seen.Same(is) || t.seenAt.IsZero() {
		t.seen, t.seenAt = is, now
	}
	return now.Sub(t.seenAt) >= long
}

// errEarlier is the end of a push that was cancelled when an earlier state of its
// file had been stored already: neither is the object the file, nor is it none.
func errEarlier(r *journal.Record) *push.Error {
	return push.Errorf(push.FileChanged, "the push was cancelled while file %s was being written, and the store has taken an earlier state of it as %s: remove that if it is in the way",
		push.Quote(r.Request.File), r.Request.Destination)
}

// mayBeChanged marks the failure of a file that changed, if its push is to wait.
func (u *Uploader) mayBeChanged(err error) error {
	known, is := errors.AsType[*push.Error](err)
	if !u.retryChanged || !is || known.Code != push.FileChanged {
		return err
	}
	return &push.Error{Code: known.Code, Detail: known.Detail, Err: errUnsettled}
}
