package uploader

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

func TestChangesSince(t *testing.T) {
	id := func(n int) push.ID { return push.ID{14: byte(n >> 8), 15: byte(n)} }
	for _, tc := range []struct {
		name  string
		notes []int
		after uint64
		most  int
		want  []int
		left  int
	}{
		{"nothing", nil, 0, 5, nil, 0},
		{"all, the last first", []int{1, 2, 3}, 0, 5, []int{3, 2, 1}, 0},
		{"those after", []int{1, 2, 3}, 1, 5, []int{3, 2}, 0},
		{"none after", []int{1, 2, 3}, 3, 5, nil, 0},
		{"a number of another process", []int{1, 2, 3}, 99, 5, nil, 0},
		{"each once", []int{1, 2, 1, 1, 2}, 0, 5, []int{2, 1}, 0},
		{"too many", []int{1, 2, 3, 1}, 0, 2, []int{1, 3}, 1},
		{"too many, one of them twice", []int{1, 1, 2, 3}, 0, 2, []int{3, 2}, 1},
		{"more than are kept", slices.Repeat([]int{7}, changesKept+3), 0, 5, []int{7}, 3},
		{"more than are kept after", slices.Repeat([]int{7}, changesKept+3), 2, 5, []int{7}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c changes
			for _, n := range tc.notes {
				c.note(id(n))
			}
			var want []push.ID
			for _, n := range tc.want {
				want = append(want, id(n))
			}
			if got, left := c.since(tc.after, tc.most); !slices.Equal(got, want) || left != tc.left {
				t.Errorf("%v and %d more, want %v and %d", got, left, want, tc.left)
			}
		})
	}
}

// TestEachStepIsAChange: of those that run Changes tells of some alone, so that each step
// has to be noted.
func TestEachStepIsAChange(t *testing.T) {
	l := newLine(10)
	var first, second *entry
	for _, step := range []struct {
		name string
		take func() *entry
	}{
		{"accepted", func() *entry { first = l.accept("raw", "a", single, 0); return first }},
		{"accepted behind it", func() *entry { second = l.accept("raw", "a", single, 0); return second }},
		{"started", func() *entry { l.start(t, first); return first }},
		{"tried again", func() *entry { l.retry(first, l.now); return first }},
		{"started again", func() *entry { l.expire(l.now); l.start(t, first); return first }},
		{"put off", func() *entry { l.postpone(first, l.now); return first }},
		{"ends while it waits", func() *entry { l.end(first); return first }},
		{"ended", func() *entry { l.remove(first); return first }},
		{"started after it", func() *entry { l.start(t, second); return second }},
		{"stays in the journal", func() *entry { l.stay(second); return second }},
	} {
		before := l.changes.count
		e := step.take()
		if ids, left := l.changes.since(before, 5); !slices.Equal(ids, []push.ID{e.id}) || left != 0 {
			t.Errorf("%s: told of %v and %d more, want %v", step.name, ids, left, e.id)
		}
	}
}

// TestChanges follows a push through its life, beside another that runs.
func TestChanges(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections, c.GiveUpAfter = 1, time.Nanosecond })
	g := r.hold(t, true, func(w http.ResponseWriter, req *http.Request, _ http.Handler) { w.WriteHeader(http.StatusBadRequest) })
	path, _ := r.file(t, "f", 10)
	var number uint64
	tell := func(want ...string) {
		t.Helper()
		changed, now, left := r.Changes(number)
		number = now
		var got []string
		for _, p := range changed {
			got = append(got, p.Key+" "+string(p.State))
		}
		if !slices.Equal(got, want) || left != 0 {
			t.Errorf("told of %q and %d more, want %q", got, left, want)
		}
	}
	tell()
	first := r.later(t, push.Request{File: path, Destination: "s3://bucket/first"})
	<-g.arrived
	second := r.later(t, push.Request{File: path, Destination: "s3://bucket/second"})
	tell("second queued", "first running")
	tell("first running") // of which more may have been sent
	if receipt, err := r.Cancel(t.Context(), second); err != nil || receipt.State != push.Cancelled {
		t.Fatal(receipt, err)
	}
	tell("second cancelled", "first running")
	g.let()
	r.ended(t, first, push.Failed)
	tell("first failed")
	tell()
	r.spoil(pass)
	if _, err := r.Retry(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	r.ended(t, first, push.Done)
	tell("first done")
	if changed, _, left := r.Changes(0); len(changed) != 2 || left != 0 {
		t.Errorf("from the start on: %+v and %d more", changed, left)
	}
}

// TestChangesTellOfBackoff: a push that waits for another attempt says so.
func TestChangesTellOfBackoff(t *testing.T) {
	r := newRig(t)
	r.retry.jitter = func(time.Duration) time.Duration { return time.Hour }
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		io.Copy(io.Discard, req.Body)
		w.WriteHeader(http.StatusInternalServerError)
	})
	path, _ := r.file(t, "f", 10)
	r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	var number uint64
	until(t, "told that it waits for another attempt", func() bool {
		changed, now, _ := r.Changes(number)
		number = now
		return len(changed) == 1 && changed[0].State == push.Queued && !changed[0].RetryAt.IsZero() && changed[0].Problem != nil
	})
	if o := r.Overview(); o.Retrying != 1 || o.Queued.Pushes != 1 || o.Running.Pushes != 0 {
		t.Errorf("the overview is %+v", o)
	}
	r.stays = 1
}

// TestChangesMissNothing asks again and again while many push: what a push has come to is
// told, and nobody is told that it has gone back.
func TestChangesMissNothing(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 10)
	const pushers, each = 8, 25
	var all sync.WaitGroup
	for n := range pushers {
		all.Go(func() {
			for i := range each {
				if _, err := r.Push(t.Context(), push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d-%d", n, i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	over := make(chan struct{})
	go func() {
		all.Wait()
		close(over)
	}()
	rank := map[push.State]int{push.Queued: 1, push.Running: 2, push.Done: 3}
	told := make(map[string]int)
	var number uint64
	missed := 0
	for last := false; !last; {
		last = isClosed(over)
		changed, now, left := r.Changes(number)
		if now < number {
			t.Fatalf("the number goes back from %d to %d", number, now)
		}
		number, missed = now, missed+left
		for _, p := range changed {
			if rank[p.State] < max(1, told[p.ID]) {
				t.Errorf("%s is %s, after it was told of as %d", p.ID, p.State, told[p.ID])
			}
			told[p.ID] = rank[p.State]
		}
	}
	done := 0
	for _, state := range told {
		if state == rank[push.Done] {
			done++
		}
	}
	if done > pushers*each || done+missed < pushers*each {
		t.Errorf("told of %d as done, and %d changes not told of, of %d pushes", done, missed, pushers*each)
	}
	if number == 0 || missed > 0 {
		t.Logf("%d changes, %d not told of", number, missed)
	}
}

// BenchmarkChangesNote is what every change of a push costs while nobody asks.
func BenchmarkChangesNote(b *testing.B) {
	var c changes
	id := push.NewID(time.Now(), 1, [8]byte{})
	for b.Loop() {
		c.note(id)
	}
}
