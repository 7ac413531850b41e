package uploader

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

const (
	// mostFailed is how many of the attempts of a push that failed are kept: the
	// newest.
	mostFailed = 10
	// mostDetail is how long the detail of one may be, in bytes.
	mostDetail = 300
)

// failedAttempts are those of a push that have failed, in all its runs since the
// process began or it was put back: requests that were made again within a run, and
// what runs ended with.
type failedAttempts struct {
	mu     sync.Mutex
	newest []push.Attempt // guarded by mu; oldest first
}

// note keeps one more. Where it is none's there is nothing to keep it for.
func (f *failedAttempts) note(a push.Attempt) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.newest) == mostFailed {
		f.newest = slices.Delete(f.newest, 0, 1)
	}
	f.newest = append(f.newest, a)
}

// after returns the newest of those before and of these. Nobody may change them.
func (f *failedAttempts) after(before []push.Attempt) []push.Attempt {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.newest) == 0 {
		return before
	}
	all := slices.Concat(before, f.newest)
	return all[max(0, len(all)-mostFailed):]
}

// requestError is what a request of a push ended with that is not made again in the
// same run. It says of the failure of that run which request it was.
type requestError struct {
	error
	tried
}

func (e *requestError) Unwrap() error { return e.error }

// tried is one attempt at a request, or a run where there was none to speak of.
type tried struct {
	operation string // empty: none
	part      int32  // of an upload, from 1; 0: no part
	begun     time.Time
	ended     time.Time
}

// failed returns the attempt as it is told of. Of an error that a request is known to
// have ended with it is that one.
func (t tried) failed(err error) push.Attempt {
	if of, is := errors.AsType[*requestError](err); is {
		t = of.tried
	}
	return push.Attempt{
		At: t.ended.UTC(), Seconds: max(0, t.ended.Sub(t.begun)).Seconds(), Operation: t.operation, Part: int(t.part),
		Reason: reasonOf(err), Detail: detailOf(err),
	}
}

// detailOf says in one line, that is not too long, what an attempt failed with.
func detailOf(err error) string {
	text := ""
	if known, is := errors.AsType[*push.Error](err); is {
		text = known.Detail
	} else {
		text = inBrief(err)
	}
	return cut(push.OneLine(text), mostDetail)
}

// noteFailed keeps with its push that an attempt at a request failed which is made
// again, after the wait.
func (d *delivery) noteFailed(t tried, n int, err error, wait time.Duration) {
	failed := t.failed(err)
	d.failed.note(failed)
	if !d.up.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	attrs := append(d.about(), slog.String("operation", t.operation))
	if t.part > 0 {
		attrs = append(attrs, slog.Int("part", int(t.part)))
	}
	d.up.log.LogAttrs(context.Background(), slog.LevelDebug, "attempt failed", append(attrs, slog.Int("attempt", n), slog.Float64("seconds", failed.Seconds),
		slog.Float64("wait_seconds", wait.Seconds()), slog.String("reason", failed.Reason), slog.String("error", textOf(err)))...)
}
