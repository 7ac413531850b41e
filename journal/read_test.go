package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// TestScans compares the scans with a list, for many sizes and starting points.
func TestScans(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 63, 64, 65, 300, 5000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			j := open(t, Config{Dir: t.TempDir()})
			all := make([]*Record, n)
			var ends, queued []*Record
			for i := range all {
				all[i] = example(i)
				all[i].Request.Label = fmt.Sprint(i % 3)
			}
			acceptAll(t, j, all...)
			for i := range all {
				if rng.IntN(3) > 0 {
					all[i] = ended(*all[i])
					ends = append(ends, all[i])
				} else {
					queued = append(queued, all[i])
				}
			}
			endAll(j, ends...)
			wantQueued(t, j, queued...)

			froms := []int{-1, 0, n / 2, n - 1}
			for _, from := range froms {
				if from >= n {
					continue
				}
				older, newer, id := all, all, push.ID{}
				if from >= 0 {
					older, newer, id = all[:from], all[from+1:], all[from].ID
				}
				older = slices.Clone(older)
				slices.Reverse(older)
				wantScan(t, "Newest", older, func(yield func(*Record) bool) error { return j.Newest(id, yield) })
				wantScan(t, "Since", newer, func(yield func(*Record) bool) error { return j.Since(id, yield) })
				want := func(b *Brief) bool { return string(b.Label) == "1" && b.State == push.Done }
				wantScan(t, "NewestWhere", where(older), func(yield func(*Record) bool) error { return j.NewestWhere(id, want, yield) })
				wantScan(t, "SinceWhere", where(newer), func(yield func(*Record) bool) error { return j.SinceWhere(id, want, yield) })
			}
			// Between two ids, and beyond all.
			if n > 1 {
				between := all[0].ID
				between[15]++
				wantScan(t, "Newest", all[:1], func(yield func(*Record) bool) error { return j.Newest(between, yield) })
				wantScan(t, "Since", all[1:], func(yield func(*Record) bool) error { return j.Since(between, yield) })
			}
			last := push.ID{0: 0xff}
			wantScan(t, "Since", nil, func(yield func(*Record) bool) error { return j.Since(last, yield) })
			reversed := slices.Clone(all)
			slices.Reverse(reversed)
			wantScan(t, "Newest", reversed, func(yield func(*Record) bool) error { return j.Newest(last, yield) })
		})
	}
}

func where(all []*Record) []*Record {
	return slices.DeleteFunc(slices.Clone(all), func(r *Record) bool { return r.Request.Label != "1" || r.State != push.Done })
}

func wantScan(t *testing.T, name string, want []*Record, scan func(func(*Record) bool) error) {
	t.Helper()
	for _, most := range []int{len(want) + 1, 1, 70} {
		var got []*Record
		err := scan(func(r *Record) bool { got = append(got, r); return len(got) < most })
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got, want[:min(most, len(want))], func(a, b *Record) bool { return reflect.DeepEqual(a, b) }) {
			t.Errorf("%s of at most %d has %d pushes, want %d", name, most, len(got), min(most, len(want)))
		}
	}
}

// TestScanWhileTheQueueMoves: pushes that end during a scan are seen once.
func TestScanWhileTheQueueMoves(t *testing.T) {
	j := open(t, Config{Dir: t.TempDir()})
	all := make([]*Record, 1000)
	for i := range all {
		all[i] = example(i)
	}
	acceptAll(t, j, all...)
	for name, scan := range map[string]func(push.ID, func(*Record) bool) error{"Newest": j.Newest, "Since": j.Since} {
		seen := make(map[push.ID]int)
		err := scan(push.ID{}, func(r *Record) bool {
			seen[r.ID]++
			if n := len(seen); n%100 == 0 {
				endAll(j, ended(*all[n-1]), ended(*all[1000-n]))
			}
			return true
		})
		if err != nil || len(seen) != len(all) {
			t.Errorf("%s saw %d pushes of %d, %v", name, len(seen), len(all), err)
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s saw %s %d times", name, id, n)
			}
		}
	}
}

func TestQueuedPassesErrorsOn(t *testing.T) {
	j := open(t, Config{Dir: t.TempDir()})
	acceptAll(t, j, example(1), example(2))
	stop := errors.New("enough")
	n := 0
	if err := j.Queued(func(*Record) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("%v after %d", err, n)
	}
}

func TestOldestQueued(t *testing.T) {
	j := open(t, Config{Dir: t.TempDir()})
	if _, found := j.OldestQueued(nil); found {
		t.Error("an empty queue has an oldest push")
	}
	a, b, c := example(1), example(2), example(3)
	acceptAll(t, j, a, b, c)
	endAll(j, ended(*a))
	skip := map[push.ID]bool{}
	for _, want := range []*Record{b, c} {
		id, found := j.OldestQueued(func(id push.ID) bool { return skip[id] })
		if !found || id != want.ID {
			t.Errorf("the oldest is %s, want %s", id, want.ID)
		}
		skip[id] = true
	}
	if id, found := j.OldestQueued(func(id push.ID) bool { return skip[id] }); found {
		t.Errorf("all are skipped, and yet there is %s", id)
	}
}

// TestLongScansTakeTurns: however many go on, they have the processors for two turns
// between two rests; and those that are short wait for none of them.
func TestLongScansTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := open(t, Config{Dir: t.TempDir()})
		const turns, scans = 4, 5 * longScans
		all := make([]*Record, turns*turnLooks+1)
		for i := range all {
			all[i] = example(i)
		}
		acceptAll(t, j, all...)
		scan := func(want func(*Brief) bool) {
			if err := j.NewestWhere(push.ID{}, want, func(*Record) bool { return false }); err != nil {
				t.Error(err)
			}
		}
		begun := time.Now() // whose clock stands while somebody works
		var going sync.WaitGroup
		for range scans {
			going.Go(func() { scan(func(*Brief) bool { return false }) })
		}
		synctest.Wait() // until all rest, or wait
		scan(func(b *Brief) bool { return b.ID == all[len(all)-turnLooks/2].ID })
		if took := time.Since(begun); took != 0 {
			t.Errorf("one that looked at little was over after %v", took)
		}
		going.Wait()
		if took, want := time.Since(begun), (turns-2)*turnRest*scans/longScans; took != want { // none behind the first and the last
			t.Errorf("%d scans of %d turns took %v, want %v", scans, turns, took, want)
		}
		if len(j.long) > 0 {
			t.Errorf("%d have kept their places", len(j.long))
		}
	})
}
