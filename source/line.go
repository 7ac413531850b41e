package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// How long a call on a file is waited for, once it is its turn. Disks that are busy or asleep take
// seconds; what takes longer than this hangs, as far as anybody can tell.
const (
	openPatience = 10 * time.Second // for all that it takes to open a file, or to look at it again
	readPatience = 30 * time.Second
	syncPatience = 5 * time.Minute // a large file takes its time
	// waryPatience is for all but Sync where another call is known to hang: many
	// files that hang must not hold their callers up for the whole time, each.
	waryPatience = 3 * time.Second
	// parting is what Check still has once its context has ended.
	parting = time.Second
	// mostCalls is how many calls may be under way at once, each of which holds
	// a thread if its file system hangs. One device may have half of them.
	mostCalls = 512
	// lookAgain is how often one who waits for his turn looks who has it.
	lookAgain = time.Second
)

// errHangs marks a call that did not return in time.
var errHangs = errors.New("the file system does not answer")

// crowdedError is of a call that was not made, since others hang.
type crowdedError struct{ underWay, hanging int }

func (e *crowdedError) Error() string {
	return fmt.Sprintf("%d calls on files are under way, %d of which hang", e.underWay, e.hanging)
}

// lines are the paths that files are open of, or calls under way on.
type lines struct {
	places chan struct{} // one element for each call under way

	mu      sync.Mutex // guards all below, and the lines' own
	byPath  map[string]*line
	devices map[uint64]*device // those that there were calls on; 0: not known
	hang    int                // calls that outlasted a caller's patience and have not returned
}

// device is one that calls are under way on, or what is not known to be on any.
type device struct {
	places chan struct{} // one element for each call under way
	hang   int           // guarded by lines.mu
}

func newLines(places int) *lines {
	return &lines{places: make(chan struct{}, places), byPath: make(map[string]*line), devices: make(map[uint64]*device)}
}

func (a *lines) deviceLocked(number uint64) *device {
	d := a.devices[number]
	if d == nil {
		d = &device{places: make(chan struct{}, cap(a.places)/2)}
		a.devices[number] = d
	}
	return d
}

// line has the calls on one path wait for each other. So however often a file
// is asked for whose file system hangs, one thread is stuck and no more.
type line struct {
	all  *lines
	path string
	turn chan struct{} // has an element while a call is under way

	// Guarded by lines.mu.
	users   int       // files that are open, and calls under way
	device  uint64    // 0: not known
	due     time.Time // when the call under way counts as hanging; zero: there is none
	overdue bool      // it is counted among those that hang
	on      *device   // what it has a place of
}

// join returns the line of the path, which is kept until it is left.
func (a *lines) join(path string) *line {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.byPath[path]
	if l == nil {
		l = &line{all: a, path: path, turn: make(chan struct{}, 1)}
		a.byPath[path] = l
	}
	l.users++
	return l
}

func (l *line) leave() {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	l.leaveLocked()
}

func (l *line) leaveLocked() {
	if l.users--; l.users == 0 {
		delete(l.all.byPath, l.path)
	}
}

// isOn notes the device that the path leads to.
func (l *line) isOn(device uint64) {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	l.device = device
}

