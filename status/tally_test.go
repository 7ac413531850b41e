package status

import (
	"slices"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

func done(seconds float64, size int64) push.Receipt {
	return push.Receipt{State: push.Done, Seconds: seconds, Size: size}
}

func TestBounds(t *testing.T) {
	for _, tc := range []struct {
		deadline time.Duration
		n        int
	}{{0, len(usualBounds)}, {7 * time.Second, len(usualBounds)}, {6 * time.Second, mostBounds}, {time.Millisecond, mostBounds}, {time.Hour, mostBounds}} {
		bounds := boundsWith(tc.deadline)
		if len(bounds) != tc.n || !slices.IsSorted(bounds) || tc.deadline > 0 && !slices.Contains(bounds, tc.deadline.Seconds()) {
			t.Errorf("%v: %v", tc.deadline, bounds)
		}
	}
}

func TestTally(t *testing.T) {
	tally := newTally(noon, 6*time.Second)
	at := func(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }
	tally.ended(at(1), done(6, 10))
	tally.ended(at(2), done(6.1, 20))
	tally.ended(at(3), done(5000, 30))
	tally.ended(at(4), push.Receipt{State: push.Failed, Seconds: 100, Problem: &push.Problem{Code: push.StoreRefused}})
	tally.acknowledged(at(4.9), 500)
	tally.ended(at(7), push.Receipt{State: push.Cancelled})
	tally.acknowledged(at(9), 1000)
	tally.refused(at(1), push.QueueFull)
	tally.refused(at(1), push.JournalUnavailable)
	for _, mistake := range []push.Code{push.FileNotFound, push.InvalidDestination, push.IdempotencyReused, push.ShuttingDown} {
		tally.refused(at(1), mistake)
	}

	all := counts{Done: 3, Failed: 1, Cancelled: 1, Refused: 2, Late: 2, Bytes: 60}
	last, times := tally.last(at(9))
	if last != all || tally.total != all {
		t.Errorf("%+v, %+v", last, tally.total)
	}
	deadline := slices.Index(tally.bounds, 6)
	if times[deadline] != 1 || times[deadline+1] != 1 || times[len(times)-1] != 1 {
		t.Errorf("times %v by %v", times, tally.bounds)
	}
	whole := tally.whole(at(9))
	if len(whole) != steps || whole[steps-1].Done != 3 || whole[steps-1].acked != 500 || whole[steps-2].counts != (counts{}) || !tally.until(at(9)).Equal(at(5)) {
		t.Errorf("at 9 s: %+v, until %v", whole[steps-2:], tally.until(at(9)))
	}

	// The first step is 15 minutes old at 905 s, when the ring comes round.
	for _, tc := range []struct {
		at   float64
		want counts
	}{{904.9, all}, {905, counts{Cancelled: 1, Refused: 2}}, {909.9, counts{Cancelled: 1, Refused: 2}}, {910, counts{}}, {1e6, counts{}}} {
		last, times := tally.last(at(tc.at))
		sum := int64(0)
		for _, n := range times {
			sum += n
		}
		if last != tc.want || sum != last.Done {
			t.Errorf("at %v s: %+v, %d times; want %+v", tc.at, last, sum, tc.want)
		}
	}
	if tally.total != all {
		t.Errorf("since the start: %+v", tally.total)
	}
	tally.ended(at(1e6+7), done(1, 1))
	if whole := tally.whole(at(1e6 + 10)); whole[steps-1].Done != 1 || !tally.until(at(1e6+10)).Equal(at(1e6+10)) {
		t.Errorf("after a long time: %+v", whole[steps-1])
	}
	tally.ended(at(1e6), done(1, 1)) // by a clock that went back
	if last, _ := tally.last(at(1e6)); last.Done != 2 {
		t.Errorf("by a clock that went back: %+v", last)
	}
	if last, _ := tally.last(at(1e6 + 20)); last.Done != 2 {
		t.Errorf("once it goes on: %+v", last)
	}
}

// TestLongIdle: of a ring that was full nothing is left, however much later.
func TestLongIdle(t *testing.T) {
	for _, idle := range []int{steps, steps + 1, steps + 2, 10*steps + 7} {
		tally := newTally(noon, 0)
		now := noon
		for range 2 * steps {
			tally.ended(now, done(1, 1))
			now = now.Add(stepTime)
		}
		now = now.Add(time.Duration(idle) * stepTime)
		if last, _ := tally.last(now); last != (counts{}) {
			t.Errorf("after %d steps: %+v", idle, last)
		}
	}
}

func TestNoDeadline(t *testing.T) {
	tally := newTally(noon, 0)
	tally.ended(noon, done(1e6, 1))
	if tally.total.Late != 0 {
		t.Errorf("%+v", tally.total)
	}
}

func TestQuiet(t *testing.T) {
	tally := newTally(noon, 0)
	at := func(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }
	want := func(seconds int, quiet time.Duration) {
		t.Helper()
		if got := tally.quiet(at(seconds), 100); got != quiet {
			t.Errorf("after %d s: %v, want %v", seconds, got, quiet)
		}
	}
	want(0, 0)
	want(4, 0)
	want(12, 10*time.Second) // since the start
	tally.acknowledged(at(12), 101)
	want(12, 0)
	want(16, 0)
	want(23, 5*time.Second)
	tally.acknowledged(at(23), 100) // little
	want(45, 30*time.Second)
	tally.ended(at(46), push.Receipt{State: push.Failed})
	want(46, 30*time.Second)
	tally.ended(at(46), done(1, 1))
	want(46, 0)
	want(1e6, 15*time.Minute)
}
