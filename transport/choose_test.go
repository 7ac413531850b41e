package transport

import (
	"math"
	"testing"
	"time"
)

// TestChooseEnough: a request has the least warm connection that will do, else the
// warmest; of equals the one that was used last.
func TestChooseEnough(t *testing.T) {
	to, now := host{"http", "store:80"}, time.Unix(0, 0)
	var places []place
	for i, m := range []member{
		{info: Info{Rate: 7}},
		{info: Info{Rate: 5}},
		{info: Info{Rate: 100}, state: left},
		{info: Info{Rate: 5}},
		{info: Info{Rate: 60}},
		{info: Info{Rate: 1}, to: host{"http", "other:80"}},
		{},
	} {
		if m.to == (host{}) {
			m.to = to
		}
		if m.state != left {
			m.state = idle
		}
		m.since, m.place = now.Add(time.Duration(i)), i
		places = append(places, place{member: &m})
	}
	for _, tc := range []struct {
		enough float64
		want   int
	}{
		{math.Inf(1), 4}, {61, 4}, {60, 4}, {7.5, 4}, {7, 0}, {6, 0}, {5, 3}, {.1, 3}, {0, 6}, {-1, 6},
	} {
		if got := choose(places, to, tc.enough); got == nil || got.place != tc.want {
			t.Errorf("where %v will do: %+v, want that in place %d", tc.enough, got, tc.want)
		}
	}
	if got := choose(places, host{"http", "none:80"}, 0); got != nil {
		t.Errorf("a connection to another host: %+v", got)
	}
}

// TestWhatIsEnough: what goes out in one window takes any connection, and what says
// nothing else the warmest.
func TestWhatIsEnough(t *testing.T) {
	var none *Exchange
	for _, tc := range []struct {
		x    *Exchange
		body int64
		want float64
	}{
		{none, 0, 0}, {none, initialWindow, 0}, {&Exchange{Enough: 7}, initialWindow, 0},
		{none, initialWindow + 1, math.Inf(1)}, {new(Exchange), 1 << 20, math.Inf(1)},
		{&Exchange{Enough: 7}, 1 << 20, 7}, {&Exchange{Enough: -1}, 1 << 20, -1},
	} {
		if got := tc.x.enough(tc.body); got != tc.want {
			t.Errorf("%+v, for %d bytes: %v, want %v", tc.x, tc.body, got, tc.want)
		}
	}
}

// TestFirstRoundTrip: what is remembered counts, and nothing is slower than new.
func TestFirstRoundTrip(t *testing.T) {
	const trip = 100 * time.Millisecond
	for _, tc := range []struct {
		name   string
		info   Info
		rested time.Duration
		want   int64
	}{
		{"nothing is known", Info{}, 0, 0},
		{"a new one", Info{RTT: trip, Window: initialWindow}, 0, initialWindow},
		{"a rate that is remembered", Info{RTT: 2 * trip, MinRTT: trip, Algorithm: bbr, Rate: 10e6, Window: 1 << 20}, time.Hour, 1_000_000},
		{"a rate of little", Info{RTT: trip, Algorithm: bbr, Rate: 1000, Window: initialWindow}, 0, initialWindow},
		{"a window", Info{RTT: trip, Algorithm: "cubic", Window: 1 << 20}, 0, 1 << 20},
		{"a window that was forgotten", Info{RTT: trip, Algorithm: "cubic", Window: 1 << 20}, time.Hour, initialWindow},
	} {
		if got := firstRoundTrip(tc.info, tc.rested); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}
