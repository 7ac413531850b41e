package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"syscall"
	"time"
)

// sentTimeout is how long the end of the sending may follow a good answer: a
// moment, since the store has read everything by then.
const sentTimeout = 5 * time.Second

// phase is what a request is doing.
type phase int32

const (
	sending  phase = iota
	awaiting       // the head of the answer
	reading        // the rest of it, which is short
)

// phases says how long a request may stand still, in each phase. None of these
// bounds a request that moves. Completing a large upload takes some stores
// minutes.
var phases = [...]struct {
	doing string
	limit time.Duration
}{
	sending:  {"the request was being sent", time.Minute},
	awaiting: {"the answer was awaited", 5 * time.Minute},
	reading:  {"the answer was being read", 30 * time.Second},
}

// StallError ends a request that stood still.
type StallError struct{ phase }

// Error says how long nothing moved, and while what was being done.
func (e *StallError) Error() string {
	p := phases[e.phase]
	return fmt.Sprintf("nothing moved for %v while %s", p.limit, p.doing)
}

// ErrNotRead marks a success that was said before the request had been sent.
var ErrNotRead = errors.New("the store answered before it had read the whole request")

// small is the size up to which a body is in memory, in bytes. The pool must see
// such a one as what it is, so that it goes out in one packet with its headers.
const small = 32 << 10

// Do makes one request. It ends a request that stands still, and believes no
// success that was said before the whole request had been sent.
func (t *Transport) Do(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := newWatch(cancel)
	wrote := make(chan error, 4) // the transport may try more than one connection
	var idle atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		idle.Store(info.WasIdle && info.IdleTime > staleAfter)
	}, WroteRequest: func(info httptrace.WroteRequestInfo) {
		w.enter(awaiting)
		select {
		case wrote <- info.Err:
		default:
		}
	}})
	body := req.Body
	req = req.WithContext(ctx)
	if req.ContentLength > small {
		req.Body = &watchedBody{ReadCloser: body, watch: w}
	}
	resp, err := t.pool.RoundTrip(req)
	if err == nil {
		w.enter(reading)
		err = credible(resp, wrote)
		resp.Body = &watchedAnswer{ReadCloser: resp.Body, ctx: ctx, watch: w}
		if err != nil {
			resp.Body.Close()
		}
	}
	if err != nil {
		w.end()
		if err = because(ctx, err); BrokenOff(err) && !idle.Load() {
			err = &BrokenError{err}
		}
		return nil, err
	}
	return resp, nil
}

// staleAfter is how long a connection may have been idle to count as one in
// use. What has been idle for longer the store may have given up, which says
// nothing about the store.
const staleAfter = time.Second

// BrokenError is the failure of a connection that was in use.
type BrokenError struct{ err error }

// Error is the text of the failure itself.
func (e *BrokenError) Error() string { return e.err.Error() }

// Unwrap returns the failure itself.
func (e *BrokenError) Unwrap() error { return e.err }

// BrokenOff reports whether a connection ended in the midst of the request. The
// likeliest cause is that the store had given it up while it was idle, and
// another one will do at once.
func BrokenOff(err error) bool {
	var network *net.OpError
	if errors.As(err, &network) && network.Op == "dial" {
		return false
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// credible returns an error for an answer that is none to this request.
func credible(resp *http.Response, wrote <-chan error) error {
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
		case err := <-wrote:
			if err == nil {
				return nil
			}
		case <-late.C:
			return ErrNotRead
		}
	}
}

// because returns why the context was ended if that is what the error is about.
func because(ctx context.Context, err error) error {
	var stalled *StallError
	if cause := context.Cause(ctx); errors.As(cause, &stalled) {
		return stalled
	}
	return err
}

// watch cancels a request that stands still. Its methods may be called by
// several goroutines at once: the transport writes a request in its own.
type watch struct {
	cancel context.CancelCauseFunc
	phase  atomic.Int32
	timer  *time.Timer
}

func newWatch(cancel context.CancelCauseFunc) *watch {
	w := &watch{cancel: cancel}
	w.timer = time.AfterFunc(phases[sending].limit, func() { cancel(&StallError{phase(w.phase.Load())}) })
	return w
}

// enter begins a phase, unless the request is beyond it.
func (w *watch) enter(p phase) {
	for now := w.phase.Load(); now < int32(p); now = w.phase.Load() {
		if w.phase.CompareAndSwap(now, int32(p)) {
			w.timer.Reset(phases[p].limit)
		}
	}
}

// moved says that the request does not stand still.
func (w *watch) moved() { w.timer.Reset(phases[w.phase.Load()].limit) }

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(nil)
}

// watchedBody is a request's body; the transport reading on is progress.
type watchedBody struct {
	io.ReadCloser
	*watch
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.moved()
	return b.ReadCloser.Read(p)
}

// watchedAnswer is an answer's body. Closing it ends the request.
type watchedAnswer struct {
	io.ReadCloser
	ctx context.Context
	*watch
}

func (a *watchedAnswer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = because(a.ctx, err)
	}
	return n, err
}

func (a *watchedAnswer) Close() error {
	err := a.ReadCloser.Close()
	a.end()
	return err
}
