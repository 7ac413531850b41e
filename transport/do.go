package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
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
func (t *Transport) Do(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	x := exchangeOf(ctx)
	c := &call{ctx: ctx, wrote: make(chan error, 4)}
	c.begin(t.limits.of(x), cancel)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			c.reused.Store(info.Reused)
			c.idle.Store(info.WasIdle && info.IdleTime > staleAfter)
			if x != nil && c.body != nil {
				x.begin(info.Conn, req, c.body)
			}
			c.got(info.Conn)
		},
		GotFirstResponseByte: func() { c.answered.Store(true) },
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			c.enter(Awaiting)
			select {
			case c.wrote <- info.Err:
			default:
			}
		},
	})
	inner := req.WithContext(ctx)
	if req.ContentLength > small || x != nil && req.ContentLength > 0 {
		c.body = &countedBody{ReadCloser: req.Body}
		inner.Body = c.body
	}
	resp, err := t.pool.RoundTrip(inner)
	if err != nil {
		err = c.why(err)
		c.end()
		return nil, err
	}
	c.enter(Reading)
	resp.Body = &answer{ReadCloser: resp.Body, call: c, left: mostAnswer}
	if err := c.credible(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	if x != nil && resp.StatusCode < 300 {
		x.succeeded()
	}
	return resp, nil
}

// call is a request under way.
type call struct {
	watch
	ctx   context.Context
	body  *countedBody // nil where it is in memory
	wrote chan error   // how the sending ended; the pool may try more than one connection

	reused, idle atomic.Bool // the connection
	answered     atomic.Bool // it brought something
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
	// Of a connection that it had before, the pool says in words of its own that
	// it was gone.
	case broke(err), c.reusedInVain():
		return &BrokenError{Reused: c.reusedInVain(), Idle: c.idle.Load(), Err: err}
	}
	return err
}

func (c *call) reusedInVain() bool { return c.reused.Load() && !c.answered.Load() }

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
	if err != nil && err != io.EOF {
		err = a.why(err)
	}
	return n, err
}

func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	a.end()
	return err
}
