// Package throttle keeps whoever sends one bad request after another from filling
// the log.
package throttle

import (
	"sync"
	"time"
)

// mostLines is how many lines of one kind a second go to the log.
const mostLines = 10

// Lines are lines of one kind. The zero value is ready; it may be used by many
// goroutines at once.
type Lines struct {
	mu    sync.Mutex // guards all below
	until time.Time  // the end of this second
	lines int        // in it
	left  int        // lines that it had no more room for
}

// Next reports whether another line may go to the log. Where some may not, tell is
// called with how many once the second is over.
func (t *Lines) Next(tell func(left int)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if !now.Before(t.until) && t.left == 0 {
		t.until, t.lines = now.Add(time.Second), 0
	}
	if t.lines < mostLines {
		t.lines++
		return true
	}
	if t.left++; t.left == 1 {
		time.AfterFunc(t.until.Sub(now), func() {
			t.mu.Lock()
			left := t.left
			t.left = 0
			t.mu.Unlock()
			tell(left)
		})
	}
	return false
}
