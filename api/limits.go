package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/lsst-dm/s3daemon/listen"
	"github.com/lsst-dm/s3daemon/push"
)

// maxBody is the most that a request's body may have, in bytes: two paths of
// the longest kind and all the metadata that S3 keeps fit several times.
const maxBody = 64 << 10

// bodyTimeout is how long a caller may take to send the body. Tests shorten it.
var bodyTimeout = 10 * time.Second

// maxUnread is how much of a body that is too large is read away, in bytes, so
// that a caller who sends all before he listens hears the answer.
const maxUnread = 16 << 20

// limitBody bounds the time for a request's body, whatever becomes of the
// request: net/http itself reads on before it sends an answer.
func limitBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // not every writer in a test can
		}
		next.ServeHTTP(w, r)
	})
}

// smallBody is how much of a body anybody may have in memory; who sends more
// takes the whole of it from a budget that all share. Else a caller could have
// eight times as much for ever, by never sending his last byte. Nearly all
// bodies are small.
const (
	smallBody   = 8 << 10
	largeBodies = 16 << 20 // bytes, of all together
)

// readWhole reads the body into memory before anything is done for the request:
// from then on the daemon waits for nothing more of this caller's.
func (a *api) readWhole(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := &body{budget: a.bodies}
		defer b.Close()
		if r.ContentLength >= 0 {
			b.Grow(int(min(r.ContentLength, smallBody)) + bytes.MinRead)
		}
		err := readBody(w, r, func(from io.Reader) error { return b.read(r.Context(), from) })
		switch {
		case errors.Is(err, errBusy):
			a.fail(w, "", err)
			return
		case err != nil:
			a.refuse(w, err)
			return
		}
		r.Body = b
		next.ServeHTTP(w, r)
	})
}

// readAway reads a body that the route does not need: with one unread net/http
// does not notice a caller who hangs up while he waits.
func (a *api) readAway(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := readBody(w, r, func(from io.Reader) error {
			_, err := io.Copy(io.Discard, from)
			return err
		})
		if err != nil {
			a.refuse(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

var errBusy = tooMany("as many large bodies are read as may be: ask again in a moment, or with one of at most %d bytes", smallBody)

// body is one in memory. Close forgets it.
type body struct {
	bytes.Buffer
	budget *budget
	taken  int // bytes of the budget
}

// read reads it to its end.
func (b *body) read(ctx context.Context, from io.Reader) error {
	begun := time.Now()
	if _, err := io.CopyN(&b.Buffer, from, smallBody); err == io.EOF {
		return nil
	} else if err != nil {
		return err
	}
	const most = maxBody + bytes.MinRead
	ctx, end := listen.Yield(ctx)
	ctx, cancel := context.WithDeadline(ctx, begun.Add(bodyTimeout))
	taken := b.budget.take(ctx, most)
	cancel()
	end()
	if !taken {
		return errBusy
	}
	b.taken = most
	b.Grow(most - b.Len())
	_, err := b.ReadFrom(from)
	return err
}

// Close forgets the body, which may be long before its request is over.
func (b *body) Close() error {
	b.Buffer = bytes.Buffer{}
	b.budget.give(b.taken)
	b.taken = 0
	return nil
}

// readBody has a body read within the limits on size and time. The limit on time
// ends with the body: the caller may then wait for the answer as long as it takes.
func readBody(w http.ResponseWriter, r *http.Request, read func(io.Reader) error) error {
	err := read(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		_, _ = io.CopyN(io.Discard, r.Body, maxUnread)
		return push.Errorf(push.BodyTooLarge, "the request's body is over %d bytes: send the file's path, not the file", maxBody)
	case errors.Is(err, errBusy):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return push.Errorf(push.InvalidBody, "the request's body did not arrive within %v", bodyTimeout)
	case err != nil:
		return &push.Error{Code: push.InvalidBody, Detail: "the request's body could not be read: " + push.OneLine(err.Error()), Err: err}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return nil
}

// admit refuses a request that has been read whole where as many as may be are
// served already.
func (a *api) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.Admit(r.Context()) {
			a.fail(w, "", tooMany("as many requests are under way as may be (S3DAEMON_MAX_CALLERS): ask again in a moment"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func tooMany(format string, args ...any) error {
	e := push.Errorf(push.TooManyCallers, format, args...)
	e.RetryAfter = time.Second
	return e
}

// everybody admits all requests.
func everybody(context.Context) bool { return true }
