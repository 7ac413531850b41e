package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

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

// readWhole reads the body into memory before anything is done for the request:
// from then on the daemon waits for nothing more of this caller's. A body that
// a route does not need is read too, since with one unread net/http does not
// notice a caller who hangs up while he waits.
func (a *api) readWhole(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := readBody(w, r)
		if err != nil {
			a.refuse(w, err)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// readBody reads the whole body within the limits on size and time. The limit
// on time ends with the body: the caller may then wait for the answer as long
// as it takes.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		_, _ = io.CopyN(io.Discard, r.Body, maxUnread)
		return nil, push.Errorf(push.BodyTooLarge, "the request's body is over %d bytes: send the file's path, not the file", maxBody)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, push.Errorf(push.InvalidBody, "the request's body did not arrive within %v", bodyTimeout)
	case err != nil:
		return nil, &push.Error{Code: push.InvalidBody, Detail: "the request's body could not be read: " + push.OneLine(err.Error()), Err: err}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return body, nil
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
