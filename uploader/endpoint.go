package uploader

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// probeInterval is between attempts to connect to an endpoint that is down.
	probeInterval = time.Second
	// trustedFor is for how long after a connection was made others may be
	// made side by side.
	trustedFor = time.Second
)

// downError is the failure of a request that was not tried, because no
// connection can be made.
type downError struct{ cause error }

func (e *downError) Error() string { return e.cause.Error() }
func (e *downError) Unwrap() error { return e.cause }

// endpoint makes the connections to the store, and knows whether they can be
// made. Once one cannot, it is down: nothing is tried any more but one
// connection a second, whatever number of pushes waits, and the first that
// succeeds brings everything back at once.
//
// To be down is a matter of connections alone. A store that takes them and
// then answers nonsense, or nothing, is not down: each bucket has a trial of
// its own (see queue).
type endpoint struct {
	connect func(ctx context.Context, network, address string) (net.Conn, error)
	changed func() // called after each change, without mu held

	mu      sync.Mutex
	ctx     context.Context // ends the probing; guarded by mu, as all below
	probing sync.WaitGroup  // Add only with mu held and ctx not ended
	trusted time.Time       // when a connection was made last; zero when in doubt
	leader  chan struct{}   // while somebody tries whether there is a way: closed when he knows
	outage  *outage         // nil while up
}

// outage is a time during which no connection can be made.
type outage struct {
	since time.Time
	cause error         // what the last attempt failed with
	over  chan struct{} // closed at its end
}

func newEndpoint(ctx context.Context, connect func(context.Context, string, string) (net.Conn, error)) *endpoint {
	return &endpoint{ctx: ctx, connect: connect, changed: func() {}}
}

// dial makes a connection, as http.Transport.DialContext wants it. Where
// nobody has made one within the last moment, one attempt leads and the others
// wait for it: of a store that has just gone away, one connection is asked for
// and not as many as there are requests.
func (e *endpoint) dial(ctx context.Context, network, address string) (net.Conn, error) {
	for {
		leading, wait, err := e.enter()
		if err != nil {
			return nil, err
		}
		if wait != nil {
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		conn, err := e.connect(ctx, network, address)
		e.note(ctx, leading, network, address, err)
		if err != nil && ctx.Err() == nil {
			return nil, &downError{err}
		}
		return conn, err
	}
}

// enter says how a dial may go on: at once, as the leader or not; after wait;
// or not at all.
func (e *endpoint) enter() (leading bool, wait <-chan struct{}, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.outage != nil:
		return false, nil, &downError{e.outage.cause}
	case time.Since(e.trusted) < trustedFor:
		return false, nil, nil
	case e.leader != nil:
		return false, e.leader, nil
	}
	e.leader = make(chan struct{})
	return true, nil, nil
}

// note keeps what came of a dial.
func (e *endpoint) note(ctx context.Context, leading bool, network, address string, err error) {
	e.mu.Lock()
	if leading {
		close(e.leader)
		e.leader = nil
	}
	fell := false
	switch {
	case err == nil:
		e.trusted = time.Now()
	case ctx.Err() == nil && e.outage == nil && e.ctx.Err() == nil: // whoever gave up says nothing about the store
		e.outage = &outage{since: time.Now(), cause: err, over: make(chan struct{})}
		e.trusted = time.Time{}
		e.probing.Go(func() { e.probe(network, address) })
		fell = true
	}
	e.mu.Unlock()
	if fell {
		e.changed()
	}
}

// doubt says that a connection broke. What comes next asks for one connection
// first.
func (e *endpoint) doubt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trusted = time.Time{}
}

// probe connects each second until that succeeds.
func (e *endpoint) probe(network, address string) {
	tick := time.NewTimer(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-e.ctx.Done():
			return
		}
		conn, err := e.connect(e.ctx, network, address)
		if err == nil {
			conn.Close()
			e.restore()
			return
		}
		e.mu.Lock()
		e.outage.cause = err
		e.mu.Unlock()
		tick.Reset(probeInterval)
	}
}

// restore ends the outage.
func (e *endpoint) restore() {
	e.mu.Lock()
	close(e.outage.over)
	e.outage = nil
	e.trusted = time.Now()
	e.mu.Unlock()
	e.changed()
}

// down returns since when no connection can be made and why, if so.
func (e *endpoint) down() (since time.Time, cause error, is bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.outage == nil {
		return time.Time{}, nil, false
	}
	return e.outage.since, e.outage.cause, true
}

// wait returns once connections can be made. It fails with the context's
// cause.
func (e *endpoint) wait(ctx context.Context) error {
	for {
		e.mu.Lock()
		o := e.outage
		e.mu.Unlock()
		if o == nil {
			return nil
		}
		select {
		case <-o.over:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// notTried reports whether the request failed because no connection could be
// made.
func notTried(err error) bool {
	var down *downError
	return errors.As(err, &down)
}
