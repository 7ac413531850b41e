package journal

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// writer is what only the writer's goroutine knows.
type writer struct {
	pruner  pruner
	kept    []change  // what cannot be refused and could not be written yet, in order
	doubt   []change  // accepts and requeues of a failed transaction that may be on disk all the same
	unsure  bool      // that transaction is what bbolt goes on from, but its sync failed
	failure error     // why the last transaction failed; nil if it did not
	nextTry time.Time // after a failure: when the next transaction may be tried
}

// waits reports whether there is something to write as soon as that is
// possible.
func (w *writer) waits() bool { return len(w.kept) > 0 || len(w.doubt) > 0 }

// overdue reports whether the disk should be tried again after a failure, with what
// waits or with nothing: else only who pushes would find out that there is room.
func (w *writer) overdue() bool { return w.failure != nil && !time.Now().Before(w.nextTry) }

// write makes one transaction of the batch and tells everybody how it went.
func (j *Journal) write(batch []change) {
	w := &j.writer
	// A failed transaction can be costly (bbolt then reads the whole file to
	// find its free pages), so it is not tried for every request.
	if w.failure != nil && time.Now().Before(w.nextTry) {
		j.fail(batch, w.failure)
		return
	}
	// What was kept goes first: it was given first.
	if len(w.kept) > 0 {
		batch = append(w.kept, batch...)
		w.kept = nil
	}
	start := time.Now()
	err := j.transact(batch)
	if err != nil {
		j.metrics.failures.Inc()
		since, _ := j.Failing()
		if w.failure == nil {
			since = start
			j.cfg.Log.Error("the journal cannot be written; nothing is accepted until it can", "file", j.path(), "error", err)
		}
		w.failure = fmt.Errorf("write the journal: %w", err)
		j.failing.Store(&failing{since, err})
		w.nextTry = time.Now().Add(min(max(retryAfter, retryFactor*time.Since(start)), retryMost))
		j.fail(batch, w.failure)
		return
	}
	if w.failure != nil {
		j.cfg.Log.Info("the journal can be written again", "file", j.path())
		w.failure = nil
		j.failing.Store(nil)
	}
	for i := range batch {
		batch[i].tell(batch[i].err)
		letGo(i)
	}
}

// fail refuses what can be refused of the batch, and keeps the rest.
func (j *Journal) fail(batch []change, err error) {
	for i, c := range batch {
		if !c.kind.refusable() {
			j.writer.kept = append(j.writer.kept, c)
			continue
		}
		c.tell(err)
		letGo(i)
	}
}

// toldAtOnce is how many of a transaction's callers are woken before they have a
// turn. With all of a thousand woken at once, whoever comes then, a health check
// too, would have his behind them.
const toldAtOnce = 16

// letGo has those that were told go on, after every few.
func letGo(told int) {
	if told%toldAtOnce == toldAtOnce-1 {
		runtime.Gosched()
	}
}

// transact writes the batch, and before it what an earlier failure has left.
func (j *Journal) transact(batch []change) error {
	w := &j.writer
	if w.unsure {
		if err := j.settle(); err != nil {
			return err
		}
		w.unsure = false
	}
	if err := j.inPlace(); err != nil {
		return err
	}
	if len(batch) == 0 && !w.waits() {
		if err := j.room(); err != nil {
			return err
		}
	}
	start := time.Now()
	tx, err := j.db.Begin(true)
	if err != nil {
		return err
	}
	after, err := j.fill(tx, batch)
	if err != nil || after == nil {
		return errors.Join(err, tx.Rollback())
	}
	id := tx.ID()
	if err := j.cfg.commit(tx); err != nil {
		if j.landed(id) {
			after.doubt, after.unsure = doubtful(batch), true
			j.writer = *after
		}
		return err
	}
	// The batch is on disk: from here on it survives kill -9 and the loss of
	// power.
	j.writer = *after
	j.metrics.commit.Observe(time.Since(start).Seconds())
	return nil
}

