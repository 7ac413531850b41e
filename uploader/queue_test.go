package uploader

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// line is a queue with a clock and names for what is in it.
type line struct {
	queue
	now time.Time
	ids uint64
}

func newLine(places int) *line { return &line{queue: newQueue(places), now: time.Unix(1_000_000, 0)} }

// accept adds a push to the object bucket/key; wanted is how many wait for it.
func (l *line) accept(bucket, key string, k kind, wanted int32) *entry {
	l.ids++
	e := &entry{kind: k, wanted: wanted, since: l.now.UnixNano()}
	binary.BigEndian.PutUint64(e.id[:], l.ids)
	for _, c := range bucket + "/" + key {
		e.object = e.object*131 + uint64(c)
	}
	l.add(e, bucket)
	return e
}

// start gives a place to the next small push, which must be the one expected.
func (l *line) start(t *testing.T, want *entry) {
	t.Helper()
	got := l.next(single, l.now)
	if got != want {
		t.Fatalf("next is %s, want %s", name(got), name(want))
	}
}

func name(e *entry) string {
	if e == nil {
		return "none"
	}
	return fmt.Sprint(binary.BigEndian.Uint64(e.id[:8]))
}

// done ends a push that has a place.
func (l *line) done(e *entry) {
	l.end(e)
	l.remove(e)
}

func TestQueueGoesByAge(t *testing.T) {
	l := newLine(10)
	a, b := l.accept("raw", "a", single, 0), l.accept("other", "b", single, 0)
	l.start(t, a)
	l.start(t, b)
	l.start(t, nil)
	l.done(a)
	l.done(b)
	if l.size != 0 || len(l.chains) != 0 || len(l.buckets) != 0 || l.running != [2]int{} {
		t.Errorf("an empty queue has %+v", l.queue)
	}
}

func TestQueueHasPlacesOfEachKind(t *testing.T) {
	l := newLine(2)
	for i := range 3 {
		l.accept("raw", fmt.Sprint("large", i), part, 0)
	}
	small := l.accept("raw", "small", single, 0)
	for i := range 3 {
		if e := l.next(part, l.now); (e != nil) != (i < 2) {
			t.Errorf("of two places the large file %d gets %s", i, name(e))
		}
	}
	l.start(t, small)
}

// TestObjectsGoInOrder has pushes to one object, of which the first fails: what
// follows must wait for it, through another attempt, whoever waits for what.
func TestObjectsGoInOrder(t *testing.T) {
	l := newLine(10)
	first, other := l.accept("raw", "k", single, 0), l.accept("raw", "other", single, 0)
	second, third := l.accept("raw", "k", single, 0), l.accept("raw", "k", single, 1)
	l.start(t, first) // since somebody waits for the third
	l.start(t, other)
	l.start(t, nil)
	l.retry(first, l.now.Add(time.Minute))
	l.start(t, nil)
	if at, ok := l.wakeup(); !ok || !at.Equal(l.now.Add(time.Minute)) {
		t.Errorf("wakes up at %v, %v", at, ok)
	}
	l.now = l.now.Add(time.Minute)
	l.expire(l.now)
	l.start(t, first)
	l.end(first)
	l.start(t, nil) // its end is not on disk yet
	l.remove(first)
	l.start(t, second)
	l.done(second)
	l.start(t, third)
}

func TestCancelledPushesAreLeftOut(t *testing.T) {
	l := newLine(10)
	first, second, third, fourth := l.accept("raw", "k", single, 0), l.accept("raw", "k", single, 0), l.accept("raw", "k", single, 0), l.accept("raw", "k", single, 0)
	l.start(t, first)
	l.done(second) // in the middle
	l.end(third)   // in the middle, and not on disk for a while
	l.done(first)
	l.start(t, nil)
	l.remove(third)
	l.start(t, fourth)
	l.done(fourth)
	last := l.accept("raw", "k", single, 0)
	after := l.accept("raw", "k", single, 0)
	l.done(after) // at the end
	l.done(last)  // before it had a place
	l.start(t, nil)
	if l.size != 0 || len(l.chains) != 0 {
		t.Errorf("%d left in %d chains", l.size, len(l.chains))
	}
}

