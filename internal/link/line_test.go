//go:build linux

package link

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestLine(t *testing.T) {
	const ms = time.Millisecond
	type packet struct {
		now    time.Duration
		size   int
		fate   fate
		arrive time.Duration
	}
	for _, test := range []struct {
		name    string
		shape   Shape
		packets []packet
	}{
		{"delay alone", Shape{RTT: 20 * ms}, []packet{
			{0, 1500, arrives, 10 * ms},
			{0, 1500, arrives, 10 * ms},
			{5 * ms, 40, arrives, 15 * ms},
		}},
		{"one after another", Shape{RTT: 20 * ms, Rate: 8e6}, []packet{ // 1 ms for 1000 bytes
			{0, 1000, arrives, 11 * ms},
			{0, 500, arrives, 11*ms + ms/2},
			{0, 1000, arrives, 12*ms + ms/2},
			{10 * ms, 1000, arrives, 21 * ms}, // the line was free in between
		}},
		{"a full queue", Shape{Rate: 8e6, Queue: 2 * ms}, []packet{
			{0, 1000, arrives, 1 * ms},
			{0, 1000, arrives, 2 * ms},
			{0, 1000, overflows, 0},
			{0, 1, overflows, 0},
			{1 * ms, 1000, arrives, 3 * ms}, // what was dropped has taken no time
			{1 * ms, 1000, overflows, 0},
		}},
		{"all lost", Shape{Rate: 8e6, Queue: 2 * ms, Loss: 1}, []packet{
			{0, 1000, isLost, 0},
			{0, 1000, isLost, 0},
			{0, 1000, overflows, 0}, // what was lost has had its time and place
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLine(test.shape, 0)
			for i, p := range test.packets {
				if what, at := l.take(p.now, p.size); what != p.fate || at != p.arrive {
					t.Errorf("packet %d: fate %d at %v, not %d at %v", i, what, at, p.fate, p.arrive)
				}
			}
		})
	}
}

// TestLineLoses checks the share of losses, and that it is the seed that
// decides which.
func TestLineLoses(t *testing.T) {
	const packets, share = 200_000, 0.001
	run := func(seed, direction uint64) (lost []int) {
		l := newLine(Shape{Loss: share, Seed: seed}, direction)
		for i := range packets {
			if what, _ := l.take(0, MTU); what == isLost {
				lost = append(lost, i)
			}
		}
		return lost
	}
	first := run(1, 0)
	mean := packets * share
	if off := math.Abs(float64(len(first)) - mean); off > 4*math.Sqrt(mean) {
		t.Errorf("%d of %d packets lost, not about %.0f", len(first), packets, mean)
	}
	if again := run(1, 0); !slices.Equal(first, again) {
		t.Error("the same seed loses other packets")
	}
	if slices.Equal(first, run(2, 0)) || slices.Equal(first, run(1, 1)) {
		t.Error("another seed, or the other direction, loses the same packets")
	}
}