// do makes a call on a file in a goroutine of its own, and waits until it
// returns, the patience is over or the context ends. A call that is not waited
// for any more goes on, and what it returns in the end is given to late. The
// patience is for the call itself: those before it on the path may take as long
// as they are waited for. Where one of these has been under way for too long, or
// as many calls hang as may, do fails at once. The error is errHangs, a
// *crowdedError or the context's cause.
func do[T any](ctx context.Context, l *line, patience time.Duration, call func() T, late func(T)) (T, error) {
	var none T
	patience, err := l.begin(ctx, patience)
	if err != nil {
		return none, err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	result := make(chan T, 1)
	var decided atomic.Bool // who of the two came first: the call's return, or the end of the waiting
	go func() {
		v := call()
		if decided.CompareAndSwap(false, true) {
			l.end()
			result <- v
			return
		}
		late(v) // which may hang as well
		l.end()
	}()
	select {
	case v := <-result:
		return v, nil
	case <-timer.C:
		err = errHangs
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if !decided.CompareAndSwap(false, true) {
		return <-result, nil
	}
	if err == errHangs {
		l.hangs()
	}
	return none, err
}

// shorten returns how long to be patient, with what is known of other calls.
func (l *line) shorten(patience time.Duration) time.Duration {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	others := l.all.hang
	if l.device != 0 {
		others = l.all.deviceLocked(l.device).hang
	}
	if others > 0 && patience < syncPatience {
		return min(patience, waryPatience)
	}
	return patience
}

// begin waits for the call's turn and its place, and returns how long it is to be
// waited for.
func (l *line) begin(ctx context.Context, patience time.Duration) (time.Duration, error) {
	if err := l.takeTurn(ctx); err != nil {
		return 0, err
	}
	patience = l.shorten(patience)
	on, err := l.takePlace(ctx, patience)
	if err != nil {
		<-l.turn
		return 0, err
	}
	l.started(on, patience)
	return patience, nil
}

// started notes that a call is under way.
func (l *line) started(on *device, patience time.Duration) {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	l.users++
	l.on, l.due = on, time.Now().Add(patience)
}

// takeTurn waits for the calls that came before on the path, none of which may
// take too long.
func (l *line) takeTurn(ctx context.Context) error {
	for {
		left, hangs := l.underWay()
		if hangs {
			return errHangs
		}
		timer := time.NewTimer(left)
		select {
		case l.turn <- struct{}{}:
			timer.Stop()
			return nil
		case <-timer.C: // that call hangs, or another has followed it
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// underWay returns how long the call under way may still take, or that it should
// have returned.
func (l *line) underWay() (left time.Duration, hangs bool) {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	if l.due.IsZero() { // there is none, or it has no place yet
		return lookAgain, false
	}
	left = time.Until(l.due)
	if left <= 0 {
		l.countLocked()
	}
	return left, left <= 0
}

// takePlace takes a place of the device, and of all.
func (l *line) takePlace(ctx context.Context, patience time.Duration) (*device, error) {
	l.all.mu.Lock()
	on := l.all.deviceLocked(l.device)
	full := on.hang >= cap(on.places) || l.all.hang >= cap(l.all.places)
	l.all.mu.Unlock()
	if full {
		return nil, l.crowded(on)
	}
	over := time.NewTimer(patience)
	defer over.Stop()
	taken := 0
	for _, places := range []chan struct{}{on.places, l.all.places} {
		var err error
		select {
		case places <- struct{}{}:
			taken++
			continue
		case <-over.C:
			err = l.crowded(on)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if taken > 0 {
			<-on.places
		}
		return nil, err
	}
	return on, nil
}

// crowded says what is under way on the device, or in all where that is what
// leaves no room.
func (l *line) crowded(on *device) error {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	if len(on.places) == cap(on.places) {
		return &crowdedError{len(on.places), on.hang}
	}
	return &crowdedError{len(l.all.places), l.all.hang}
}

// hangs counts the call under way among those that hang, until its end.
func (l *line) hangs() {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	l.countLocked()
}

func (l *line) countLocked() {
	if l.due.IsZero() || l.overdue { // it has just returned, or is counted
		return
	}
	l.overdue = true
	l.on.hang++
	l.all.hang++
}

// end gives the turn and the place of a call back that has returned.
func (l *line) end() {
	l.all.mu.Lock()
	if l.overdue {
		l.overdue = false
		l.on.hang--
		l.all.hang--
	}
	on := l.on
	l.on, l.due = nil, time.Time{}
	l.leaveLocked()
	l.all.mu.Unlock()
	<-l.all.places
	<-on.places
	<-l.turn
}

// close closes a file of the line when its turn comes, however long that takes.
func (l *line) close(c io.Closer) {
	l.turn <- struct{}{}
	l.all.mu.Lock()
	on := l.all.deviceLocked(l.device)
	l.all.mu.Unlock()
	on.places <- struct{}{}
	l.all.places <- struct{}{}
	l.started(on, openPatience)
	c.Close()
	l.end()
}
