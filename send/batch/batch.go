// Package batch pushes many files through a running daemon, side by side, and
// waits for what was pushed:
//
//	items, err := batch.Plan([]string{"a.fits", "/data/b.fits"}, "s3://raw/night/", absolute)
//	tally, err := batch.Config{Daemon: d, Parallel: 25, Observer: o}.Run(ctx, items)
//
//	err = batch.Settle(ctx, d, "night 12", time.Hour, patience)
//	err = batch.Unfinished(ctx, d, "night 12", patience, func(r push.Receipt) { ... })
//
// # What is repeated
//
// Each push has an Idempotency-Key of its own, so that its request can be
// repeated until the daemon has answered it, through a restart of the daemon
// and with a connection that broke in the middle: the daemon gives the first
// push back. A daemon that is not there, that shuts down (503) or has no room
// (429) is asked again, after its Retry-After where it names one. Once the
// Patience is over with nothing but that, from whichever push, the batch ends as
// it is. Any other answer is the end of its push and of no other.
//
// # Stopping
//
// The end of the context ends the waiting. What the daemon has accepted goes on
// there; the Tally tells how much that is.
package batch

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/client"
)

// Daemon is who is asked; a *client.Daemon is one. It is used by many
// goroutines at once, and its errors are those of package client.
type Daemon interface {
	Submit(context.Context, client.Submission) (client.Answer, error)
	Get(ctx context.Context, id string, wait time.Duration) (client.Answer, error)
	List(context.Context, client.Query) (push.Page, error)
}

// Observer is told of each push as it happens, by many goroutines at once.
type Observer interface {
	// News says how far an accepted push is that has not ended.
	News(Item, push.Receipt)
	// Ended is called once for each push of which there will be no more news.
	Ended(Outcome)
}

// Outcome is what became of a push.
type Outcome struct {
	Item    Item
	Receipt push.Receipt // as it was last seen; the zero Receipt if the push was not accepted
	// JSON is what the daemon sent: the receipt, or the problem where Err is
	// not nil.
	JSON []byte
	Err  error // a *client.ProblemError; nil once the push is done, or accepted where that is all that was wanted
}

// Config is how a batch is pushed. Daemon, Parallel and Observer are required.
type Config struct {
	Daemon   Daemon
	Observer Observer
	Parallel int    // pushes asked for, or watched, at once
	Label    string // of every push; may be empty
	Patience Patience

	// CreateOnly has every push leave an object that exists as it is.
	CreateOnly bool
	// Async ends a push for us once it is accepted.
	Async bool
	// Watch has every push accepted first and then asked for its state, at
	// least as often as this. 0: the daemon answers at the end.
	Watch time.Duration
}

// Tally counts the items of a batch by where they are at its end.
type Tally struct {
	Done      int // delivered; accepted, where Config.Async is set
	Failed    int // refused, failed or cancelled
	Accepted  int // accepted, and not known to have ended: they go on by themselves
	Unclear   int // asked for without an answer: the daemon may have accepted them
	Untouched int // not asked for, or surely not accepted
}

// run is one call of Config.Run.
type run struct {
	Config
	patience patience // what is left of Config.Patience
	next     chan Item

	mu    sync.Mutex
	tally Tally // guarded by mu
	err   error // what ended the batch, nil while it goes on; guarded by mu
}

// Run pushes the items and returns where each of them is. The error is nil if
// all have an Outcome; otherwise it says why there is no going on: a
// *GaveUpError, an answer that is no daemon's, or the end of ctx.
func (c Config) Run(ctx context.Context, items []Item) (Tally, error) {
	r := &run{Config: c, next: make(chan Item)}
	r.patience.Patience = c.Patience
	begin, stop := context.WithCancel(ctx)
	defer stop()
	var workers sync.WaitGroup
	for range min(c.Parallel, len(items)) {
		workers.Go(func() {
			for item := range r.next {
				if !r.one(ctx, item) {
					stop() // the pushes under way may still hear something; new ones hear no more than this one
				}
			}
		})
	}
	begun := r.handOut(begin, items)
	workers.Wait()
	r.patience.answered()
	if r.tally.Untouched += len(items) - begun; r.err == nil && begun < len(items) {
		r.err = context.Cause(ctx)
	}
	return r.tally, r.err
}

// handOut gives the items to the workers, and returns how many when all are
// given or ctx has ended.
func (r *run) handOut(ctx context.Context, items []Item) int {
	defer close(r.next)
	for i, item := range items {
		if ctx.Err() != nil {
			return i
		}
		select {
		case r.next <- item:
		case <-ctx.Done():
			return i
		}
	}
	return len(items)
}

// one sees an item to its end. It returns false where it found none, as no
// other would.
func (r *run) one(ctx context.Context, item Item) bool {
	outcome, last, err := r.deliver(ctx, item)
	if err == nil {
		r.Observer.Ended(outcome)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &r.tally
	switch {
	case err == nil && outcome.Err == nil:
		t.Done++
	case err == nil:
		t.Failed++
	case last == accepted:
		t.Accepted++
	case last == unclear:
		t.Unclear++
	default:
		t.Untouched++
	}
	if r.err == nil {
		r.err = err
	}
	return err == nil
}

// phase is how far a push is known to have come. It only grows.
type phase int

const (
	untouched phase = iota
	unclear
	accepted
)

// after is the phase after a request for the push that ended in err.
func (p phase) after(err error) phase {
	problem, is := errors.AsType[*client.ProblemError](err)
	switch {
	case err == nil || is && problem.ID != "":
		return accepted
	case is || errors.Is(err, client.ErrNotTaken):
		return p
	}
	return max(p, unclear)
}
