// Package client asks a running s3daemon for one push, over HTTP, and waits
// for the end of it:
//
//	d, err := client.New("http://127.0.0.1:15556") // or unix:/run/s3daemon.sock
//	err = d.Push(ctx, "/data/a.fits", "s3://raw/a.fits")
//
// Push returns nil only when the daemon has answered with the receipt of a
// push that is done. It never waits for less than that, and never longer for
// connecting than ConnectTimeout. What went wrong is told apart so:
//
//	errors.Is(err, client.ErrNotTaken)  the daemon never took the request:
//	                                    nothing is under way, ask again freely
//	errors.As(err, **push.Error)        the daemon's own answer
//	anything else                       the daemon went away, or does not speak
//	                                    its contract; what became of the push
//	                                    is not known
//
// A request is sent once. It is written by the caller's own goroutine, which
// also reads the answer, and not by net/http's client: that one starts three
// more for each connection, which cost more than all the rest of a small push,
// and keeps idle connections for so long that a request can be written into
// one that a stopping daemon is just closing. Here a connection is used again
// only within a second, and only when it is seen to be open.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// maxAnswerBytes bounds an answer: a receipt has a path of 4 KiB, a key of
// 1 KiB and little else.
const maxAnswerBytes = 256 << 10

// ErrNotTaken is the kind of the failures after which nothing is under way:
// there was no daemon to connect to, or it is shutting down.
var ErrNotTaken = errors.New("the daemon did not take the push")

// reply is an HTTP answer, read to its end.
type reply struct {
	status int
	text   string // "200 OK"
	media  string
	body   []byte
}

// Push asks the daemon to push the file, an absolute path on the daemon's
// host, to the destination, and waits until that has ended. Cancelling ctx
// ends the waiting, not the push.
func (d *Daemon) Push(ctx context.Context, file, destination string) error {
	request := d.request(file, destination)
	for {
		c, err := d.connect(ctx)
		if err != nil {
			return err
		}
		r, again, err := d.exchange(ctx, c, request)
		if again {
			continue
		}
		if err != nil {
			return d.lost(ctx, err)
		}
		return d.judge(r)
	}
}

// request returns the whole request. Its body is a form, since JSON cannot
// carry a path that is not UTF-8.
func (d *Daemon) request(file, destination string) []byte {
	form := url.Values{"file": {file}, "destination": {destination}}.Encode()
	return fmt.Appendf(nil, "POST %s/push HTTP/1.1\r\n"+
		"Host: %s\r\n"+
		"User-Agent: s3daemon-send\r\n"+
		"Accept: application/json, application/problem+json\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\n"+
		"Content-Length: %d\r\n\r\n%s", d.path, d.host, len(form), form)
}

// connect returns a connection that nothing has been written to since it was
// last seen open.
func (d *Daemon) connect(ctx context.Context) (*conn, error) {
	if c := d.pool.get(); c != nil {
		return c, nil
	}
	c, err := d.dial(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, d.stopped(ctx)
	case err != nil:
		return nil, &UnreachableError{Where: d.where, Err: err}
	}
	return newConn(c), nil
}

// exchange sends the request and reads the answer. It returns again where not
// a byte was written, because the connection came from the pool and has ended:
// the request may then be sent over another one.
func (d *Daemon) exchange(ctx context.Context, c *conn, request []byte) (r reply, again bool, err error) {
	unwatch := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	usable := false
	defer func() {
		if unwatch() && usable {
			d.pool.put(c)
		} else {
			c.Close()
		}
	}()
	if n, err := c.Write(request); err != nil {
		return reply{}, n == 0 && c.reused && ctx.Err() == nil, err
	}
	c.bound.N = maxAnswerBytes
	resp, err := http.ReadResponse(c.reader, asked)
	for err == nil && resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
		resp, err = http.ReadResponse(c.reader, asked) // after an interim answer
	}
	if err != nil {
		return reply{}, false, c.describe(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, false, c.describe(err)
	}
	usable = !resp.Close && resp.ProtoAtLeast(1, 1) && c.reader.Buffered() == 0
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return reply{resp.StatusCode, resp.Status, media, body}, false, nil
}

// asked is all that http.ReadResponse wants to know of a request.
var asked = &http.Request{Method: http.MethodPost}

// errNotHTTP is the kind of what goes wrong with an answer and is no failure
// of the connection.
var errNotHTTP = errors.New("no answer of a daemon")

// describe tells a connection that ended from an answer that is none.
func (c *conn) describe(err error) error {
	_, failed := errors.AsType[net.Error](err)
	switch {
	case c.bound.N <= 0:
		return fmt.Errorf("%w: it has more than %d bytes", errNotHTTP, maxAnswerBytes)
	case failed || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	return fmt.Errorf("%w: %w", errNotHTTP, err)
}

// stopped is the error of a caller who did not want to wait any more.
func (d *Daemon) stopped(ctx context.Context) error {
	return fmt.Errorf("stopped waiting for the daemon at %s: %w", d.where, context.Cause(ctx))
}

// lost describes an exchange that ended without an answer.
func (d *Daemon) lost(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return d.stopped(ctx)
	case errors.Is(err, errNotHTTP):
		return fmt.Errorf("what answers at %s is no s3daemon: %w", d.where, err)
	}
	return fmt.Errorf("the daemon at %s went away before it answered, and the push may or may not have reached the store "+
		"(repeating it is harmless): %w", d.where, err)
}

// judge turns an answer into the outcome of the push. Only one answer is
// success: 200 with a receipt in state done. A 202 in particular is not.
func (d *Daemon) judge(r reply) error {
	if r.status == http.StatusOK && r.media == "application/json" {
		var receipt struct { // of push.Receipt, what is of interest
			ID    string     `json:"id"`
			State push.State `json:"state"`
		}
		if err := json.Unmarshal(r.body, &receipt); err != nil {
			return fmt.Errorf("the answer of the daemon at %s is no receipt: %w", d.where, err)
		}
		if receipt.State != push.Done {
			return fmt.Errorf("the daemon at %s answered while the push %s was %s, not done",
				d.where, push.Quote(receipt.ID), push.Quote(string(receipt.State)))
		}
		return nil
	}
	if r.media == "application/problem+json" {
		var problem push.Problem
		if err := json.Unmarshal(r.body, &problem); err == nil && problem.Detail != "" {
			return refused(r.status, &push.Error{Code: problem.Code, Detail: problem.Detail, Store: problem.Store})
		}
	}
	if r.status == http.StatusAccepted {
		return fmt.Errorf("the daemon at %s accepted the push and did not wait for its end (HTTP 202): it is not known to be done", d.where)
	}
	return refused(r.status, fmt.Errorf("what answers at %s is no s3daemon: HTTP %s %s", d.where, r.text, push.Quote(push.OneLine(string(r.body)))))
}

// refused adds ErrNotTaken to the error of an answer that says so: 503 is
// decided before anything is done.
func refused(status int, err error) error {
	if status == http.StatusServiceUnavailable {
		return &notTaken{err}
	}
	return err
}

// notTaken is an error of the kind ErrNotTaken with the text of its cause.
type notTaken struct{ error }

func (e *notTaken) Unwrap() []error { return []error{e.error, ErrNotTaken} }