// TestWantedGoFirst: of a long backlog, those that somebody waits for go before
// the others, but for every eighth start.
func TestWantedGoFirst(t *testing.T) {
	l := newLine(1)
	for i := range 100 {
		l.accept("raw", fmt.Sprint("backlog", i), single, 0)
	}
	running := l.next(single, l.now)
	wait := l.accept("raw", "waited", single, 1)
	l.done(running)
	l.start(t, wait) // one push that ran was all that he waited for
	l.done(wait)
	started := 0
	for i := range 160 {
		l.accept("raw", fmt.Sprint("waited", i), single, 1)
		e := l.next(single, l.now)
		if e.wanted == 0 {
			started++
		}
		l.done(e)
	}
	if started != 20 {
		t.Errorf("of 160 starts %d were of pushes that nobody waits for, want every eighth", started)
	}
}

// TestWaitingChangesTheOrder has callers come and go.
func TestWaitingChangesTheOrder(t *testing.T) {
	l := newLine(1)
	l.starts[single] = 0
	a, b, c := l.accept("raw", "a", single, 0), l.accept("raw", "b", single, 1), l.accept("raw", "c", single, 0)
	l.setWanted(b, -1) // hung up
	l.setWanted(c, 1)  // the same request again
	l.start(t, c)
	l.done(c)
	l.start(t, a)
	l.done(a)
	l.start(t, b)
}

// TestFailingPushesLeaveRoom: pushes that failed before take half of the places
// at most, though they are the older ones.
func TestFailingPushesLeaveRoom(t *testing.T) {
	l := newLine(4)
	var failing []*entry
	for i := range 8 {
		failing = append(failing, l.accept(fmt.Sprint("bucket", i), "k", single, 0))
	}
	for range 2 {
		for range 4 {
			l.retry(l.next(single, l.now), l.now)
		}
	}
	fresh := []*entry{l.accept("raw", "a", single, 0), l.accept("raw", "b", single, 0), l.accept("raw", "c", single, 0)}
	l.expire(l.now)
	l.start(t, failing[0])
	l.start(t, failing[1])
	l.start(t, fresh[0])
	l.start(t, fresh[1])
	l.done(failing[0])
	l.start(t, failing[2])
	l.done(fresh[0])
	l.start(t, fresh[2])
	l.done(fresh[1])
	l.start(t, failing[3]) // nobody else is there
	if l.again[single] != 3 {
		t.Errorf("%d places are taken by pushes that failed before", l.again[single])
	}
}

// TestBucketOnTrial: a bucket that fails is tried once a second, holds up no
// other, and comes back as a whole.
func TestBucketOnTrial(t *testing.T) {
	l := newLine(10)
	var bad []*entry
	for i := range 10 {
		bad = append(bad, l.accept("bad", fmt.Sprint(i), single, 0))
	}
	for i := range failuresForTrial {
		l.start(t, bad[i])
	}
	for i := range failuresForTrial {
		l.retry(bad[i], l.now.Add(time.Hour))
		l.failure(bad[i].bucket, l.now, 0)
	}
	l.start(t, nil)
	good := l.accept("good", "k", single, 0)
	l.start(t, good)
	if at, ok := l.wakeup(); !ok || !at.Equal(l.now.Add(trialInterval)) {
		t.Errorf("wakes up at %v, %v, want after %v", at, ok, trialInterval)
	}
	l.now = l.now.Add(trialInterval)
	l.start(t, bad[5]) // one
	l.start(t, nil)
	l.retry(bad[5], l.now.Add(time.Hour))
	l.failure(bad[5].bucket, l.now, time.Minute) // Retry-After
	l.now = l.now.Add(time.Minute)
	l.start(t, nil)
	l.now = l.now.Add(backoffBase)
	l.start(t, bad[9]) // a young one
	l.start(t, nil)
	l.now = l.now.Add(trialPatience) // it hangs
	l.start(t, bad[6])
	l.end(bad[8]) // cancelled meanwhile
	l.acquit(bad[6].bucket, l.now)
	l.done(bad[6])
	var all []*entry
	for e := l.next(single, l.now); e != nil; e = l.next(single, l.now) {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *entry) int { return a.id.Compare(b.id) })
	want := append(slices.Clone(bad[:6]), bad[7])
	if !slices.Equal(all, want) {
		t.Errorf("%d pushes start at once when the bucket is back, want those that failed or were set aside, %d", len(all), len(want))
	}
}

