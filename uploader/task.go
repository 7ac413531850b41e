package uploader

import (
	"context"
	"time"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/source"
)

// task is what is known of a push that runs, has run, or is waited for. All
// others are in the queue and on disk alone.
type task struct {
	accepted chan struct{} // closed when the push is on disk, or cannot be put there
	ended    chan struct{} // closed when nothing more will happen to it: see final, left and refused

	// The rest is guarded by Uploader.mu, until the channel that it is
	// about has been closed.

	record  *journal.Record // as accepted; nil where only the disk has it
	final   *journal.Record // once its end is on disk
	failure *push.Error     // why it ended so, with its cause, which is not kept on disk
	left    bool            // the daemon stops, and the push stays in the journal
	refused error           // it could not be put on disk

	file         *source.File    // open since the acceptance, for the first run; nil: it has to be opened
	seen         source.Identity // of a file that changed, when it was looked at for the first time as it is
	seenAt       time.Time
	inParts      bool           // its file was one of several parts in some run
	clock        clock          // guards itself
	failed       failedAttempts // guards itself
	attempts     int
	differed     int // times that the store had, or had got, other bytes
	doubt        doubt
	useless      time.Time   // when the upload was begun that is known to be no use; zero: none
	problem      *push.Error // of the last attempt
	wantedSince  time.Time   // when a caller began to wait
	startedAt    time.Time
	unclearSince time.Time       // when the first PutObject began that may have made the object, see delivery
	delivery     *delivery       // while it runs
	awaits       <-chan struct{} // closed when what it was put off for is over; nil where it was not
	earlier      bool            // the store took the file as it was before it changed
	cancelled    bool            // somebody asked for it while it runs
	cancel       context.CancelCauseFunc
}

func newTask(r *journal.Record) *task {
	return &task{accepted: make(chan struct{}), ended: make(chan struct{}), record: r}
}

// taskLocked returns the task of an entry, which from then on is among those
// that are known.
func (u *Uploader) taskLocked(e *entry) *task {
	if e.task == nil {
		e.task = newTask(nil)
		close(e.task.accepted)
		u.live[e.id] = e
		if u.left && e.stage != started && e.stage != ending {
			u.leaveInJournalLocked(e)
		}
	}
	return e.task
}

// await waits until the push has ended, the context has, or the time is over,
// which is never if it is negative.
func (t *task) await(ctx context.Context, wait time.Duration) {
	var over <-chan time.Time
	if wait >= 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-t.ended:
	case <-ctx.Done():
	case <-over:
	}
}

// label counts the pushes of one label that have not ended. The empty one
// counts them all.
type label struct {
	name  string
	count int
	quiet chan struct{} // closed when count is 0; nil while nobody waits for that
}

// enterLocked counts a push under its label.
func (u *Uploader) enterLocked(name string) *label {
	l := u.labels[name]
	if l == nil {
		l = &label{name: name}
		u.labels[name] = l
	}
	l.count++
	return l
}

func (u *Uploader) leaveLocked(l *label) {
	if l.count--; l.count > 0 {
		return
	}
	if l.quiet != nil {
		close(l.quiet)
	}
	delete(u.labels, l.name)
}

// quietLocked returns how many pushes there are of that label, and a channel
// that is closed once there is none.
func (u *Uploader) quietLocked(name string) (<-chan struct{}, int) {
	l := u.labels[name]
	if l == nil {
		return nil, 0
	}
	if l.quiet == nil {
		l.quiet = make(chan struct{})
	}
	return l.quiet, l.count
}
