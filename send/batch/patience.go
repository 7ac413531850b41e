package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/client"
)

// UsualPatience is for how long to ask where nobody said otherwise: a restart of
// the daemon is shorter.
const UsualPatience = time.Minute

const (
	noticeTime = time.Second           // after which somebody should know; a queue that is full for a moment is none of it
	firstPause = 20 * time.Millisecond // between two tries, then doubling
	mostPause  = time.Second
)

// Patience is how a daemon is borne with that does not do what it is asked for.
type Patience struct {
	// For is how long it is asked again while nothing but refusals comes, or no
	// answer; 0: it is asked once.
	For time.Duration
	// Notice is called once in each outage that lasts, with the last refusal and
	// For; may be nil.
	Notice func(error, time.Duration)
}

// patience is what is left of it. All the requests of a batch share one: what
// refuses them refuses them together, and an answer to any of them is a sign of
// life.
type patience struct {
	Patience

	mu     sync.Mutex
	since  time.Time   // when the present outage was noticed, zero outside one; guarded by mu
	last   error       // the last refusal of it; guarded by mu
	notice *time.Timer // of it, which calls Notice; guarded by mu
}

// refused notes that the daemon did not do what it was asked for, and returns
// how much longer to ask.
func (p *patience) refused(err error) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.last = err
	if p.since.IsZero() {
		p.since = now
		if p.Notice != nil && p.For > noticeTime {
			p.notice = time.AfterFunc(noticeTime, func() { p.tell(now) })
		}
	}
	return p.For - now.Sub(p.since)
}

// tell calls Notice, if the outage that began at since still lasts.
func (p *patience) tell(since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.Equal(since) {
		p.Notice(p.last, p.For)
	}
}

// answered notes that the daemon did it, or is not asked any more.
func (p *patience) answered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = time.Time{}
	if p.notice != nil {
		p.notice.Stop()
	}
}

// GaveUpError is the last refusal of a daemon that was asked for too long.
type GaveUpError struct {
	Err   error
	After time.Duration // of asking again; 0 where it was asked once
}

// Error says so.
func (e *GaveUpError) Error() string { return e.Err.Error() + e.Suffix() }

// Suffix is what Error has behind the refusal.
func (e *GaveUpError) Suffix() string {
	if e.After == 0 {
		return ""
	}
	return fmt.Sprintf("; gave up after %v", e.After)
}

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
			return answer, &GaveUpError{Err: err, After: p.For}
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