// inPlace reports that the file is not where the next process looks for it, as
// after somebody has cleaned its directory up: what were written to it now would
// be lost.
func (j *Journal) inPlace() error {
	open, err := j.file.Stat()
	if err != nil {
		return err
	}
	named, err := os.Stat(j.path())
	if err != nil {
		return fmt.Errorf("the journal was taken away while the daemon runs: %w", err)
	}
	if !os.SameFile(open, named) {
		return fmt.Errorf("the journal %s was replaced while the daemon runs: restart it", j.path())
	}
	return nil
}

// roomWanted is more than most transactions need.
const roomWanted = 256 << 10

// room reports that the disk that was full still is. A transaction of nothing but the
// totals would not tell: it fits into pages that are free, where the next push may not.
func (j *Journal) room() error {
	if !isFull(j.writer.failure) {
		return nil
	}
	f, err := os.CreateTemp(j.cfg.Dir, fileName+".room-*")
	if err == nil {
		err = os.Remove(f.Name()) // at once, so that no crash leaves it
		_, wrong := f.Write(make([]byte, roomWanted))
		err = errors.Join(err, wrong, f.Close())
	}
	if isFull(err) {
		return err
	}
	return nil // whatever else is wrong the transaction will find
}

// isFull reports whether there was no room, of the disk or of the quota.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// fill puts the changes into the transaction and returns what the writer knows
// once it is committed; nil if there is nothing to commit.
func (j *Journal) fill(tx *bbolt.Tx, batch []change) (*writer, error) {
	after := j.writer
	b, err := bucketsOf(tx)
	if err != nil {
		return nil, err
	}
	for i := range after.doubt {
		if err := b.withdraw(&after.doubt[i]); err != nil {
			return nil, err
		}
	}
	// After a failure there is always something to commit, for only that shows that it
	// is over: the totals.
	changed := len(after.doubt) > 0 || after.failure != nil
	after.doubt = nil
	for i := range batch {
		c := &batch[i]
		if err := b.apply(c); err != nil {
			return nil, err
		}
		changed = changed || c.err == nil && c.kind != barrier
	}
	if !changed {
		return nil, nil // nothing but duplicates, say
	}
	if _, err := after.pruner.prune(b, &j.cfg, max(pruneSome, 2*len(batch)), j.cfg.slack()); err != nil {
		return nil, err
	}
	return &after, b.putTotals(j.last())
}

// doubtful returns the accepts and requeues that were applied.
func doubtful(batch []change) []change {
	var some []change
	for _, c := range batch {
		if c.kind.refusable() && c.err == nil {
			some = append(some, c)
		}
	}
	return some
}

// landed reports whether the transaction is what readers see, although its
// commit failed: its last write, that of the page which points to all others,
// was made, and only the sync after it failed.
func (j *Journal) landed(id int) bool {
	seen := false
	_ = j.db.View(func(tx *bbolt.Tx) error { // an error: then nothing is seen
		seen = tx.ID() >= id
		return nil
	})
	return seen
}

// settle puts the last transaction on disk after all. It has to be there before
// the next one, which takes the pages that were in use before it: were it
// missing after a loss of power, what is there instead would point to those.
// A kernel that has failed to write a page may not try again by itself, so the
// page is written once more.
func (j *Journal) settle() error {
	page := make([]byte, j.db.Info().PageSize)
	var id int
	if err := j.db.View(func(tx *bbolt.Tx) error { id = tx.ID(); return nil }); err != nil {
		return err
	}
	at := int64(id%2) * int64(len(page))
	if _, err := j.file.ReadAt(page, at); err != nil {
		return err
	}
	if _, err := j.file.WriteAt(page, at); err != nil {
		return err
	}
	return j.db.Sync()
}

// last returns the newest id given so far.
func (j *Journal) last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ids.last
}
