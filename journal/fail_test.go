package journal

import (
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"
)

// broken makes a commit fail as long as it says so.
type broken struct {
	mu     sync.Mutex
	err    error // guarded by mu
	landed bool  // although it fails, the transaction is made
}

func (b *broken) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *broken) commit(tx *bbolt.Tx) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.err == nil:
		return tx.Commit()
	case b.landed:
		return errors.Join(tx.Commit(), b.err)
	default:
		return errors.Join(tx.Rollback(), b.err)
	}
}

// TestFailedCommit: what failed never was, ends wait, and all goes on by itself.
func TestFailedCommit(t *testing.T) {
	for name, landed := range map[string]bool{"failed and absent": false, "failed and yet on disk": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fault := &broken{landed: landed}
				var log recorder
				dir := t.TempDir()
				j := open(t, Config{Dir: dir, Log: slogTo(&log), commit: fault.commit})
				running, failed := example(1), example(2)
				acceptAll(t, j, running, failed)
				failed = ended(*failed)
				endAll(j, failed)

				fault.set(syscall.EIO)
				refused := example(3)
				refused.IdempotencyKey = "k"
				if err := accept1(j, refused); !errors.Is(err, syscall.EIO) {
					t.Errorf("Accept: %v", err)
				}
				again := *failed
				time.Sleep(retryMost) // so that it is tried, and not refused at once
				if err := requeue1(j, &again); !errors.Is(err, syscall.EIO) {
					t.Errorf("Requeue: %v", err)
				}
				time.Sleep(retryMost)
				told := false
				j.End(ended(*running), func() { told = true })
				time.Sleep(time.Minute)
				synctest.Wait()
				if told {
					t.Error("the end is said to be on disk")
				}
				if n := strings.Count(log.String(), "ERROR"); n != 1 {
					t.Errorf("%d errors in the log:\n%s", n, log.String())
				}

				fault.set(nil)
				time.Sleep(retryMost)
				synctest.Wait()
				if !told {
					t.Error("the end is not on disk")
				}
				if !strings.Contains(log.String(), "INFO the journal can be written again") {
					t.Errorf("the log has no word of it:\n%s", log.String())
				}
				wantRefused(t, j, refused, running, failed)
				wantRefused(t, reopen(t, j), refused, running, failed)
			})
		})
	}
}

func wantRefused(t *testing.T, j *Journal, refused, running, failed *Record) {
	t.Helper()
	if _, found, err := j.Get(refused.ID); found || err != nil {
		t.Errorf("the push that was refused is found: %v, %v", found, err)
	}
	if _, _, found, err := j.FindKey("k"); found || err != nil {
		t.Errorf("its key is found: %v, %v", found, err)
	}
	wantPush(t, j, ended(*running))
	wantPush(t, j, failed)
	wantQueued(t, j)
	if c, err := check(j.file); err != nil || c.history != 2 {
		t.Errorf("the history has %d pushes, %v", c.history, err)
	}
}

// TestEndsKeepTheirOrder: of two ends of one push, the later holds.
func TestEndsKeepTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := &broken{}
		j := open(t, Config{Dir: t.TempDir(), commit: fault.commit})
		all := make([]*Record, 50)
		for i := range all {
			all[i] = example(i)
		}
		acceptAll(t, j, all...)
		fault.set(syscall.ENOSPC)
		var order []int
		for i, r := range all {
			j.End(ended(*r), func() { order = append(order, i) })
			if i%10 == 0 {
				time.Sleep(retryMost)
			}
		}
		fault.set(nil)
		time.Sleep(retryMost)
		synctest.Wait()
		for i, n := range order {
			if n != i {
				t.Fatalf("the ends came in the order %v", order)
			}
		}
		if len(order) != len(all) {
			t.Errorf("%d ends of %d are on disk", len(order), len(all))
		}
	})
}

// TestCloseGivesUp: an end that cannot be written does not hold Close up for
// long, and its push is queued at the next start.
func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := &broken{}
		cfg := Config{Dir: t.TempDir(), commit: fault.commit}
		j := open(t, cfg)
		r, s := example(1), example(2)
		acceptAll(t, j, r, s)
		fault.set(syscall.ENOSPC)
		for _, r := range []*Record{r, s} {
			j.End(ended(*r), func() { t.Error("the end is said to be on disk") })
		}
		start := time.Now()
		err := j.Close()
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "2 pushes") {
			t.Errorf("Close: %v", err)
		}
		if d := time.Since(start); d > closeWait+time.Second {
			t.Errorf("Close took %s", d)
		}
		wantQueued(t, open(t, Config{Dir: cfg.Dir}), r, s)
	})
}

// TestCloseWaitsForSpace: where space comes back soon enough, nothing is lost.
func TestCloseWaitsForSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := &broken{}
		j := open(t, Config{Dir: t.TempDir(), commit: fault.commit})
		r := example(1)
		acceptAll(t, j, r)
		fault.set(syscall.ENOSPC)
		j.End(ended(*r), nil)
		synctest.Wait()
		time.AfterFunc(closeWait/2, func() { fault.set(nil) })
		wantQueued(t, reopen(t, j))
	})
}
