package uploader

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/lsst-dm/s3daemon/transport"
)

const (
	// probeInterval is between questions to an endpoint that is down.
	probeInterval = time.Second
	// trustedFor is for how long after a connection was made others may be
	// made side by side.
	trustedFor = time.Second
	// silentFor is how long the store may say nothing to a question to count as
	// one that took it and does not answer.
	silentFor = time.Second
	// leftAlone is for how long after that no suspicion has it asked again: each
	// question would hold everything up for silentFor.
	leftAlone = 10 * time.Second
)

// errSilent is what a question comes to that went out to the store on a
// connection that was made, and to which nothing came back, nor broke. The store
// can be reached then: that it is slow is another matter.
var errSilent = errors.New("the store takes a question and says nothing to it")

// downError is the failure of a request that was not sent, because no
// connection can be made to its host.
type downError struct {
	cause error
	known bool // it was known before, so none was even tried
}

func (e *downError) Error() string { return e.cause.Error() }
func (e *downError) Unwrap() error { return e.cause }

// Is has the pool know that the store was not even asked.
func (e *downError) Is(target error) bool { return e.known && target == transport.ErrNotTried }

// endpoint makes the connections to the store, and knows whether the store can
// be reached. Once it cannot, because no connection can be made or those that
// are made break, it is down: nothing is tried any more but one question a
// second, whatever number of pushes waits, and the first that is answered, with
// whatever, or only taken, brings everything back at once.
//
// Where each bucket has a host of its own, as at Amazon, what fails at one of them is
// that bucket's failure. It may also be the first that is seen of the end of all: the
// store is asked then, by the host that has no bucket, and nothing waits for the answer.
//
// A store that answers with errors, or takes its time, is not down: each bucket
// has a trial of its own (see queue), and what stands still is ended by transport.
type endpoint struct {
	hosts   bool // there are several: each bucket has one, and the store that is asked another
	connect func(ctx context.Context, network, address string) (net.Conn, error)
	ask     func(context.Context) error // asks the store anything, on a connection of its own; see errSilent
	changed func()                      // called after each change, without mu held

	mu      sync.Mutex
	ctx     context.Context // ends the asking; guarded by mu, as all below
	asking  sync.WaitGroup  // Add only with mu held and ctx not ended
	doubted bool            // the store is being asked, and nothing waits for it
	sure    time.Time       // when it has answered such a question last
	trusted time.Time       // when a connection was made last
	silent  time.Time       // when the store took a question and said nothing, the last time
	leader  *leader         // tries whether there is a way; nil where nobody does
	outage  *outage         // nil while up
}

// leader is an attempt to make a connection that others wait for.
type leader struct {
	done chan struct{} // closed at its end
	err  error         // what it means for them, free to read then; nil where they may try themselves
}

// outage is a time during which the store is not asked for pushes.
type outage struct {
	since     time.Time
	cause     error         // what the last attempt failed with
	suspected bool          // it has not been asked yet
	certain   chan struct{} // closed when the suspicion is confirmed
	over      chan struct{} // closed at its end
}

func newEndpoint(ctx context.Context, connect func(context.Context, string, string) (net.Conn, error), ask func(context.Context) error) *endpoint {
	return &endpoint{ctx: ctx, connect: connect, ask: ask, changed: func() {}}
}

