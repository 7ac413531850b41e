package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// patience is how long a test waits for what should happen at once. It only
// ends tests that would hang: nothing is measured by it.
const patience = time.Minute

// answerLimit is the same for the answer to a push, which may be a large one on
// a slow disk.
const answerLimit = 15 * time.Minute

// errNotYet says that a poll's condition does not hold yet.
var errNotYet = errors.New("not yet")

// poll calls f until it returns nil. After the time given it returns f's last
// error.
func poll(limit time.Duration, f func() error) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-deadline.C:
			return fmt.Errorf("after %v: %w", limit, err)
		case <-tick.C:
		}
	}
}

// waitFor fails the test unless f is true soon.
func waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	err := poll(patience, func() error {
		if !f() {
			return errNotYet
		}
		return nil
	})
	if err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
}
