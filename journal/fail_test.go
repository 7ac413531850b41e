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

	"github.com/lsst-dm/s3daemon/push"
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

// TestFailureEnds: nobody need push for the failure to end, and none that could not be
// written has it end: neither a push whose key is known, for which nothing is written.
func TestFailureEnds(t *testing.T) {
	for name, cause := range map[string]error{"no room": syscall.ENOSPC, "an error of the disk": syscall.EIO} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fault := &broken{}
				var log recorder
				j := open(t, Config{Dir: t.TempDir(), Log: slogTo(&log), commit: fault.commit})
				known := example(1)
				known.IdempotencyKey = "k"
				acceptAll(t, j, known)
				fault.set(cause)
				if err := accept1(j, example(2)); !errors.Is(err, cause) {
					t.Errorf("Accept: %v", err)
				}
				again := example(1)
				again.IdempotencyKey = "k"
				time.Sleep(retryMost)
				_ = accept1(j, again)
				time.Sleep(time.Minute)
				if _, err := j.Failing(); !errors.Is(err, cause) {
					t.Errorf("it fails with %v", err)
				}
				fault.set(nil)
				time.Sleep(retryMost)
				synctest.Wait()
				if _, err := j.Failing(); err != nil {
					t.Errorf("it still fails with %v", err)
				}
				if !strings.HasSuffix(strings.TrimSpace(log.String()), "INFO the journal can be written again file="+j.path()) || strings.Count(log.String(), "\n") > 2 {
					t.Errorf("the log has\n%s", log.String())
				}
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
		if since, err := j.Failing(); err != nil || !since.IsZero() {
			t.Errorf("it fails since %v: %v", since, err)
		}
		fault.set(syscall.ENOSPC)
		began := time.Now()
		var order []int
		for i, r := range all {
			j.End(ended(*r), func() { order = append(order, i) })
			if i%10 == 0 {
				time.Sleep(retryMost)
			}
		}
		if since, err := j.Failing(); !errors.Is(err, syscall.ENOSPC) || !since.Equal(began) {
			t.Errorf("it fails since %v: %v, want %v", since, err, began)
		}
		fault.set(nil)
		time.Sleep(retryMost)
		synctest.Wait()
		if _, err := j.Failing(); err != nil {
			t.Errorf("it still fails: %v", err)
		}
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

// TestUploadsWaitForTheDisk: what happens to uploads while nothing can be written
// is kept, and written in its order, and in that of ends.
func TestUploadsWaitForTheDisk(t *testing.T) {
	for name, landed := range map[string]bool{"failed and absent": false, "failed and yet on disk": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fault := &broken{landed: landed}
				j := open(t, Config{Dir: t.TempDir(), commit: fault.commit})
				r, late := example(1), example(2)
				acceptAll(t, j, r)
				u, v := exampleUpload(r.ID, 1), exampleUpload(r.ID, 2)
				j.PutUpload(u, nil)
				j.PutPart(u, examplePart(1), nil)
				await(j)

				fault.set(syscall.ENOSPC)
				var order []string
				told := func(what string) func() { return func() { order = append(order, what) } }
				j.PutUpload(v, told("put"))
				j.PutPart(v, examplePart(1), told("part"))
				time.Sleep(retryMost) // in a transaction of its own
				j.Accept(late, func(err error) {
					if !errors.Is(err, syscall.ENOSPC) {
						t.Errorf("Accept: %v", err)
					}
				})
				j.Barrier(told("barrier"))
				j.End(ended(*r), told("end"))
				time.Sleep(time.Millisecond) // refused without being tried
				j.DropUpload(u, told("drop"))
				j.PutPart(u, examplePart(2), told("part of the dropped"))
				time.Sleep(time.Minute)
				synctest.Wait()
				if len(order) > 0 {
					t.Errorf("on disk, it is said: %s", order)
				}

				fault.set(nil)
				time.Sleep(retryMost)
				synctest.Wait()
				if got, want := strings.Join(order, ", "), "put, part, barrier, end, drop, part of the dropped"; got != want {
					t.Errorf("on disk, it is said: %s, want %s", got, want)
				}
				for range 2 {
					wantUploads(t, j, r.ID, v)
					wantParts(t, j, v, examplePart(1))
					wantParts(t, j, u)
					wantPush(t, j, ended(*r))
					wantQueued(t, j)
					j = reopen(t, j)
				}
			})
		})
	}
}

// TestCloseLosesUploads: Close says of how many uploads something is lost.
func TestCloseLosesUploads(t *testing.T) {
	for name, test := range map[string]struct {
		ends, uploads int
		barrier       bool
		want          string // empty: no error
	}{
		"ends":              {ends: 2, want: "the ends of 2 pushes"},
		"uploads":           {uploads: 3, want: "the last about 3 multipart uploads"},
		"both":              {ends: 1, uploads: 2, want: "the ends of 1 pushes are not on disk, so these will be queued again, nor is the last about 2 multipart uploads"},
		"nothing to regret": {barrier: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fault := &broken{}
				j := open(t, Config{Dir: t.TempDir(), commit: fault.commit})
				all := make([]*Record, test.ends)
				for i := range all {
					all[i] = example(i)
				}
				acceptAll(t, j, all...)
				fault.set(syscall.ENOSPC)
				told := func() { t.Error("a change is said to be on disk") }
				for _, r := range all {
					j.End(ended(*r), told)
				}
				for n := range test.uploads {
					u := exampleUpload(push.ID{1}, n)
					j.PutUpload(u, told)
					j.PutPart(u, examplePart(1), told)
				}
				if test.barrier {
					_ = accept1(j, example(1)) // so that there is a failure to wait for
					j.Barrier(nil)
				}
				err := j.Close()
				if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), test.want)) {
					t.Errorf("Close: %v", err)
				}
				j.PutUpload(exampleUpload(push.ID{1}, 1), told) // after it nothing is
				j.Barrier(told)
			})
		})
	}
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
