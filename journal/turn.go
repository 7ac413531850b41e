package journal

import (
	"runtime"
	"time"
)

const (
	// turnLooks is how many pushes a scan looks at in a turn, which takes some 2 ms.
	turnLooks = 4096
	// turnRest is how long it rests behind each at least: it takes a third of a
	// processor at most.
	turnRest = 4 * time.Millisecond
	// longScans is how many scans go on at once behind their first turn. The others
	// wait, and all have their turns one after another.
	longScans = 2
)

// turn is what a scan may look at before it lets others go on. The first is free: most
// scans have found by then what they are for. For each further one it has to have one of
// few places, where it also rests, so that many scans take no more than few do.
type turn struct {
	long   chan struct{} // the places
	looked int
	placed bool
	begun  time.Time
}

// next lets others go on, for long where the turn is over, and begins another then.
func (t *turn) next() {
	if t.looked < turnLooks {
		runtime.Gosched()
		return
	}
	if t.placed {
		time.Sleep(max(turnRest, 2*time.Since(t.begun))) // which was longer on a slow machine
	}
	t.end()
	t.long <- struct{}{}
	t.placed, t.looked, t.begun = true, 0, time.Now()
}

// end gives the place back, if there is one.
func (t *turn) end() {
	if t.placed {
		<-t.long
	}
	t.placed = false
}
