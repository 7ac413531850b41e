package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

const (
	// sentTimeout is how long the end of the sending may follow a good answer: a
	// moment, since the store has read everything by then.
	sentTimeout = 5 * time.Second
	// staleAfter is how long a connection may have been idle to count as one in
	// use.
	staleAfter = time.Second
	// small is the size up to which a body is in memory, in bytes. The pool must
	// see such a one as what it is, so that it goes out in one packet with its
	// headers.
	small = 32 << 10
	// mostAnswer is the most of an answer's body that is read, in bytes: no
	// answer to a request of ours comes near it.
	mostAnswer = 4 << 20
)

// Do makes one request. It ends a request that stands still, and believes no
// success that was said before the whole request had been sent. An error that
// is no StallError or BrokenError is Config.Dial's, the body's, or of what is
// no answer. An answer's body of more than 4 MiB ends with an error there.
//
// The request's body is closed, and the connection free for another request when
// the answer's has been read to its end, or was closed.
func (t *Transport) Do(req *http.Request) (*http.Response, error) {
	c := t.begin(req.Context(), hostOf(req.URL))
	m, err := t.pool.acquire(c.ctx, c.waiter, c.x.enough(req.ContentLength))
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, c.fail(err)
	}
	return c.on(m, req)
}

// refresh asks a small question on a connection, and gives it back.
func (t *Transport) refresh(ctx context.Context, m *member, question func(context.Context, *url.URL) (*http.Request, error)) error {
	c := t.begin(ctx, m.to)
	req, err := question(c.ctx, m.to.url())
	if err != nil {
		t.pool.release(m, nil)
		return c.fail(err)
	}
	resp, err := c.on(m, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// call is a request under way.
type call struct {
	watch
	pool    *pool
	traffic *traffic
	turn    *turn // nil where it waits for none
	waiter  *waiter
	x       *Exchange // nil where nobody wants to know
	ctx     context.Context
	body    *countedBody // nil where it is in memory
	wrote   chan error   // how the sending ended

	begun, connected time.Time
	member           *member // nil before there is one
	acked, before    int64   // bytes that the connection had acknowledged, and taken, before
	released         atomic.Bool
	written          atomic.Pointer[time.Time] // when all had been written; nil: it was not
	head             atomic.Pointer[head]      // nil: nothing came
}

// head is the beginning of an answer.
type head struct {
	at   time.Time
	info Info // of the connection at that time: it sends no more for this request
}

func (t *Transport) begin(ctx context.Context, to host) *call {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &call{pool: t.pool, traffic: t.traffic, waiter: newWaiter(to), x: exchangeOf(ctx), ctx: ctx, wrote: make(chan error, 1), begun: time.Now()}
	c.watch.queues = func() bool { return c.pool.queues(c.waiter) }
	c.watch.begin(t.limits.of(c.x), cancel)
	return c
}

// on makes the request on a connection, which it gives back.
func (c *call) on(m *member, req *http.Request) (*http.Response, error) {
	if req.ContentLength > small {
		c.body = &countedBody{ReadCloser: req.Body}
	}
	c.got(m, req)
	if err := c.await(req); err != nil {
		return nil, c.fail(err)
	}
	inner := req.WithContext(httptrace.WithClientTrace(c.ctx, &httptrace.ClientTrace{
		WroteRequest:         func(info httptrace.WroteRequestInfo) { c.sent(info.Err) },
		GotFirstResponseByte: c.answers,
	}))
	if c.body != nil {
		inner.Body = c.body
	}
	resp, err := m.client.RoundTrip(inner)
	if err != nil {
		return nil, c.fail(err)
	}
	c.enter(Reading)
	c.tell()
	resp.Body = &answer{ReadCloser: resp.Body, call: c, left: mostAnswer}
	if err := c.credible(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	if c.x != nil && resp.StatusCode < 300 {
		c.x.succeeded()
	}
	return resp, nil
}

// got notes which connection the request goes out on.
func (c *call) got(m *member, req *http.Request) {
	c.member, c.connected, c.acked, c.before = m, time.Now(), m.info.Acked, m.outlet.written.Load()
	switch {
	case c.x != nil && c.body != nil:
		c.acked = c.x.begin(m.conn, req, c.body)
	case m.requests <= 1: // the handshake may not have been acknowledged when it was asked
		c.acked = m.now().Acked
	}
	c.watch.got(m.conn)
	if c.x != nil && c.x.Connected != nil {
		c.x.Connected()
	}
}

// await waits for the request's turn. It closes the body where that does not come.
func (c *call) await(req *http.Request) (err error) {
	if c.x != nil && c.x.Unshared {
		return nil
	}
	begun := time.Now()
	c.turn, err = c.traffic.enter(c.ctx, c.member, c.body, req.ContentLength)
	c.pool.kept(c.member, time.Since(begun))
	if err != nil && req.Body != nil {
		req.Body.Close()
	}
	return err
}

// sent is told that the request has been written, or why not. Its last bytes may
// still be in the memory of this process.
func (c *call) sent(err error) {
	if err == nil {
		now := time.Now()
		c.written.Store(&now)
	}
	c.enter(Awaiting)
	c.wrote <- err
}

// answers is told that something comes back.
func (c *call) answers() {
	h := &head{at: time.Now()}
	h.info, _ = infoOf(c.member.conn)
	c.head.Store(h)
}

// fail ends a request that has no answer. It returns what the error means.
func (c *call) fail(err error) error {
	err = c.why(err)
	c.tell()
	if c.member != nil {
		if broken, ok := err.(*BrokenError); ok {
			c.draw(broken)
		}
		c.release()
	}
	c.end()
	return err
}

// draw draws from a connection that broke what it says of others.
func (c *call) draw(broken *BrokenError) {
	switch {
	case broken.Reused:
		c.pool.distrust(c.member, broken.Untaken || c.unheard())
	case c.head.Load() == nil:
		broken.Vouched = c.pool.turnedAway(c.member)
		broken.Untaken = broken.Vouched && c.unwritten()
	}
}

// unwritten reports whether nothing of the request was written.
func (c *call) unwritten() bool { return c.member.outlet.written.Load() == c.before }

// tell tells the exchange where the time went. What the kernel says of when it
// sent last is when the last byte left, which was acknowledged a round trip later.
func (c *call) tell() {
	if c.x == nil {
		return
	}
	now := time.Now()
	if c.member == nil {
		c.x.times = Times{Connect: now.Sub(c.begun)}
		return
	}
	end, stored := now, now
	if at := c.written.Load(); at != nil {
		stored = *at
	}
	if h := c.head.Load(); h != nil {
		end = h.at
		if h.info.Known {
			stored = h.at.Add(h.info.RTT - h.info.SinceSent)
		}
	}
	send := min(max(0, stored.Sub(c.connected)), end.Sub(c.connected))
	c.x.times = Times{Connect: c.connected.Sub(c.begun), Send: send, Store: end.Sub(c.connected) - send}
}

// release gives the connection back.
func (c *call) release() {
	if c.released.Swap(true) {
		return
	}
	c.enter(over)
	c.traffic.leave(c.turn)
	c.pool.release(c.member, c.head.Load())
}

// credible returns an error for an answer that is none to this request.
func (c *call) credible(resp *http.Response) error {
	if resp.StatusCode < 200 { // its body would be the bare connection
		return fmt.Errorf("the store answered %s", resp.Status)
	}
	if resp.StatusCode >= 300 {
		return nil
	}
	late := time.NewTimer(sentTimeout)
	defer late.Stop()
	for {
		select {
		case err := <-c.wrote:
			if err == nil {
				return nil
			}
		case <-late.C:
			return ErrNotRead
		}
	}
}

// why returns what the error means: that the request was ended because it stood
// still, that the kernel was quicker, or that the connection broke.
func (c *call) why(err error) error {
	if stalled, ok := errors.AsType[*StallError](context.Cause(c.ctx)); ok {
		return stalled
	}
	switch {
	case dialled(err), c.ctx.Err() != nil, c.body != nil && c.body.failed.Load():
		return err
	case silent(err):
		return &StallError{At: Sending, What: "nothing came back", Limit: c.stall, Err: err}
	// Of a connection that had been idle, or ended before it could be used, net/http
	// says in words of its own that it was gone.
	case broke(err), c.reusedInVain(), c.member != nil && c.unwritten() && c.member.outlet.over.Load():
		reused := c.reusedInVain()
		return &BrokenError{Reused: reused, Idle: reused && c.member.rested > staleAfter, Untaken: reused && c.untaken(err), Err: err}
	}
	return err
}

// reusedInVain reports whether the connection was not new, and brought nothing.
func (c *call) reusedInVain() bool {
	return c.member != nil && c.member.waited && c.head.Load() == nil
}

// unheard reports whether the other end has acknowledged nothing of the request.
// Where nobody can say, it is likely of a connection that was idle for a while.
func (c *call) unheard() bool {
	info, known := infoOf(c.member.conn)
	if !known {
		return c.member.rested > staleAfter
	}
	return info.Acked <= c.acked
}

// untaken reports whether the connection was gone before the request came to it,
// so that the store cannot have acted on it: nothing of it was acknowledged, and
// some of it had not been sent, or the other end had said that it ends the
// connection. That nothing was acknowledged is not enough where the end was a reset,
// which overtakes what it would have acknowledged. Nor is that something could not be
// written once the request was: with TLS that is how we say that we end a connection
// which has broken.
func (c *call) untaken(err error) bool {
	if c.unwritten() {
		return true
	}
	info, known := infoOf(c.member.conn)
	if !known || !c.unheard() {
		return false
	}
	return c.written.Load() == nil || info.Unsent > 0 || c.member.outlet.over.Load() || errors.Is(err, io.EOF)
}

// answer is an answer's body, of which there may be only so much left. Closing
// it ends the request.
type answer struct {
	io.ReadCloser
	*call
	left int64
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if a.left -= int64(n); a.left < 0 {
		a.cancel(errTooLong) // and so the connection
		return 0, errTooLong
	}
	switch err {
	case nil:
	case io.EOF:
		a.release()
	default:
		err = a.why(err)
	}
	return n, err
}

func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	a.release()
	a.end()
	return err
}
