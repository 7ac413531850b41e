package source

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// How long a call on a file is waited for. Disks that are busy or asleep take
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
	// a thread if its file system hangs.
	mostCalls = 512
)

// errHangs marks a call that did not return in time.
var errHangs = errors.New("the file system does not answer")

// lines are the paths that files are open of, or calls under way on.
type lines struct {
	places chan struct{} // one element for each call under way

	mu      sync.Mutex // guards all below, and the lines' own
	byPath  map[string]*line
	hanging map[uint64]int // calls that outlasted a caller's patience and have not returned, by device; 0: not known
	hang    int            // their sum
}

func newLines(places int) *lines {
	return &lines{places: make(chan struct{}, places), byPath: make(map[string]*line), hanging: make(map[uint64]int)}
}

// line has the calls on one path wait for each other. So however often a file
// is asked for whose file system hangs, one thread is stuck and no more.
type line struct {
	all  *lines
	path string
	turn chan struct{} // has an element while a call is under way

	// Guarded by lines.mu.
	users    int       // files that are open, and calls under way
	device   uint64    // 0: not known
	due      time.Time // when the call under way counts as hanging; zero: there is none
	overdue  bool      // it is counted among those that hang,
	onDevice uint64    // of this device
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
// for any more goes on, and what it returns in the end is given to late. Where a
// call on the path has been under way for too long already, or as many calls
// hang as may, do fails at once. The error is errHangs or the context's cause.
func do[T any](ctx context.Context, l *line, patience time.Duration, call func() T, late func(T)) (T, error) {
	var none T
	patience = l.shorten(patience)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	if err := l.begin(ctx, timer.C, patience); err != nil {
		return none, err
	}
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
	var err error
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
		others = l.all.hanging[l.device]
	}
	if others > 0 && patience < syncPatience {
		return min(patience, waryPatience)
	}
	return patience
}

// begin waits for the call's turn and its place.
func (l *line) begin(ctx context.Context, over <-chan time.Time, patience time.Duration) error {
	if l.knownToHang() {
		return errHangs
	}
	select {
	case l.turn <- struct{}{}:
	case <-over:
		return errHangs
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := l.takePlace(ctx, over); err != nil {
		<-l.turn
		return err
	}
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	l.users++
	l.due = time.Now().Add(patience)
	return nil
}

// knownToHang reports whether the call under way should have returned.
func (l *line) knownToHang() bool {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	hangs := !l.due.IsZero() && !time.Now().Before(l.due)
	if hangs {
		l.countLocked()
	}
	return hangs
}

func (l *line) takePlace(ctx context.Context, over <-chan time.Time) error {
	select {
	case l.all.places <- struct{}{}:
		return nil
	default:
	}
	l.all.mu.Lock()
	full := l.all.hang >= cap(l.all.places)
	l.all.mu.Unlock()
	if full {
		return errHangs
	}
	select {
	case l.all.places <- struct{}{}:
		return nil
	case <-over:
		return errHangs
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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
	l.overdue, l.onDevice = true, l.device
	l.all.hanging[l.onDevice]++
	l.all.hang++
}

// end gives the turn and the place of a call back that has returned.
func (l *line) end() {
	l.all.mu.Lock()
	if l.overdue {
		l.overdue = false
		l.all.hang--
		if l.all.hanging[l.onDevice]--; l.all.hanging[l.onDevice] == 0 {
			delete(l.all.hanging, l.onDevice)
		}
	}
	l.due = time.Time{}
	l.leaveLocked()
	l.all.mu.Unlock()
	<-l.all.places
	<-l.turn
}

// close closes a file of the line when its turn comes, however long that takes.
func (l *line) close(c io.Closer) {
	l.turn <- struct{}{}
	l.all.places <- struct{}{}
	l.all.mu.Lock()
	l.users++
	l.due = time.Now().Add(openPatience)
	l.all.mu.Unlock()
	c.Close()
	l.end()
}