// TestTrialsOfManyDaemons: daemons that a store refuses at the same moment, or asks to
// come again after the same time, do not try it at the same moment.
func TestTrialsOfManyDaemons(t *testing.T) {
	for _, pause := range []time.Duration{0, 5 * time.Second} {
		var first []time.Duration
		for i := range 10 {
			l := newLine(10)
			l.jitter = func(d time.Duration) time.Duration { return time.Duration(i) * d / 10 }
			for n := range failuresForTrial {
				l.failure(l.accept("bad", fmt.Sprint(n), single, 0).bucket, l.now, pause)
			}
			due := l.buckets["bad"].trial.due.Sub(l.now)
			if due < pause || due > pause+trialInterval || slices.Contains(first, due) {
				t.Errorf("asked to pause for %v, the daemon %d tries it after %v, others after %v", pause, i, due, first)
			}
			first = append(first, due)
			if pause > 0 {
				continue
			}
			again := l.now.Add(due)
			if l.failure(l.buckets["bad"], again, 0); l.buckets["bad"].trial.due != again.Add(trialInterval) {
				t.Errorf("after the first try there is another at %v, want a second later", l.buckets["bad"].trial.due.Sub(again))
			}
		}
	}
}

// fallSick has so many pushes to the bucket fail, which puts it on trial.
func (l *line) fallSick(t *testing.T, bucket string, n int) (sick []*entry) {
	t.Helper()
	for i := range n {
		sick = append(sick, l.accept(bucket, fmt.Sprint("sick", i), single, 0))
	}
	for range n {
		e := l.next(single, l.now)
		l.retry(e, l.now.Add(time.Hour))
		l.failure(e.bucket, l.now, 0)
		l.now = l.now.Add(trialInterval)
	}
	if sick[0].bucket.trial == nil {
		t.Fatal("the bucket is not on trial")
	}
	return sick
}

// TestTrialTriesTheSound: a bucket on trial is tried with what somebody waits
// for, then with what has failed least often, an old one and a young one in turn;
// but every eighth try is not for those who wait.
func TestTrialTriesTheSound(t *testing.T) {
	l := newLine(10)
	sick := l.fallSick(t, "raw", 20)
	l.now = l.now.Add(time.Hour)
	l.expire(l.now)
	try := func() *entry {
		t.Helper()
		e := l.next(single, l.now)
		if e == nil {
			t.Fatal("none is tried")
		}
		l.start(t, nil)
		l.retry(e, l.now)
		l.failure(e.bucket, l.now, 0)
		l.now = l.now.Add(trialInterval)
		l.expire(l.now)
		return e
	}
	want := func(e *entry) {
		t.Helper()
		if got := try(); got != e {
			t.Fatalf("%s is tried, want %s", name(got), name(e))
		}
	}
	want(sick[0])
	want(sick[1])
	var untried []*entry
	for i := range 20 {
		untried = append(untried, l.accept("raw", fmt.Sprint("untried", i), single, 0))
	}
	ends := map[*entry]bool{try(): true, try(): true}
	young := slices.ContainsFunc(untried[15:], func(e *entry) bool { return ends[e] })
	if !ends[untried[0]] || !young {
		t.Error("the first two are not the oldest and a young one")
	}
	waited := untried[10]
	l.setWanted(waited, 1)
	for range wantedInARow {
		want(waited)
	}
	if e := try(); e.failures != 1 {
		t.Errorf("%s is tried, which nobody waits for, and failed %d times", name(e), e.failures)
	}
	want(waited)
	l.setWanted(waited, -1)
	for _, e := range untried {
		l.done(e)
	}
	for _, e := range sick[2:] {
		want(e)
	}
	want(sick[0])
}

