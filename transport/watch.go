package transport

import (
	"context"
	"math"
	"net"
	"sync/atomic"
	"time"
)

// limits bound a request, as the package comment says.
type limits struct{ connect, stall, answer, rest time.Duration }

// of returns the limits of an exchange.
func (l limits) of(x *Exchange) limits {
	if x != nil && x.Answer != 0 {
		l.answer, l.rest = x.Answer, x.Answer
	}
	return l
}

const (
	// looks is how many times at least a request is looked at within any of its
	// limits. A limit is counted from the first look that saw its beginning, so
	// it is late by one part of this many at most.
	looks = 5
	// lookEvery is between two looks, at most.
	lookEvery = 2 * time.Second
)

// interval is between two looks.
func (l limits) interval() time.Duration {
	return min(lookEvery, l.stall/looks, l.answer/looks, l.rest/looks)
}

// Phase is what a request is doing.
type Phase int32

// The phases of a request, in their order.
const (
	Connecting Phase = iota // and a proxy's part in it, and the TLS handshake
	Sending                 // the request goes out
	Awaiting                // the head of the answer
	Reading                 // the rest of it
	over
)

// watch ends a request that stands still. It looks at it now and then, so a
// request that is quick costs one timer that never fires.
type watch struct {
	limits
	queues func() bool // whether it waits for a connection that another request has
	cancel context.CancelCauseFunc
	timer  *time.Timer
	phase  atomic.Int32
	conn   atomic.Pointer[net.Conn]

	// The rest is look's alone.
	seen  Phase
	since time.Time // of what the limit is counted from
	acked int64
}

func (w *watch) begin(l limits, cancel context.CancelCauseFunc) {
	w.limits, w.cancel, w.since = l, cancel, time.Now()
	w.timer = time.AfterFunc(math.MaxInt64, w.look) // which uses the timer, so it is begun thereafter
	w.timer.Reset(l.interval())
}

// enter begins a phase, unless the request is beyond it.
func (w *watch) enter(p Phase) {
	for now := w.phase.Load(); now < int32(p); now = w.phase.Load() {
		if w.phase.CompareAndSwap(now, int32(p)) {
			return
		}
	}
}

// got notes which connection the request goes out on.
func (w *watch) got(conn net.Conn) {
	w.conn.Store(&conn)
	w.enter(Sending)
}

// end ends the watching, and the request.
func (w *watch) end() {
	w.enter(over)
	w.timer.Stop()
	w.cancel(nil)
}

// look looks at the request, and again later.
func (w *watch) look() {
	now := time.Now()
	p := Phase(w.phase.Load())
	if p == over {
		return
	}
	if p != w.seen {
		w.seen, w.since = p, now
	}
	if stalled := w.judge(p, now); stalled != nil {
		if conn := w.conn.Load(); conn != nil {
			discard(*conn)
		}
		w.cancel(stalled)
		return
	}
	w.timer.Reset(w.interval())
}

// judge returns why the request is to be ended, if it is.
func (w *watch) judge(p Phase, now time.Time) error {
	what, limit, at := noConnection, w.connect, p
	switch p {
	case Connecting:
		if w.queues() { // which has limits of its own
			w.since = now
		}
	case Sending, Awaiting:
		out, _ := progressOf(*w.conn.Load())
		switch {
		case out.waiting:
			what, limit, at = "the store acknowledged nothing", w.stall, Sending
		case p == Awaiting:
			what, limit = "the store did not begin to answer", w.answer
		default: // it has all that the disk gave us
			w.since = now
		}
		if out.acked != w.acked {
			w.acked, w.since = out.acked, now
		}
	case Reading:
		what, limit = "the store did not end its answer", w.rest
	}
	if now.Sub(w.since) < limit {
		return nil
	}
	return &StallError{At: at, What: what, Limit: limit}
}
