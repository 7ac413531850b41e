package api

import (
	"errors"
	"net/http"

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

	push.ForeignHost:    http.StatusForbidden,
	push.CrossOrigin:    http.StatusForbidden,
	push.FileNotAllowed: http.StatusForbidden,

	push.FileNotFound:   http.StatusNotFound,
	push.FileUnreadable: http.StatusForbidden,
	push.FileNotRegular: http.StatusUnprocessableEntity,
	push.FileTooLarge:   http.StatusRequestEntityTooLarge,
	push.FileChanged:    http.StatusConflict,

	push.StoreRefused:     http.StatusBadGateway,
	push.StoreUnreachable: http.StatusGatewayTimeout,
	push.ChecksumMismatch: http.StatusBadGateway,
	push.NoCredentials:    http.StatusBadGateway,

	push.ShuttingDown: http.StatusServiceUnavailable,
	push.Internal:     http.StatusInternalServerError,
}

// retryAfter is what a caller is told who asks while the daemon shuts down:
// about what a restart takes, in seconds.
const retryAfter = "5"

// fail is the one place where an error becomes an answer. What is not a
// *push.Error is logged and not shown.
func (a *api) fail(w http.ResponseWriter, id string, err error) {
	var e *push.Error
	if !errors.As(err, &e) {
		a.Log.Error("internal error", "id", id, "error", err.Error())
		e = push.Errorf(push.Internal, "the daemon failed: its log has the cause")
	}
	status, known := statusOf[e.Code]
	if !known {
		status = http.StatusInternalServerError
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter)
		w.Header().Set("Connection", "close") // the listener is gone: this connection has no future
	}
	w.Header().Set("Content-Type", "application/problem+json")
	write(w, status, push.Problem{
		Title: http.StatusText(status), Status: status, Detail: e.Detail, Code: e.Code, ID: id, Store: e.Store,
	})
}
