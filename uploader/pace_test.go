package uploader

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// sendAll has that many parts of a MB go at the pace, over a link on which that
// many together take the time that the function says, and returns the most that
// were under way at once, and how long it took.
func sendAll(p *pace, parts int, takes func(underway int) time.Duration) (most int, took time.Duration) {
	begun := time.Unix(0, 0)
	now := begun
	ends := make(map[int32]time.Time)
	for next := int32(1); next <= int32(parts) || len(ends) > 0; {
		for next <= int32(parts) && p.mayBegin() {
			p.begin(next)
			p.sending(next, now)
			ends[next] = time.Time{}
			next++
		}
		most = max(most, len(ends))
		// All of them share the link as they are now.
		first := int32(0)
		for number, at := range ends {
			if at.IsZero() {
				ends[number] = now.Add(takes(len(ends)))
			}
			if first == 0 || ends[number].Before(ends[first]) {
				first = number
			}
		}
		now = ends[first]
		delete(ends, first)
		p.end(first, 1_000_000, now)
	}
	return most, now.Sub(begun)
}

// On a slow link more parts at once are slower each, so there are few. On a long
// one they are not, so there are as many as there may be, and soon.
func TestPace(t *testing.T) {
	shared := func(underway int) time.Duration { return time.Duration(underway) * 100 * time.Millisecond }
	long := func(int) time.Duration { return time.Second }
	begun := 0
	burst := func(int) time.Duration { // which six parts get through with
		if begun++; begun > 6 {
			return time.Second
		}
		return 100 * time.Millisecond
	}
	for _, tc := range []struct {
		name        string
		limit       int
		parts       int
		takes       func(int) time.Duration
		least, most int
	}{
		{"slow", 25, 25, shared, 4, 6},
		{"slow, and many parts", 25, 250, shared, 4, 11},
		{"long and fat", 25, 200, long, 25, 25},
		{"fast at first only", 25, 128, burst, 20, 25},
		{"a small pool", 3, 200, long, 3, 3},
		{"a pool of one", 1, 200, shared, 1, 1},
	} {
		p := newPace(firstParts, tc.limit)
		most, took := sendAll(&p, tc.parts, tc.takes)
		if most < tc.least || most > tc.most {
			t.Errorf("%s: %d parts at once, want %d to %d", tc.name, most, tc.least, tc.most)
		}
		if tc.name == "long and fat" && took > 18*time.Second { // 8 s for 25 at once from the first
			t.Errorf("200 parts took %v", took)
		}
	}
}

// What a part tells is of the time when it began: four that ended at once do not
// make eight.
func TestPaceGrowsByWhatWasTried(t *testing.T) {
	p := newPace(firstParts, 25)
	at := time.Unix(0, 0)
	for n := range int32(4) {
		p.begin(n)
		p.sending(n, at)
	}
	for n := range int32(4) {
		p.end(n, 1, at.Add(time.Second))
	}
	if p.room != 5 {
		t.Errorf("room for %d after four parts beside each other, want 5", p.room)
	}
}

func TestPaceLongest(t *testing.T) {
	p := newPace(firstParts, 25)
	at := time.Unix(0, 0)
	if p.begin(1); p.longest(at) != 0 {
		t.Errorf("%v where nothing is known", p.longest(at))
	}
	p.sending(1, at)
	p.begin(2) // which has no slot
	if got := p.longest(at.Add(3 * time.Second)); got != 3*time.Second {
		t.Errorf("%v, where one has been under way for 3 s", got)
	}
	p.end(1, 1, at.Add(4*time.Second))
	if got := p.longest(at.Add(time.Minute)); got != 4*time.Second {
		t.Errorf("%v, where one took 4 s", got)
	}
	p.sending(2, at)
	p.sending(2, at.Add(time.Minute)) // again
	p.give(2)
	if got := p.longest(at.Add(time.Hour)); got != 4*time.Second || len(p.underway) > 0 {
		t.Errorf("%v after one that failed, %d under way", got, len(p.underway))
	}
}

// Nobody waits at a pacer for what will not come.
func TestPacer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newPacer(firstParts, 1)
		if err := g.enter(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		entered := make(chan error)
		ctx, cancel := context.WithCancelCause(t.Context())
		wait := func(number int32) {
			go func() { entered <- g.enter(ctx, number) }()
			synctest.Wait()
		}
		wait(2)
		g.leave(1, 1, nil)
		if err := <-entered; err != nil {
			t.Errorf("the second: %v", err)
		}
		wait(3)
		broken := errors.New("broken")
		g.leave(2, 1, broken)
		if err := <-entered; err != broken {
			t.Errorf("after one that failed: %v", err)
		}
		g = newPacer(firstParts, 1)
		if err := g.enter(ctx, 1); err != nil {
			t.Fatal(err)
		}
		wait(2)
		cancel(broken)
		if err := <-entered; err != broken {
			t.Errorf("after the end of the run: %v", err)
		}
	})
}