// TestLastChance: what is to be given up untried is tried out of turn, but so
// that what hangs does not take all places.
func TestLastChance(t *testing.T) {
	l := newLine(20)
	sick := l.fallSick(t, "raw", 6)
	b := sick[0].bucket
	var waited []*entry
	for i := range 20 {
		waited = append(waited, l.accept("raw", fmt.Sprint("waited", i), single, 1))
	}
	first := l.next(single, l.now) // the others are set aside
	l.start(t, nil)
	for _, e := range slices.Backward(waited) {
		l.lastChance(e)
		l.lastChance(e) // it has one
	}
	if first != waited[0] {
		t.Errorf("%s is tried first", name(first))
	}
	for _, e := range waited[1 : l.places/4] { // a quarter of the places in all
		l.start(t, e)
	}
	l.start(t, nil)
	due := b.trial.due
	l.retry(waited[1], l.now)
	l.expire(l.now)
	l.start(t, waited[5])
	l.start(t, nil)
	l.end(waited[6])
	l.end(waited[5])
	l.start(t, waited[7])
	l.failure(b, due.Add(-trialInterval/2), 0)
	if b.trial.due != due {
		t.Errorf("what fails out of turn puts the next try off by %v", b.trial.due.Sub(due))
	}
	l.acquit(b, l.now)
	l.start(t, waited[1])
	l.start(t, waited[8])
}

// TestSickAreNotHastenedForEver: where some keys of a bucket are sick, each
// success of a sound one does not have them tried at once.
func TestSickAreNotHastenedForEver(t *testing.T) {
	l := newLine(2)
	sick := l.fallSick(t, "raw", 8)
	b := sick[0].bucket
	count := func() (n int) {
		for e := l.next(single, l.now); e != nil; e = l.next(single, l.now) {
			l.retry(e, l.now.Add(time.Hour))
			l.failure(b, l.now, 0)
			n++
		}
		return n
	}
	for round, want := range []int{5, 3, 0, 0} { // until it is on trial again, the rest of them, and none
		l.acquit(b, l.now)
		if n := count(); n != want {
			t.Errorf("round %d: %d of the sick are tried because a sound one was delivered, want %d", round, n, want)
		}
		l.now = l.now.Add(trialInterval / 2)
		for range failuresForTrial {
			l.failure(b, l.now, 0)
		}
	}
	l.now = l.now.Add(patientCap)
	l.acquit(b, l.now)
	if n := count(); n != failuresForTrial {
		t.Errorf("%d are tried after a while, want some again", n)
	}
}

// TestSoundBucketIsNotPutOnTrialSoon: a bucket that has just taken a push is
// given more failures than one that has not.
func TestSoundBucketIsNotPutOnTrialSoon(t *testing.T) {
	l := newLine(10)
	b := l.accept("raw", "k", single, 0).bucket
	for _, tc := range []struct {
		since  time.Duration // the last success
		enough int
	}{{trialInterval / 2, 20}, {trialInterval, failuresForTrial}} {
		l.acquit(b, l.now)
		l.now = l.now.Add(tc.since)
		n := 0
		for b.trial == nil {
			l.failure(b, l.now, 0)
			n++
		}
		if n != tc.enough {
			t.Errorf("%v after a success %d failures put it on trial, want %d", tc.since, n, tc.enough)
		}
	}
}

func TestPauseAndResume(t *testing.T) {
	l := newLine(10)
	a, b := l.accept("raw", "a", single, 1), l.accept("raw", "b", single, 0)
	l.start(t, a)
	l.retry(a, l.now.Add(time.Hour))
	l.paused = true
	l.start(t, nil)
	l.resume()
	l.start(t, a)
	l.start(t, b)
}

