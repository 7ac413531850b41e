package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// fileName is the journal's in its directory. It is made under newName, and
// gets its name once it is whole.
const (
	fileName = "journal.db"
	newName  = "journal.db.new"
)

// Open opens the journal in a directory. Where there is none it makes one, and
// the directory too. When it returns, the file and its name are on disk.
//
// A file that cannot be read is moved aside, and a new one begun; MovedAside
// tells. The error is an ErrLocked if another process has the journal and keeps
// it, and an ErrNewer if a later version has written it; both leave the file as
// it is, and so does every error of the system, such as a missing permission.
// The end of ctx ends the wait for the other process, and nothing else.
func Open(ctx context.Context, cfg Config) (*Journal, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	if cfg.commit == nil {
		cfg.commit = (*bbolt.Tx).Commit
	}
	j := &Journal{cfg: cfg, wake: make(chan struct{}, 1), long: make(chan struct{}, longScans), stopped: make(chan struct{})}
	if err := j.open(newLocker(ctx, cfg, j.path())); err != nil {
		return nil, fmt.Errorf("open the journal %s: %w", j.path(), err)
	}
	j.begin()
	j.metrics = newMetrics(cfg.Metrics, j)
	go j.run()
	return j, nil
}

func (j *Journal) path() string { return filepath.Join(j.cfg.Dir, fileName) }

// open opens a file that is whole as a database, under a lock.
func (j *Journal) open(l *locker) error {
	if err := makeDir(j.cfg.Dir); err != nil {
		return err
	}
	for {
		file, err := l.openLocked(j.path(), 0)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = create(l, j.cfg.Dir)
		case err == nil:
			err = j.load(file)
			if err == nil {
				return nil
			}
		}
		if errors.Is(err, errDamaged) {
			// Still under the lock, lest it be the new file of another process
			// that found the same.
			err = j.moveAside(err)
		}
		if file != nil {
			_ = file.Close() // it may be closed already, and nothing was written
		}
		if err != nil {
			return err
		}
	}
}

// load makes a locked file the journal's, if it is as it should be.
func (j *Journal) load(file *os.File) error {
	found, err := check(file)
	if err != nil {
		return err
	}
	db, err := openDatabase(file)
	if err != nil {
		return err
	}
	if found.version < version {
		if err := j.upgrade(db, &found); err != nil {
			return errors.Join(fmt.Errorf("bring it from format %d up to %d: %w", found.version, version, err), db.Close())
		}
	}
	j.db, j.file = db, file
	j.ids.last = found.last
	if found.oneMeta {
		j.cfg.Log.Error("one of the two first pages of the journal is damaged, so the other was used; changes from just before the damage may be missing", "file", j.path())
	}
	return nil
}

// upgrade makes a file of format 1 one of format 2, in one transaction.
func (j *Journal) upgrade(db *bbolt.DB, found *contents) error {
	tx, err := db.Begin(true)
	if err != nil {
		return err
	}
	for _, name := range [][]byte{nameUploads, nameParts} {
		if _, err := tx.CreateBucket(name); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	meta := tx.Bucket(nameMeta)
	err = errors.Join(putNumbers(meta, metaVersion, version), putTotals(meta, found.totals))
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return j.cfg.commit(tx)
}

// begin prunes what has grown old while nothing was written. That it fails is
// no reason not to open: on a full disk there are still pushes to deliver.
func (j *Journal) begin() {
	for {
		removed, err := j.pruneOnce()
		if err != nil {
			j.cfg.Log.Warn("the history in the journal cannot be pruned", "file", j.path(), "error", err)
		}
		if err != nil || removed == 0 {
			return
		}
	}
}

// pruneOnce makes a transaction that only prunes, if there is anything to
// prune.
func (j *Journal) pruneOnce() (removed int, err error) {
	tx, err := j.db.Begin(true)
	if err != nil {
		return 0, err
	}
	pruner := j.writer.pruner
	removed, err = j.pruneIn(tx, &pruner)
	if err != nil || removed == 0 {
		return 0, errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return 0, err
	}
	j.writer.pruner = pruner
	return removed, nil
}

func (j *Journal) pruneIn(tx *bbolt.Tx, p *pruner) (removed int, err error) {
	b, err := bucketsOf(tx)
	for err == nil && removed == 0 {
		removed, err = p.prune(b, &j.cfg, pruneMany, 0)
		if removed == 0 && p.next.IsZero() {
			return 0, err // it has seen all
		}
	}
	if err != nil {
		return 0, err
	}
	return removed, b.putTotals(j.ids.last)
}

// Close writes what was submitted before it, and lets go of the file. Ends and
// changes of uploads that cannot be written within two seconds are lost, which
// the error says; the pushes are queued again at the next start.
func (j *Journal) Close() error {
	j.mu.Lock()
	again := j.closing
	j.closing = true
	j.mu.Unlock()
	if again {
		return ErrClosed
	}
	j.wakeUp()
	<-j.stopped
	err := j.db.Close()
	if err != nil {
		err = fmt.Errorf("close the journal: %w", err)
	}
	if what := lost(j.writer.kept); what != "" {
		err = errors.Join(fmt.Errorf("close the journal: %s: %w", what, j.writer.failure), err)
	}
	return err
}
