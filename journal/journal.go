package journal

import (
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"

	"github.com/lsst-dm/s3daemon/push"
)

// Config is what a journal is opened with.
type Config struct {
	Dir          string        // holds the file; made where it is missing
	HistoryAge   time.Duration // how long after its end a push is kept; 0: without a limit
	HistoryCount int           // how many ended pushes are kept; 0: without a limit
	Log          *slog.Logger  // nil: nothing is logged
	Metrics      prometheus.Registerer
	// Wait is how long another process that has the journal is waited for; 0: not at all.
	Wait time.Duration

	now    func() time.Time      // for tests; time.Now where nil
	commit func(*bbolt.Tx) error // for tests; (*bbolt.Tx).Commit where nil
}

// Errors of a journal, for errors.Is.
var (
	// ErrLocked is Open's where another process has the journal.
	ErrLocked = errors.New("another s3daemon is using it")
	// ErrNewer is Open's where a later s3daemon wrote the journal.
	ErrNewer = errors.New("a later version of s3daemon wrote it")
	// ErrClosed is what every call gets after Close.
	ErrClosed = errors.New("the journal is closed")
	// ErrNotEnded is Requeue's where the push is not in the history.
	ErrNotEnded = errors.New("the push is not in the history")
)

// DuplicateError says that an Idempotency-Key was used before.
type DuplicateError struct {
	ID          push.ID  // of the push that has it
	RequestHash [32]byte // of that push
}

// Error says which push has the key.
func (e *DuplicateError) Error() string {
	return "push " + e.ID.String() + " has the same idempotency key"
}

// Journal is an open journal. All methods may be called from any goroutine.
type Journal struct {
	cfg        Config
	db         *bbolt.DB
	file       *os.File // of db, which closes it
	movedAside string
	metrics    *metrics

	mu      sync.Mutex
	ids     sequence      // guarded by mu
	pending []change      // guarded by mu: what waits for the writer, in order
	closing bool          // guarded by mu
	wake    chan struct{} // has room for one: there is something new under mu

	long    chan struct{}           // has something for each long scan that goes on
	failing atomic.Pointer[failing] // nil while the last transaction was written
	writer  writer                  // the writer's goroutine only
	stopped chan struct{}           // closed when that has ended
}

// MovedAside returns where Open has put a file that it could not read; empty if
// there was none.
func (j *Journal) MovedAside() string { return j.movedAside }

// failing is that transactions cannot be written.
type failing struct {
	since time.Time
	cause error // of the last
}

// Failing returns why the last transaction could not be written, and since when none
// could; no error where it could, or there was none.
func (j *Journal) Failing() (since time.Time, err error) {
	if f := j.failing.Load(); f != nil {
		return f.since, f.cause
	}
	return time.Time{}, nil
}

// Size returns how long the file is.
func (j *Journal) Size() int64 {
	info, err := j.file.Stat()
	if err != nil {
		return 0 // it is closed
	}
	return info.Size()
}
