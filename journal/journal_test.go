package journal

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsst-dm/s3daemon/push"
)

func TestLifeOfAPush(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	r := example(1)
	acceptAll(t, j, r)
	if r.ID.IsZero() {
		t.Fatal("the push has no id")
	}
	j = reopen(t, j)
	wantPush(t, j, r)
	wantQueued(t, j, r)

	failed := *r
	failed.State, failed.FinishedAt = push.Failed, r.AcceptedAt.Add(time.Second)
	failed.Problem = &push.Problem{Code: push.StoreRefused, Detail: "no"}
	endAll(j, &failed)
	j = reopen(t, j)
	wantPush(t, j, &failed)
	wantQueued(t, j)

	again := *r
	again.RetriedAt = r.AcceptedAt.Add(time.Minute)
	if err := requeue1(j, &again); err != nil {
		t.Fatal(err)
	}
	j = reopen(t, j)
	wantPush(t, j, &again)
	wantQueued(t, j, &again)
	if err := requeue1(j, &again); !errors.Is(err, ErrNotEnded) {
		t.Errorf("requeue of a queued push: %v", err)
	}

	endAll(j, ended(again))
	j = reopen(t, j)
	wantPush(t, j, ended(again))
	if _, found, err := j.Get(push.NewID(time.UnixMilli(1), 1, [8]byte{})); found || err != nil {
		t.Errorf("an unknown id gives %v, %v", found, err)
	}
}

func TestIdempotencyKeys(t *testing.T) {
	j := open(t, Config{Dir: t.TempDir()})
	first := example(1)
	first.IdempotencyKey, first.RequestHash = "k", [32]byte{1}
	same := example(2)
	same.IdempotencyKey, same.RequestHash = "k", [32]byte{2}
	results := make(chan error, 2)
	j.Accept(first, func(err error) { results <- err }) // both in one batch, or not
	j.Accept(same, func(err error) { results <- err })
	if err := <-results; err != nil {
		t.Fatal(err)
	}
	var dup *DuplicateError
	if err := <-results; !errors.As(err, &dup) || dup.ID != first.ID || dup.RequestHash != first.RequestHash {
		t.Errorf("the second push with the key gives %v", err)
	}
	for range 2 {
		id, hash, found, err := j.FindKey("k")
		if id != first.ID || hash != first.RequestHash || !found || err != nil {
			t.Errorf("the key leads to %s, %x, %v, %v", id, hash, found, err)
		}
		j = reopen(t, j)
	}
	if _, _, found, err := j.FindKey("other"); found || err != nil {
		t.Errorf("another key gives %v, %v", found, err)
	}
	wantQueued(t, j, first)
	if err := accept1(j, same); !errors.As(err, &dup) || dup.ID != first.ID {
		t.Errorf("after a restart, the second push with the key gives %v", err)
	}
	endAll(j, ended(*first))
	if err := accept1(j, same); !errors.As(err, &dup) || dup.ID != first.ID {
		t.Errorf("after the end, the second push with the key gives %v", err)
	}
}

// TestIDsGoOn: an id is later than all others, even if the clock is set back,
// and even if those others have left the journal.
func TestIDsGoOn(t *testing.T) {
	now := time.Now()
	cfg := Config{Dir: t.TempDir(), HistoryAge: time.Hour, now: func() time.Time { return now }}
	j := open(t, cfg)
	r := example(1)
	acceptAll(t, j, r)
	e := ended(*r)
	e.FinishedAt = now
	endAll(j, e)
	now = now.Add(48 * time.Hour)
	j = reopen(t, j) // prunes
	if _, found, _ := j.Get(r.ID); found {
		t.Fatal("the push is still there")
	}
	now = now.Add(-1000 * time.Hour)
	j.cfg.now = cfg.now
	j = reopen(t, j)
	next := example(2)
	acceptAll(t, j, next)
	if next.ID.Compare(r.ID) <= 0 {
		t.Errorf("the id %s does not come after %s", next.ID, r.ID)
	}
}

func TestDonesComeInOrder(t *testing.T) {
	j := open(t, Config{Dir: t.TempDir()})
	var mu sync.Mutex
	var order []push.ID
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				r := example(g*1000 + i)
				wg.Add(1)
				j.Accept(r, func(err error) {
					defer wg.Done()
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					order = append(order, r.ID)
					mu.Unlock()
				})
			}
		})
	}
	wg.Wait()
	if len(order) != 1600 || !slices.IsSortedFunc(order, push.ID.Compare) {
		t.Errorf("%d dones, not in the order of the ids", len(order))
	}
}

func TestAfterClose(t *testing.T) {
	j := open(t, Config{Dir: t.TempDir()})
	r := example(1)
	acceptAll(t, j, r)
	for i := range 100 {
		j.Accept(example(2+i), func(err error) {
			if err != nil {
				t.Errorf("accepted before Close: %v", err)
			}
		})
	}
	told := false
	j.End(ended(*r), func() { told = true })
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if !told {
		t.Error("Close did not wait for what was submitted")
	}
	if err := j.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
	if err := accept1(j, example(3)); !errors.Is(err, ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	if err := requeue1(j, r); !errors.Is(err, ErrClosed) {
		t.Errorf("Requeue: %v", err)
	}
	j.End(ended(*r), func() { t.Error("an end after Close is done") })
	if _, _, err := j.Get(r.ID); !errors.Is(err, ErrClosed) {
		t.Errorf("Get: %v", err)
	}
	if _, _, _, err := j.FindKey("k"); !errors.Is(err, ErrClosed) {
		t.Errorf("FindKey: %v", err)
	}
	if err := j.Newest(push.ID{}, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Newest: %v", err)
	}
	if _, err := j.Uploads(push.ID{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Uploads: %v", err)
	}
	if _, err := j.Parts(&Upload{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Parts: %v", err)
	}
	if err := j.EachUpload(nil); !errors.Is(err, ErrClosed) {
		t.Errorf("EachUpload: %v", err)
	}
	if _, found := j.OldestQueued(nil); found || j.Size() != 0 {
		t.Error("a closed journal has a queue, or a size")
	}
}

// TestIdleJournalWritesNothing compares the file, byte for byte.
func TestIdleJournalWritesNothing(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Dir: dir, HistoryAge: time.Hour, HistoryCount: 100}
	j := open(t, cfg)
	r := example(1)
	r.IdempotencyKey = "k"
	acceptAll(t, j, r)
	read := func() string {
		b, err := os.ReadFile(filepath.Join(dir, fileName))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := read()
	j = reopen(t, j)
	_ = accept1(j, r) // a duplicate
	_ = requeue1(j, r)
	gone := exampleUpload(r.ID, 1)
	j.DropUpload(gone, nil)
	j.PutPart(gone, examplePart(1), nil)
	await(j)
	_, _, _ = j.Get(r.ID)
	j = reopen(t, j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if read() != before {
		t.Error("a journal with nothing to write has written something")
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	j := open(t, Config{Dir: t.TempDir(), Metrics: reg})
	acceptAll(t, j, example(1))
	j.PutUpload(exampleUpload(push.ID{1}, 1), nil)
	await(j)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	want := map[string]float64{
		"s3daemon_journal_commit_duration_seconds": 2,
		"s3daemon_multipart_uploads":               1,
		"s3daemon_journal_size_bytes":              float64(j.Size()),
		"s3daemon_journal_write_failures_total":    0,
		"s3daemon_journal_moved_aside":             0,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
