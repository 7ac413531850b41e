package uploader

import (
	"context"
	"sync"

	"github.com/lsst-dm/s3daemon/transport"
)

// sent is how many bytes of a file the store has acknowledged: those of parts
// that it had before the run, those of the requests that have ended well, and what
// it has so far of those under way. What a failed attempt sent counts no more.
type sent struct {
	mu       sync.Mutex
	ended    int64                            // guarded by mu
	underway map[*transport.Exchange]struct{} // guarded by mu
}

func (s *sent) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.ended
	for x := range s.underway {
		n += x.Acknowledged()
	}
	return n
}

// resume counts what the store had before.
func (s *sent) resume(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended += bytes
}

func (s *sent) begin(x *transport.Exchange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.underway == nil {
		s.underway = make(map[*transport.Exchange]struct{})
	}
	s.underway[x] = struct{}{}
}

func (s *sent) end(x *transport.Exchange, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.underway, x)
	if err == nil {
		s.ended += x.Acknowledged()
	}
}

// exchange gives an attempt at an operation its limits, has its time counted, and
// the bytes of the file that it sends. What leaves at once needs no counting.
func (d *delivery) exchange(ctx context.Context, operation string) (inner context.Context, ended func(error)) {
	t, inner := newTrip(ctx, d.clock)
	t.traceparent = d.traceparent
	if operation == completing {
		t.Answer = answerLimits.complete
	}
	carries := (operation == putting || operation == "UploadPart") && d.file != nil && d.file.Size() > inMemory
	if carries {
		t.Enough = d.enough
		d.sent.begin(&t.Exchange)
	}
	return inner, func(err error) {
		t.enter(over)
		if carries {
			d.sent.end(&t.Exchange, err)
		}
	}
}
