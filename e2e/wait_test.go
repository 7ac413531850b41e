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

// waitForTries is waitFor where pushes fail on the way, of a daemon with a log at
// the level debug. A push that has failed often waits up to a minute for its next
// attempt, and those to the same object wait with it: for as long as the daemon
// says that an attempt is to come, and then for what should happen at once.
func (d *daemon) waitForTries(t testing.TB, what string, f func() bool) {
	t.Helper()
	last := time.Now()
	for {
		err := poll(time.Until(last.Add(patience)), func() error {
			if !f() {
				return errNotYet
			}
			return nil
		})
		if err == nil {
			return
		}
		due := d.lastTry(t)
		if !due.After(last) {
			t.Fatalf("waiting for %s: %v, and the last attempt was to be at %v: %+v", what, err, due.UTC(), d.pageOf(t, "state=queued,running&limit=3"))
		}
		last = due
	}
}

// lastTry returns the last time at which the daemon has said that it will try a push
// again.
func (d *daemon) lastTry(t testing.TB) (due time.Time) {
	t.Helper()
	for _, line := range logLines(d.out.bytes(), "push waits for another attempt") {
		text, _ := line["time"].(string)
		wait, is := line["wait_seconds"].(float64)
		said, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || !is {
			t.Fatalf("the log does not say when there is another attempt: %v", line)
		}
		if next := said.Add(time.Duration(wait * float64(time.Second))); next.After(due) {
			due = next
		}
	}
	return due
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
