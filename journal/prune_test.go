package journal

import (
	"fmt"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// clock is a time that a test sets.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

// endedAt is the record with an end at this moment.
func endedAt(r *Record, at time.Time) *Record {
	e := ended(*r)
	e.FinishedAt = at
	return e
}

func history(t *testing.T, j *Journal) map[push.ID]bool {
	t.Helper()
	ids := make(map[push.ID]bool)
	if err := j.Since(push.ID{}, func(r *Record) bool {
		if r.State.Ended() {
			ids[r.ID] = true
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestHistoryCount(t *testing.T) {
	for _, most := range []int{1, 10, 1000} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			j := open(t, Config{Dir: t.TempDir(), HistoryCount: most})
			waiting := example(0)
			acceptAll(t, j, waiting)
			var last *Record
			for n := 0; n < 3*most; n += 50 {
				some := make([]*Record, 50)
				for i := range some {
					some[i] = example(n + i)
					some[i].IdempotencyKey = fmt.Sprint(n + i)
				}
				acceptAll(t, j, some...)
				for i, r := range some {
					some[i] = ended(*r)
				}
				endAll(j, some...)
				last = some[49]
			}
			kept := history(t, j)
			if len(kept) < most || len(kept) > most+min(pruneSome, most/8) {
				t.Errorf("%d pushes are kept, want %d or a few more", len(kept), most)
			}
			if !kept[last.ID] {
				t.Error("the newest push is not kept")
			}
			wantQueued(t, j, waiting)
			// A key goes with its push.
			if _, _, found, _ := j.FindKey("0"); found {
				t.Error("the key of a push that is gone is still there")
			}
			if _, _, found, _ := j.FindKey(last.IdempotencyKey); !found {
				t.Error("the key of a push that is kept is gone")
			}
			c, err := check(j.file)
			if err != nil || int(c.keys) != len(kept) {
				t.Errorf("%d keys for %d pushes, %v", c.keys, len(kept), err)
			}
		})
	}
}

// TestHistoryAge: a push grows old by when it ended, wherever it lies.
func TestHistoryAge(t *testing.T) {
	clock := &clock{now: time.Now()}
	start := clock.now
	j := open(t, Config{Dir: t.TempDir(), HistoryAge: time.Hour, now: clock.Now})
	all := make([]*Record, 3*pruneSome)
	for i := range all {
		all[i] = example(i)
	}
	acceptAll(t, j, all...)
	late := make(map[int]bool)
	for i, r := range all {
		at := start
		if late[i] = i%5 == 0; late[i] {
			at = start.Add(45 * time.Minute)
		}
		all[i] = endedAt(r, at)
	}
	endAll(j, all...)

	// No transaction removes many, but some of them remove all.
	tick := func(at time.Duration) {
		clock.now = start.Add(at)
		for range 20 {
			acceptAll(t, j, example(0))
		}
	}
	tick(59 * time.Minute)
	if n := len(history(t, j)); n != len(all) {
		t.Errorf("after 59 minutes %d pushes are kept of %d", n, len(all))
	}
	tick(61 * time.Minute)
	kept := history(t, j)
	for i, r := range all {
		if kept[r.ID] != late[i] {
			t.Fatalf("after 61 minutes push %d, late: %v, is kept: %v", i, late[i], kept[r.ID])
		}
	}
	tick(106 * time.Minute)
	if n := len(history(t, j)); n != 0 {
		t.Errorf("after 106 minutes %d pushes are kept", n)
	}
}

func TestOpenPrunes(t *testing.T) {
	clock := &clock{now: time.Now()}
	cfg := Config{Dir: t.TempDir(), now: clock.Now}
	j := open(t, cfg)
	all := make([]*Record, 1000)
	for i := range all {
		all[i] = example(i)
	}
	acceptAll(t, j, all...)
	for i, r := range all {
		all[i] = endedAt(r, clock.now.Add(time.Duration(i)*time.Minute))
	}
	endAll(j, all...)
	for _, test := range []struct {
		age   time.Duration
		count int
		want  int
	}{
		{0, 0, 1000},
		{0, 900, 900},
		{1000*time.Minute + time.Second, 0, 500}, // at minute 1500
		{1000*time.Minute + time.Second, 100, 100},
	} {
		clock.now = all[0].FinishedAt.Add(1500 * time.Minute)
		j.cfg.HistoryAge, j.cfg.HistoryCount = test.age, test.count
		j = reopen(t, j)
		if n := len(history(t, j)); n != test.want {
			t.Errorf("with age %s and count %d, %d pushes are kept, want %d", test.age, test.count, n, test.want)
		}
	}
}

// TestPagesAreReused: the file stops growing once the history is full.
func TestPagesAreReused(t *testing.T) {
	j := open(t, Config{Dir: t.TempDir(), HistoryCount: 1000})
	pages := func() uint64 {
		m, _, err := findMeta(j.file)
		if err != nil {
			t.Fatal(err)
		}
		return m.pages
	}
	var after []uint64
	for n := range 100 {
		some := make([]*Record, 100)
		for i := range some {
			some[i] = example(100*n + i)
		}
		acceptAll(t, j, some...)
		for i, r := range some {
			some[i] = ended(*r)
		}
		endAll(j, some...)
		after = append(after, pages())
	}
	if after[99] > after[30]*5/4 {
		t.Errorf("3000 pushes need %d pages, and 10000 %d", after[30], after[99])
	}
}