// dial makes a connection, as http.Transport.DialContext wants it. Where
// nobody has made one within the last moment, one attempt leads and the others
// wait for it: of a store that has just gone away, one connection is asked for
// and not as many as there are requests. Where there are several hosts none waits:
// it may be for another.
func (e *endpoint) dial(ctx context.Context, network, address string) (net.Conn, error) {
	for {
		leading, wait, err := e.enter()
		if err != nil {
			return nil, err
		}
		if wait != nil {
			select {
			case <-wait.done:
				if wait.err != nil {
					return nil, wait.err
				}
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		conn, err := e.connect(ctx, network, address)
		e.note(ctx, leading, err)
		if err != nil && ctx.Err() == nil {
			return nil, &downError{cause: err}
		}
		return conn, err
	}
}

// enter says how a dial may go on: at once, as the leader or not; after wait;
// or not at all.
func (e *endpoint) enter() (leading bool, wait *leader, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.outage != nil:
		return false, nil, &downError{cause: e.outage.cause, known: true}
	case e.hosts, time.Since(e.trusted) < trustedFor:
		return false, nil, nil
	case e.leader != nil:
		return false, e.leader, nil
	}
	e.leader = &leader{done: make(chan struct{})}
	return true, nil, nil
}

// note keeps what came of a dial. Where the store has refused it and is there, since
// others are sound, those that wait are refused as well: it takes no more just now.
func (e *endpoint) note(ctx context.Context, leading bool, err error) {
	failed := err != nil && ctx.Err() == nil // whoever gave up says nothing about the store
	vouched := failed && transport.Vouched(ctx, err)
	e.mu.Lock()
	if leading {
		if vouched {
			e.leader.err = &downError{cause: err}
		}
		close(e.leader.done)
		e.leader = nil
	}
	if err == nil {
		e.trusted = time.Now()
	}
	fell := failed && !vouched && e.failedLocked(err)
	e.mu.Unlock()
	if fell {
		e.changed()
	}
}

// failedLocked takes in that there is no way to a host, and reports whether an outage
// has begun.
func (e *endpoint) failedLocked(cause error) bool {
	if e.hosts {
		e.doubtLocked()
		return false
	}
	return e.fallLocked(cause, false)
}

// doubtLocked has the store asked, unless it has just answered; only if it does not is
// there an outage.
func (e *endpoint) doubtLocked() {
	if e.doubted || e.outage != nil || e.ctx.Err() != nil || !e.sure.IsZero() && time.Since(e.sure) < probeInterval {
		return
	}
	e.doubted = true
	e.asking.Go(func() {
		err := e.ask(e.ctx)
		e.mu.Lock()
		e.doubted = false
		fell := false
		if err == nil || errors.Is(err, errSilent) {
			e.sure = time.Now()
		} else {
			fell = e.fallLocked(err, false)
		}
		e.mu.Unlock()
		if fell {
			e.changed()
		}
	})
}

// suspect says that a connection broke or stood still while it was in use. That
// may be one connection's bad luck, or the end of the store: it is asked at
// once, and until it answers nothing else is; but not if it had nothing to say a
// moment ago.
func (e *endpoint) suspect(cause error) {
	// What it means for that request it does not mean for those that wait.
	if open, ok := errors.AsType[*unclearError](cause); ok {
		cause = open.err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.hosts {
		e.doubtLocked()
		return
	}
	if e.silent.IsZero() || time.Since(e.silent) >= leftAlone {
		e.fallLocked(cause, true)
	}
}

// lost says that there was no connection to be had for so long that there is no
// way to the store: something takes connections in its place.
func (e *endpoint) lost(cause error) {
	e.mu.Lock()
	fell := e.failedLocked(cause)
	e.mu.Unlock()
	if fell {
		e.changed()
	}
}

// fallLocked begins an outage, and reports whether it did.
func (e *endpoint) fallLocked(cause error, suspected bool) bool {
	if e.outage != nil || e.ctx.Err() != nil {
		return false
	}
	e.outage = &outage{since: time.Now(), cause: cause, suspected: suspected, certain: make(chan struct{}), over: make(chan struct{})}
	e.trusted = time.Time{}
	e.asking.Go(e.probe)
	return true
}

// mostQuestions bounds those that have not been answered.
const mostQuestions = 8

// probe asks the store until it answers, once a second; at once if it is only
// suspected. It does not wait for one answer before it asks again: what is lost
// on a way that has just come back is sent again only after seconds.
func (e *endpoint) probe() {
	// The store may have many daemons that have lost it at the same moment: each asks
	// at its own moment of a second.
	pause, then := rand.N(probeInterval), probeInterval
	e.mu.Lock()
	if e.outage.suspected {
		pause, then = 0, pause
	}
	e.mu.Unlock()
	ctx, done := context.WithCancel(e.ctx)
	defer done()
	next := time.NewTimer(pause)
	defer next.Stop()
	answers := make(chan error, mostQuestions)
	for open := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
			if open < mostQuestions {
				open++
				e.asking.Go(func() { answers <- e.ask(ctx) }) // probe itself is among asking
			}
			next.Reset(then)
			then = probeInterval
		case err := <-answers:
			if err == nil || errors.Is(err, errSilent) {
				e.restore(err != nil)
				return
			}
			open--
			e.unanswered(err)
		}
	}
}

// unanswered notes what a question failed with; a suspicion is certain then.
func (e *endpoint) unanswered(err error) {
	e.mu.Lock()
	confirmed := e.outage.suspected && e.ctx.Err() == nil
	e.outage.cause, e.outage.suspected = err, e.outage.suspected && !confirmed
	if confirmed {
		close(e.outage.certain)
	}
	e.mu.Unlock()
	if confirmed {
		e.changed()
	}
}

// restore ends the outage; silent says that the store took the question only.
func (e *endpoint) restore(silent bool) {
	e.mu.Lock()
	if silent {
		e.silent = time.Now()
	}
	suspected := e.outage.suspected
	close(e.outage.over)
	e.outage = nil
	e.trusted = time.Now()
	e.mu.Unlock()
	if !suspected {
		e.changed()
	}
}

// down returns since when the store cannot be reached and why, if so.
func (e *endpoint) down() (since time.Time, cause error, is bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.outage == nil || e.outage.suspected {
		return time.Time{}, nil, false
	}
	return e.outage.since, e.outage.cause, true
}

// errLeaving ends a run when the daemon stops: it waits for the end of an outage,
// or what it would send next would not arrive in time.
var errLeaving = errors.New("the daemon stops")

// wait returns once the store can be reached. It fails with the context's cause,
// and with errLeaving if that channel is closed in an outage; a suspicion, which
// takes a moment, is waited for.
func (e *endpoint) wait(ctx context.Context, leaving <-chan struct{}) error {
	for {
		e.mu.Lock()
		o := e.outage
		var certain <-chan struct{}
		stops := leaving
		if o != nil && o.suspected {
			certain, stops = o.certain, nil
		}
		e.mu.Unlock()
		if o == nil {
			return nil
		}
		select {
		case <-o.over:
		case <-certain:
		case <-stops:
			return errLeaving
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// knownDown reports whether the request failed because an outage had begun
// before it asked for a connection: that is no attempt.
func knownDown(err error) bool {
	down, ok := errors.AsType[*downError](err)
	return ok && down.known
}

// blamed reports whether that no connection could be made is the store's failure, and
// not that of a bucket's own host.
func (e *endpoint) blamed(err error) bool { return knownDown(err) || !e.hosts && notTried(err) }

// notTried reports whether the request failed because no connection could be
// made.
func notTried(err error) bool {
	var down *downError
	return errors.As(err, &down) || stalledAt(err, transport.Connecting)
}