// TestQueueAtRandom does anything at any moment and compares with what must
// hold: places, order within objects, nothing lost.
func TestQueueAtRandom(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		l := newLine(1 + r.IntN(5))
		running := map[*entry]bool{}
		all := map[*entry]bool{}
		leaving := map[*entry]bool{}
		last := map[uint64]push.ID{}
		pick := func(m map[*entry]bool) *entry {
			keys := make([]*entry, 0, len(m))
			for e := range m {
				keys = append(keys, e)
			}
			slices.SortFunc(keys, func(a, b *entry) int { return a.id.Compare(b.id) })
			return keys[r.IntN(len(keys))]
		}
		for step := range 1500 {
			l.now = l.now.Add(time.Duration(r.IntN(300)) * time.Millisecond)
			switch n := r.IntN(10); {
			case n < 3 && step < 1000:
				all[l.accept(fmt.Sprint(r.IntN(3)), fmt.Sprint(r.IntN(20)), kind(r.IntN(2)), int32(r.IntN(2)))] = true
			case n == 3 && len(all) > 0:
				e := pick(all)
				if e.stage != ending {
					l.setWanted(e, cmp.Or(-e.wanted, 1))
				}
			case n == 4 && len(running) > 0:
				e := pick(running)
				delete(running, e)
				l.retry(e, l.now.Add(time.Duration(r.IntN(5000))*time.Millisecond))
				l.failure(e.bucket, l.now, 0)
			case n == 5 && len(all) > 0 && r.IntN(4) == 0: // cancelled while it waits
				if e := pick(all); e.stage != started && e.stage != ending {
					l.end(e)
					leaving[e] = true
				}
			case n == 6 && len(running) > 0 || step >= 1000 && len(running) > 0:
				e := pick(running)
				delete(running, e)
				if before := last[e.object]; e.id.Compare(before) < 0 {
					t.Fatalf("seed %d: %s to one object ends after a younger one", seed, name(e))
				}
				last[e.object] = e.id
				l.acquit(e.bucket, l.now)
				l.end(e)
				leaving[e] = true
			case n == 7 && len(leaving) > 0 || step >= 1000 && len(leaving) > 0:
				e := pick(leaving)
				delete(leaving, e)
				delete(all, e)
				l.remove(e)
			case n == 8:
				l.paused = !l.paused && step < 1000
				if !l.paused {
					l.resume()
				}
			}
			l.expire(l.now) // as a worker does, before it asks for the next
			for _, k := range []kind{single, part} {
				if e := l.next(k, l.now); e != nil {
					if running[e] || !all[e] || e.kind != k || l.paused {
						t.Fatalf("seed %d: %s starts and may not", seed, name(e))
					}
					running[e] = true
				} else if err := l.mayRest(k, all); err != nil {
					t.Fatalf("seed %d: none of kind %d starts, though %v", seed, k, err)
				}
			}
			places := [2]int{}
			objects := map[uint64]bool{}
			for e := range running {
				places[e.kind]++
				if objects[e.object] {
					t.Fatalf("seed %d: two pushes to one object run", seed)
				}
				objects[e.object] = true
			}
			waiting := 0
			for e := range all {
				if e.stage == backoff {
					waiting++
				}
				if _, told := l.atWork[e]; told != (running[e] || leaving[e]) {
					t.Fatalf("seed %d: %s is at work: %v, and is counted so: %v", seed, name(e), !told, told)
				}
			}
			if waiting != l.retrying || len(l.atWork) != len(running)+len(leaving) {
				t.Fatalf("seed %d: %d wait for another try, %d counted; %d at work, %d counted", seed, waiting, l.retrying, len(running)+len(leaving), len(l.atWork))
			}
			if places != l.running || places[0] > l.places || places[1] > l.places || l.size != len(all) {
				t.Fatalf("seed %d: %v places taken, %v counted, of %d; %d pushes, %d counted", seed, places, l.running, l.places, len(all), l.size)
			}
		}
		for len(all) > 0 { // whatever is left must come to its end
			l.now = l.now.Add(time.Hour)
			l.resume()
			l.expire(l.now)
			moved := false
			for e := range leaving {
				delete(leaving, e)
				delete(all, e)
				l.remove(e)
				moved = true
			}
			for _, k := range []kind{single, part} {
				if e := l.next(k, l.now); e != nil {
					running[e] = true
				}
			}
			for e := range running {
				delete(running, e)
				delete(all, e)
				l.acquit(e.bucket, l.now)
				l.done(e)
				moved = true
			}
			if !moved {
				t.Fatalf("seed %d: %d pushes never have their turn", seed, len(all))
			}
		}
		if l.size != 0 || len(l.chains) != 0 || len(l.buckets) != 0 || len(l.onTrial) != 0 || l.again != [2]int{} || l.retrying != 0 || len(l.atWork) != 0 {
			t.Fatalf("seed %d: an empty queue has %+v", seed, l.queue)
		}
	}
}

