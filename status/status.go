// Package status tells how the daemon stands, to as many as want to watch: what
// is under way, what became of the pushes of the last 15 minutes, whether all is
// well and what to do where it is not.
//
//	board := status.New(status.Config{Deadline: 7 * time.Second, Version: "1.0"})
//	up := uploader.New(..., Ended: board.Ended, Refused: board.Refused)
//	go board.Run(ctx, up)
//	board.Watch(r.Context(), func(text []byte) error { ... }) // for each who watches
//
// What they are told is text/event-stream, and openapi.yaml describes it. It is
// made once a second for all of them, and only while there is somebody: without,
// a look at the uploader once a second and an addition for each push are all that
// it costs. A watcher who is slow misses what was made meanwhile.
package status

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// Source is what a Board tells of.
type Source interface {
	// Overview returns how the daemon stands. It is called once a second, by one
	// goroutine.
	Overview() push.Overview
	// Changes returns the pushes that have changed since the call that gave the
	// number, as they are now, and how many more there were.
	Changes(after uint64) (changed []push.Receipt, now uint64, left int)
}

// Config is what a Board is made of.
type Config struct {
	Deadline time.Duration // a push that is done later than that after its acceptance is late; 0: none is
	Version  string        // of the daemon
	// Show returns a receipt as callers get it; nil: as it is.
	Show func(push.Receipt) push.Receipt
}

// everySecond is how often the source is looked at, and watchers hear of it.
const everySecond = time.Second

// Board is what watchers look at. Its methods are called by many goroutines at
// once.
type Board struct {
	cfg    Config
	wanted chan struct{} // has something while somebody waits for a first frame
	over   chan struct{} // closed when Run has ended

	mu       sync.Mutex // guards what follows
	tally    *tally
	watchers map[*watcher]struct{}
	newest   *frame
}

// watcher is somebody who watches.
type watcher struct{ wake chan struct{} } // has something while there is a frame that it has not had

// New returns a board that nothing is on yet.
func New(cfg Config) *Board {
	return &Board{
		cfg: cfg, wanted: make(chan struct{}, 1), over: make(chan struct{}),
		tally: newTally(time.Now(), cfg.Deadline), watchers: make(map[*watcher]struct{}),
	}
}

// Ended notes an accepted push that has ended. It waits for nothing.
func (b *Board) Ended(r push.Receipt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tally.ended(time.Now(), r)
}

// Refused notes a push that was not accepted, and why. It waits for nothing.
func (b *Board) Refused(why push.Code) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tally.refused(time.Now(), why)
}

// Run looks at the source until the context ends, and then tells all who watch how
// it stands by then, and that this was all. It is called once.
func (b *Board) Run(ctx context.Context, source Source) {
	defer close(b.over)
	m := &maker{board: b, source: source}
	m.sample(time.Now())
	ticks := time.NewTicker(everySecond)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			m.look() // or what has ended since the last time would never be told of
			return
		case <-ticks.C:
			m.look()
		case <-b.wanted:
			if !b.fresh() { // as it may be by now
				b.show(m.frame(time.Now()))
			}
		}
	}
}

// Watch calls emit with each piece of the stream, one after another: with how the
// daemon stands at once, and then once a second. It returns when the context has
// ended, emit has failed, or the daemon is about to end. What emit is called with
// is not its own: it must not change it.
func (b *Board) Watch(ctx context.Context, emit func(text []byte) error) error {
	w := b.join()
	defer b.leave(w)
	var last *frame
	for over := false; !over; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.wake:
		case <-b.over:
			over = true
		}
		if f := b.latest(); f != nil && f != last {
			if err := emit(f.after(last)); err != nil {
				return err
			}
			last = f
		}
	}
	return emit(bye)
}

// join adds a watcher, who hears of the newest frame, or of one that is made for
// him.
func (b *Board) join() *watcher {
	w := &watcher{make(chan struct{}, 1)}
	b.mu.Lock()
	b.watchers[w] = struct{}{}
	b.mu.Unlock()
	tell := w.wake
	if !b.fresh() {
		tell = b.wanted
	}
	signal(tell)
	return w
}

// signal fills a channel that has room for one, and may have it.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (b *Board) leave(w *watcher) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.watchers, w)
}

func (b *Board) watched() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.watchers) > 0
}

func (b *Board) latest() *frame {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.newest
}

// fresh reports whether the newest frame is good for somebody who comes now.
func (b *Board) fresh() bool {
	f := b.latest()
	return f != nil && time.Since(f.made) < everySecond
}

// wokenAtOnce is how many watchers are told before others have a turn.
const wokenAtOnce = 16

// show gives a frame to all who watch. They are woken a few at a time, or the next
// step of a push or a health check would wait for all of them.
func (b *Board) show(f *frame) {
	b.mu.Lock()
	b.newest = f
	all := make([]*watcher, 0, len(b.watchers))
	for w := range b.watchers {
		all = append(all, w)
	}
	b.mu.Unlock()
	for i, w := range all {
		signal(w.wake)
		if i%wokenAtOnce == wokenAtOnce-1 {
			runtime.Gosched()
		}
	}
}
