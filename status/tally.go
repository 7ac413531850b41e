package status

import (
	"slices"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

const (
	// stepTime is how fine the last 15 minutes are known.
	stepTime = 5 * time.Second
	// steps is how many of these are kept, beside the one that is not over.
	steps = int(15 * time.Minute / stepTime)
)

// mostBounds is the most bounds between the times of pushes: those that stand
// below, and the deadline.
const mostBounds = len(usualBounds) + 1

// usualBounds are the bounds between the times of pushes, in seconds.
var usualBounds = [...]float64{
	0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 200, 300, 500, 700, 1000,
}

// boundsWith returns the bounds with the deadline, if there is one, among them,
// so that how many pushes were late can be seen.
func boundsWith(deadline time.Duration) []float64 {
	at, found := slices.BinarySearch(usualBounds[:], deadline.Seconds())
	if found || deadline <= 0 {
		return usualBounds[:]
	}
	return slices.Insert(slices.Clone(usualBounds[:]), at, deadline.Seconds())
}

// counts is what became of pushes.
type counts struct {
	Done      int64 `json:"done"`
	Failed    int64 `json:"failed"`
	Cancelled int64 `json:"cancelled"`
	Refused   int64 `json:"refused"` // for the daemon's own want of room
	Late      int64 `json:"late"`    // of those that are done
	Bytes     int64 `json:"bytes"`   // of the files of those that are done
}

func (c *counts) add(more counts) {
	c.Done += more.Done
	c.Failed += more.Failed
	c.Cancelled += more.Cancelled
	c.Refused += more.Refused
	c.Late += more.Late
	c.Bytes += more.Bytes
}

// step is what happened in stepTime.
type step struct {
	counts
	acked int64                  // bytes that the store acknowledged
	times [mostBounds + 1]uint32 // of pushes that are done, by the first bound that they are not above
}

// tally is what happened since the start, in numbers, and in the last 15
// minutes in steps. It has a bounded size whatever happens.
type tally struct {
	started  time.Time
	deadline time.Duration // 0: none
	bounds   []float64
	total    counts
	why      push.Code // the last one was refused
	ring     [steps + 1]step
	failures failures // of the steps of the ring
	number   int      // of the step that is not over, from the start
}

func newTally(started time.Time, deadline time.Duration) *tally {
	return &tally{started: started, deadline: deadline, bounds: boundsWith(deadline), failures: make(failures)}
}

// at returns the step of a moment, which is not before that of an earlier call,
// and forgets what is too old by then.
func (t *tally) at(now time.Time) *step {
	number := max(t.number, int(now.Sub(t.started)/stepTime))
	for n := max(t.number+1, number-steps); n <= number; n++ {
		t.ring[n%len(t.ring)] = step{}
		t.failures.forget(n % len(t.ring))
	}
	t.number = number
	return &t.ring[number%len(t.ring)]
}

// ended notes a push that has ended.
func (t *tally) ended(now time.Time, r push.Receipt) {
	s := t.at(now)
	var c counts
	switch r.State {
	case push.Done:
		c.Done, c.Bytes = 1, r.Size
		if t.deadline > 0 && r.Seconds > t.deadline.Seconds() {
			c.Late = 1
		}
		bound, _ := slices.BinarySearch(t.bounds, r.Seconds)
		s.times[bound]++
	case push.Failed:
		c.Failed = 1
		t.failures.add(t.number%len(t.ring), r)
	case push.Cancelled:
		c.Cancelled = 1
	}
	s.add(c)
	t.total.add(c)
}

// refused notes a push that was not accepted. One that is its caller's mistake does
// not count, as nobody else can mend it; nor does one that comes when the daemon ends.
func (t *tally) refused(now time.Time, code push.Code) {
	if refusalWords[code] == "" {
		return
	}
	c := counts{Refused: 1}
	t.at(now).add(c)
	t.total.add(c)
	t.why = code
}

// acknowledged notes bytes that the store has acknowledged since the call before.
func (t *tally) acknowledged(now time.Time, bytes int64) { t.at(now).acked += bytes }

// last returns what became of pushes in the last 15 minutes, and how long those
// took that are done: how many by the first bound that they were not above, and
// behind these how many were above all.
func (t *tally) last(now time.Time) (all counts, times []int64) {
	t.at(now)
	times = make([]int64, len(t.bounds)+1)
	for i := range t.ring {
		s := &t.ring[i]
		all.add(s.counts)
		for bound := range times {
			times[bound] += int64(s.times[bound])
		}
	}
	return all, times
}

// whole returns the steps that are over, the oldest first. Those from before the
// start are empty.
func (t *tally) whole(now time.Time) []step {
	t.at(now)
	whole := make([]step, 0, steps)
	for n := t.number + 1; n < t.number+len(t.ring); n++ { // the ring is full: it begins behind the one that is not over
		whole = append(whole, t.ring[n%len(t.ring)])
	}
	return whole
}

// until returns when the last step ended that is over, by the clock that now is
// of: the one of the start may have been set meanwhile.
func (t *tally) until(now time.Time) time.Time {
	t.at(now)
	end := t.started.Add(time.Duration(t.number) * stepTime)
	return now.Add(end.Sub(now))
}

// quiet returns for how long nothing to speak of has gone out, of the last 15
// minutes and since the start: no push was done, and in no step the store
// acknowledged more than so many bytes.
func (t *tally) quiet(now time.Time, little int64) time.Duration {
	t.at(now)
	silent := 0
	for ; silent <= min(steps, t.number); silent++ {
		if s := &t.ring[(t.number-silent)%len(t.ring)]; s.Done > 0 || s.acked > little {
			break
		}
	}
	return time.Duration(max(0, silent-1)) * stepTime // without the one that is not over
}