// mayRest returns an error if one of the pushes of that kind should have started, or
// will be forgotten: what waits for time alone must be in wakeup.
func (l *line) mayRest(k kind, all map[*entry]bool) error {
	if l.paused || l.running[k] >= l.places {
		return nil
	}
	wakes, is := l.wakeup()
	by := func(due time.Time) bool { return is && !wakes.After(due) }
	for e := range all {
		if e.kind != k {
			continue
		}
		switch e.stage {
		case ready:
			return fmt.Errorf("%s is ready", name(e))
		case backoff:
			if due := time.Unix(0, e.due); !due.After(l.now) || !by(due) {
				return fmt.Errorf("%s waits until %v, it is %v, and the next to be woken is at %v, %v", name(e), due, l.now, wakes, is)
			}
		case aside:
			if t := e.bucket.trial; len(t.tries) < mostTrials && (!t.due.After(l.now) || !by(t.due)) {
				return fmt.Errorf("%s may try its bucket at %v, it is %v, and the next to be woken is at %v, %v", name(e), t.due, l.now, wakes, is)
			}
		case held:
			if l.chains[e.object] == e {
				return fmt.Errorf("%s is held by none", name(e))
			}
		}
	}
	return nil
}

// TestAMillionPushesAreSmall holds what a long queue may cost.
func TestAMillionPushesAreSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second")
	}
	const n = 1_000_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	l := newLine(25)
	for i := range uint64(n) {
		e := &entry{kind: single, object: i * 0x9e3779b97f4a7c15}
		binary.BigEndian.PutUint64(e.id[:], i)
		l.add(e, "raw")
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := float64(after.HeapAlloc-before.HeapAlloc) / n; each > 190 {
		t.Errorf("a queued push takes %.0f bytes, so that a million would not stay under 400 MB with the room that the garbage collector wants", each)
	} else {
		t.Logf("a queued push takes %.0f bytes", each)
	}
	runtime.KeepAlive(l)
}

func BenchmarkQueue(b *testing.B) {
	l := newLine(25)
	for i := range 100_000 {
		l.accept("raw", fmt.Sprint("backlog", i), single, 0)
	}
	for i := range b.N {
		e := l.accept("raw", fmt.Sprint(i), single, 1)
		if i%8 == 7 {
			l.done(e)
			continue
		}
		l.done(l.next(single, l.now))
	}
}

// TestOldestInTurn: neither what waits for another try, or has had one, nor what is behind
// it or set aside waits for its turn alone.
func TestOldestInTurn(t *testing.T) {
	l := newLine(1)
	want := func(when string, e *entry) {
		t.Helper()
		if got := l.oldestInTurn(); got != e {
			t.Errorf("%s: %s, want %s", when, name(got), name(e))
		}
	}
	want("at the start", nil)
	sick := l.accept("raw", "sick", single, 0)
	l.accept("raw", "sick", single, 0)
	want("accepted", sick)
	l.start(t, sick)
	want("started", nil)
	l.retry(sick, l.now.Add(time.Second))
	want("tried again later", nil)
	large, small := l.accept("raw", "large", part, 0), l.accept("raw", "small", single, 1)
	want("of each kind", large)
	l.end(large)
	want("the older one cancelled", small)
	l.expire(l.now.Add(time.Second))
	want("behind one that failed", small)
	l.start(t, small)
	want("all tried", nil)
}
