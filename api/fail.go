package api

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// statusOf is the HTTP status of each code; a test holds it to be complete.
var statusOf = map[push.Code]int{
	push.InvalidBody:        http.StatusBadRequest,
	push.MissingField:       http.StatusBadRequest,
	push.UnknownField:       http.StatusBadRequest,
	push.InvalidField:       http.StatusBadRequest,
	push.InvalidFile:        http.StatusBadRequest,
	push.InvalidDestination: http.StatusBadRequest,
	push.BodyTooLarge:       http.StatusRequestEntityTooLarge,
	push.UnsupportedMedia:   http.StatusUnsupportedMediaType,
	push.NotFound:           http.StatusNotFound,
	push.MethodNotAllowed:   http.StatusMethodNotAllowed,
	push.InvalidParameter:   http.StatusBadRequest,
	push.IdempotencyReused:  http.StatusUnprocessableEntity,

	push.PushNotFound:  http.StatusNotFound,
	push.PushEnded:     http.StatusConflict,
	push.PushNotFailed: http.StatusConflict,
	push.Superseded:    http.StatusConflict,
	push.WasCancelled:  http.StatusConflict,

	push.Unauthorized:   http.StatusUnauthorized,
	push.UserNotAllowed: http.StatusForbidden,
	push.ForeignHost:    http.StatusForbidden,
	push.CrossOrigin:    http.StatusForbidden,
	push.FileNotAllowed: http.StatusForbidden,

	push.DestinationNotAllowed: http.StatusForbidden,

	push.FileNotFound:   http.StatusNotFound,
	push.FileUnreadable: http.StatusForbidden,
	push.FileNotRegular: http.StatusUnprocessableEntity,
	push.FileTooLarge:   http.StatusRequestEntityTooLarge,
	push.FileChanged:    http.StatusConflict,
	push.FileHangs:      http.StatusServiceUnavailable,

	push.StoreRefused:     http.StatusBadGateway,
	push.StoreUnreachable: http.StatusGatewayTimeout,
	push.ChecksumMismatch: http.StatusBadGateway,
	push.NotVerified:      http.StatusBadGateway,
	push.NoCredentials:    http.StatusBadGateway,
	push.Exists:           http.StatusPreconditionFailed,

	push.ConditionUnsupported: http.StatusBadGateway,

	push.ShuttingDown:       http.StatusServiceUnavailable,
	push.QueueFull:          http.StatusTooManyRequests,
	push.TooManyCallers:     http.StatusServiceUnavailable,
	push.JournalUnavailable: http.StatusServiceUnavailable,
	push.Internal:           http.StatusInternalServerError,
}

// retryAfter is when a caller who is turned away for now may ask again, where
// the error does not say: about what a restart takes.
const retryAfter = 5 * time.Second

// fail is the one place where an error becomes an answer. What is not a
// *push.Error is logged and not shown.
func (a *api) fail(w http.ResponseWriter, id string, err error) {
	var e *push.Error
	if !errors.As(err, &e) {
		a.Log.Error("internal error", "id", id, "error", err.Error())
		e = push.Errorf(push.Internal, "the daemon failed: its log has the cause")
	}
	status := statusFor(e.Code)
	after := e.RetryAfter
	if after <= 0 && (status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests) {
		after = retryAfter
	}
	if after > 0 {
		w.Header().Set("Retry-After", wholeSeconds(after))
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="s3daemon"`)
	}
	if e.Code == push.ShuttingDown || e.Code == push.TooManyCallers {
		w.Header().Set("Connection", "close") // the listener is gone, or the place is wanted: this connection has no future
	}
	problem := e.Problem()
	problem.ID = id
	w.Header().Set("Content-Type", "application/problem+json")
	write(w, status, withStatus(problem))
}

// refuse answers a request that could not be understood, and logs it: its
// caller may be a program that nobody watches.
func (a *api) refuse(w http.ResponseWriter, err error) {
	a.warn("request not understood", "error", err.Error())
	a.fail(w, "", err)
}

// turnAway answers a request that is not allowed, and logs it with where it came
// from.
func (a *api) turnAway(w http.ResponseWriter, r *http.Request, err error) {
	a.warn("request not allowed", "from", r.RemoteAddr, "error", err.Error())
	a.fail(w, "", err)
}

// warn logs a line about a request that was refused, unless there were many in
// this second.
func (a *api) warn(text string, about ...any) {
	if a.refused.Next(func(left int) {
		a.Log.Warn("more requests were refused, which have no lines of their own", "requests", left)
	}) {
		a.Log.Warn(text, about...)
	}
}

// statusFor returns the status of a code, also of one that an older or newer
// daemon left in the journal.
func statusFor(code push.Code) int {
	if status, known := statusOf[code]; known {
		return status
	}
	return http.StatusInternalServerError
}

// withStatus returns the problem with its status in words and number. It is a
// copy: other answers may be made of the same problem at this moment.
func withStatus(p *push.Problem) *push.Problem {
	if p == nil {
		return nil
	}
	full := *p
	full.Status = statusFor(p.Code)
	full.Title = http.StatusText(full.Status)
	return &full
}

// wholeSeconds writes a time as Retry-After has it, rounded up: a caller who
// asks a moment too early would ask for nothing.
func wholeSeconds(d time.Duration) string {
	seconds := int64(d / time.Second)
	if d%time.Second > 0 {
		seconds++
	}
	return strconv.FormatInt(seconds, 10)
}
