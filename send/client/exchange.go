package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"time"
)

// maxAnswerBytes bounds an answer about one push: a receipt has a path of
// 4 KiB, a key of 1 KiB and little else.
const maxAnswerBytes = 256 << 10

// reply is an HTTP answer, read to its end.
type reply struct {
	status     int
	text       string // "200 OK"
	media      string
	retryAfter time.Duration // 0 where it names none
	body       []byte
}

// ask sends the request over some connection and returns the answer, which
// may have as many bytes as most says.
func (d *Daemon) ask(ctx context.Context, request []byte, most int64) (reply, error) {
	for {
		c, err := d.connect(ctx)
		if err != nil {
			return reply{}, err
		}
		r, again, err := d.exchange(ctx, c, request, most)
		if again {
			continue
		}
		if err != nil {
			return reply{}, d.lost(ctx, request, err)
		}
		return r, nil
	}
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
func (d *Daemon) exchange(ctx context.Context, c *conn, request []byte, most int64) (r reply, again bool, err error) {
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
	c.bound.N, c.most = most, most
	resp, err := http.ReadResponse(c.reader, asked)
	for err == nil && resp.StatusCode/100 == 1 && resp.StatusCode != http.StatusSwitchingProtocols {
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
	return reply{resp.StatusCode, resp.Status, media, retryAfter(resp.Header), body}, false, nil
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
		return fmt.Errorf("%w: it has more than %d bytes", errNotHTTP, c.most)
	case failed || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	return fmt.Errorf("%w: %w", errNotHTTP, err)
}

// retryAfter is what the header says of when to ask again, in whole seconds;
// dates are no use between two programs of one host and count as nothing.
func retryAfter(header http.Header) time.Duration {
	value := header.Get("Retry-After")
	if value == "" {
		return 0 // as with nearly every answer: not worth making an error of
	}
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// stopped is the error of a caller who did not want to wait any more.
func (d *Daemon) stopped(ctx context.Context) error {
	return fmt.Errorf("stopped waiting for the daemon at %s: %w", d.where, context.Cause(ctx))
}

// lost describes an exchange that ended without an answer.
func (d *Daemon) lost(ctx context.Context, request []byte, err error) error {
	switch {
	case ctx.Err() != nil:
		return d.stopped(ctx)
	case errors.Is(err, errNotHTTP):
		return fmt.Errorf("what answers at %s is no s3daemon: %w", d.where, err)
	}
	return &LostError{Where: d.where, Push: bytes.HasPrefix(request, []byte("POST ")), Err: err}
}

// LostError says that the daemon went away between the request and its answer.
type LostError struct {
	Where string
	Push  bool  // it was asked for a push, not about some
	Err   error // of the connection
}

// Error says what that means for a push.
func (e *LostError) Error() string {
	if !e.Push {
		return fmt.Sprintf("the daemon at %s went away before it answered: %v", e.Where, e.Err)
	}
	return fmt.Sprintf("the daemon at %s went away before it answered, and the push may or may not have reached the store "+
		"(repeating it is harmless): %v", e.Where, e.Err)
}

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Err }
