package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"
)

const (
	lockPause = 50 * time.Millisecond // between two tries for a lock
	// waitTold is after how long the log has that there is a wait: a daemon that was
	// about to end takes no longer.
	waitTold = time.Second
)

// locker locks the files of one journal for Open, which waits once for another
// process that has them.
type locker struct {
	ctx     context.Context
	journal string // its path, for the log
	wait    time.Duration
	log     *slog.Logger
	begun   time.Time
	told    bool // of the wait
}

func newLocker(ctx context.Context, cfg Config, path string) *locker {
	return &locker{ctx: ctx, journal: path, wait: cfg.Wait, log: cfg.Log, begun: time.Now()}
}

// openLocked opens a file, with os.O_CREATE or 0 as flag, and locks it, so that
// no other process that does the same has it. A name that is not that of a
// file is an errDamaged.
func (l *locker) openLocked(path string, flag int) (*os.File, error) {
	for {
		info, err := os.Stat(path)
		if err == nil && !info.Mode().IsRegular() {
			return nil, damaged("it is no regular file") // which might block who opens it
		}
		file, err := os.OpenFile(path, os.O_RDWR|flag, 0o600)
		if err != nil {
			return nil, err
		}
		if err = l.lock(file); err == nil {
			var same bool
			// Whoever had the lock may have given the name to another file.
			if same, err = hasName(file, path); same {
				return file, nil
			}
		}
		_ = file.Close() // nothing was written
		if err != nil {
			return nil, err
		}
	}
}

// lock locks a file until that is closed. It is the lock that bbolt asks for,
// and gets since it is asked for through the same descriptor.
func (l *locker) lock(file *os.File) error {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("lock it: %w", err)
		default:
			if err := l.pause(); err != nil {
				return err
			}
		}
	}
}

// pause returns nil when the lock is to be tried once more.
func (l *locker) pause() error {
	waited := time.Since(l.begun)
	if waited >= l.wait {
		return fmt.Errorf("%w, and did not end within %v (S3DAEMON_JOURNAL_WAIT): stop that one, or give this one a directory of its own with S3DAEMON_DATA_DIR", ErrLocked, l.wait)
	}
	if waited >= waitTold && !l.told {
		l.told = true
		l.log.Warn("waiting for another s3daemon, which still uses the journal, to end; until then nothing is served", "file", l.journal, "until", l.begun.Add(l.wait))
	}
	timer := time.NewTimer(min(lockPause, l.wait-waited))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-l.ctx.Done():
		return context.Cause(l.ctx)
	}
}
