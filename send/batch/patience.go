package batch

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/client"
)

const (
	patienceTime = time.Minute           // how long nothing but refusals is borne
	noticeTime   = 5 * time.Second       // after which somebody should know; a restart is shorter
	firstPause   = 20 * time.Millisecond // between two tries, then doubling
	mostPause    = time.Second
)

// patience says how long the daemon is asked again. All the requests of a batch
// share one: what refuses them refuses them together, and an answer to any of
// them is a sign of life.
type patience struct {
	notice func(error) // may be nil

	mu     sync.Mutex
	since  time.Time // when the present outage was noticed, zero outside one; guarded by mu
	warned bool      // of the present outage; guarded by mu
}

// refused notes that the daemon did not do what it was asked for, and returns
// how much longer to ask.
func (p *patience) refused(err error) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.since.IsZero() {
		p.since = now
	}
	lasted := now.Sub(p.since)
	if lasted >= noticeTime && !p.warned {
		p.warned = true
		if p.notice != nil {
			p.notice(err)
		}
	}
	return patienceTime - lasted
}

// answered notes that the daemon did it.
func (p *patience) answered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since, p.warned = time.Time{}, false
}

// GaveUpError is the last refusal of a daemon that was asked for too long.
type GaveUpError struct{ Err error }

// Error says so.
func (e *GaveUpError) Error() string { return e.Err.Error() + "; gave up after a minute" }

// Unwrap returns the refusal.
func (e *GaveUpError) Unwrap() error { return e.Err }

func isGaveUp(err error) bool {
	_, is := errors.AsType[*GaveUpError](err)
	return is
}

// persist calls ask until the daemon has answered. What is asked must be
// harmless to repeat.
func persist[T any](ctx context.Context, p *patience, ask func() (T, error)) (T, error) {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		answer, err := ask()
		if !repeatable(err) {
			if ctx.Err() == nil {
				p.answered()
			}
			return answer, err
		}
		left := p.refused(err)
		if left <= 0 {
			return answer, &GaveUpError{err}
		}
		if err := sleep(ctx, min(max(pause, retryAfter(err)), left)); err != nil {
			return answer, err
		}
	}
}

// repeatable reports whether to ask again after the error.
func repeatable(err error) bool {
	_, lost := errors.AsType[*client.LostError](err)
	return lost || errors.Is(err, client.ErrNotTaken)
}

// retryAfter is when the daemon said to ask again, or 0.
func retryAfter(err error) time.Duration {
	e, is := errors.AsType[*push.Error](err)
	if !is {
		return 0
	}
	return e.RetryAfter
}

// sleep waits for that long, or until ctx ends, which is its error then.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
