package api

import (
	"context"
	"slices"
	"sync"
)

// budget is how many bytes of memory may be used for something at once. Who
// wants some that are not there waits, in order of arrival.
type budget struct {
	mu   sync.Mutex // guards what follows
	left int
	line []*claim
}

type claim struct {
	bytes   int
	granted chan struct{} // closed once they are the claim's
}

// take waits for as many bytes, which are to be given back, and reports whether
// there were some before the context ended.
func (b *budget) take(ctx context.Context, bytes int) bool {
	c := &claim{bytes, make(chan struct{})}
	b.mu.Lock()
	b.line = append(b.line, c)
	b.grantLocked()
	b.mu.Unlock()
	select {
	case <-c.granted:
		return true
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.line, c); i >= 0 {
		b.line = slices.Delete(b.line, i, i+1)
		b.grantLocked() // those behind may want less
		return false
	}
	return true // at that moment
}

// give gives bytes back.
func (b *budget) give(bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += bytes
	b.grantLocked()
}

func (b *budget) grantLocked() {
	for len(b.line) > 0 && b.line[0].bytes <= b.left {
		b.left -= b.line[0].bytes
		close(b.line[0].granted)
		b.line[0] = nil
		b.line = b.line[1:]
	}
}
