package uploader

import (
	"errors"
	"sync"
	"time"

	"github.com/lsst-dm/s3daemon/transport"
)

// takes is when the store took a request that delivers, and when any came back
// without its answer. Bytes that the store acknowledges show less: one that never
// answers has them sent again and again.
type takes struct {
	mu                    sync.Mutex
	taken, leftUnanswered time.Time // guarded by mu; the last time each; zero: never
}

// note notes what a request ended with.
func (t *takes) note(operation string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil && delivers(operation):
		t.taken = time.Now()
	case err != nil && leftUnanswered(err):
		t.leftUnanswered = time.Now()
	}
}

func (t *takes) last() (taken, leftUnanswered time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.taken, t.leftUnanswered
}

// delivers reports whether an operation hands over a file's bytes, or ends that.
func delivers(operation string) bool {
	return operation == putting || operation == "UploadPart" || operation == completing
}

// leftUnanswered reports whether a request got to the store, as far as anybody can
// tell, and no whole answer came back.
func leftUnanswered(err error) bool {
	broken, broke := errors.AsType[*transport.BrokenError](err)
	stalled, stood := errors.AsType[*transport.StallError](err)
	return broke && !broken.Untaken || stood && stalled.At != transport.Connecting
}
