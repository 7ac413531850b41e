package transport

import (
	"context"
	"sync/atomic"
	"time"
)

// patience is for how long a write may be kept waiting: until the connection is
// closed, or its deadline for writing.
type patience struct{ now atomic.Pointer[bound] }

type bound struct {
	context.Context
	end context.CancelFunc
}

func newPatience() *patience {
	p := new(patience)
	p.until(time.Time{})
	return p
}

// until moves the end; zero is none.
func (p *patience) until(deadline time.Time) {
	next := new(bound)
	if deadline.IsZero() {
		next.Context, next.end = context.WithCancel(context.Background())
	} else {
		next.Context, next.end = context.WithDeadline(context.Background(), deadline)
	}
	if old := p.now.Swap(next); old != nil {
		old.end() // after another is in its place: who waits looks at that
	}
}

// end ends all waiting, unless until is called again.
func (p *patience) end() { p.now.Load().end() }

// wait waits for so long, or until the patience is over. It reports false if
// changed came before.
func (p *patience) wait(d time.Duration, changed <-chan struct{}) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		now := p.now.Load()
		select {
		case <-timer.C:
			return true
		case <-changed:
			return false
		case <-now.Done():
			if now == p.now.Load() {
				return true
			}
		}
	}
}
