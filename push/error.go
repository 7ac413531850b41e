package push

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Code names a kind of failure. Codes are part of the interface: programs
// switch on them, so a code once published keeps its meaning.
type Code string

// The codes, by what a caller can do about them.
const (
	// The request is wrong; the same request will fail again.
	InvalidBody        Code = "invalid_body"           // neither one JSON object nor a form
	MissingField       Code = "missing_field"          // file or destination is not there
	UnknownField       Code = "unknown_field"          // a field this daemon does not know
	InvalidField       Code = "invalid_field"          // a field of the wrong type, or with a value it cannot have
	InvalidFile        Code = "invalid_file"           // not the absolute path of any file
	InvalidDestination Code = "invalid_destination"    // not s3://bucket/key, or a name S3 cannot hold
	BodyTooLarge       Code = "body_too_large"         // the request's own body
	UnsupportedMedia   Code = "unsupported_media_type" // of the request's body
	NotFound           Code = "not_found"              // no such route
	MethodNotAllowed   Code = "method_not_allowed"     // the Allow header has the ones that are
	InvalidParameter   Code = "invalid_parameter"      // of the query, or a header
	IdempotencyReused  Code = "idempotency_key_reused" // the Idempotency-Key was used for another request

	// The push that the request is about is not as it wants it.
	PushNotFound  Code = "push_not_found"  // no push has that id, or it has left the history
	PushEnded     Code = "push_ended"      // it cannot be cancelled any more
	PushNotFailed Code = "push_not_failed" // only one that failed or was cancelled can be put back
	Superseded    Code = "superseded"      // a newer push to the same object was accepted since
	WasCancelled  Code = "cancelled"       // somebody cancelled the push that the caller waited for

	// The request is not allowed.
	Unauthorized   Code = "unauthorized"     // no token, or a wrong one
	UserNotAllowed Code = "user_not_allowed" // the user at the other end of the Unix socket
	ForeignHost    Code = "foreign_host"     // the Host header names no host of ours
	CrossOrigin    Code = "cross_origin"     // a web page of another origin asked
	FileNotAllowed Code = "file_not_allowed" // a place that is never read
	// DestinationNotAllowed is of a destination that is none of the Places.
	DestinationNotAllowed Code = "destination_not_allowed"

	// Something is the matter with the file.
	FileNotFound   Code = "file_not_found"
	FileUnreadable Code = "file_unreadable"  // permissions, or the disk failed
	FileNotRegular Code = "file_not_regular" // a directory, FIFO, device or socket
	FileTooLarge   Code = "file_too_large"   // more than 5 TiB
	FileChanged    Code = "file_changed"     // while it was sent
	FileHangs      Code = "file_hangs"       // its file system does not answer

	// Something is the matter with the store.
	StoreRefused     Code = "store_refused"     // it answered, and the answer was no
	StoreUnreachable Code = "store_unreachable" // no answer within the attempts
	ChecksumMismatch Code = "checksum_mismatch" // it has got other bytes than were read
	NotVerified      Code = "not_verified"      // it said yes, and nothing shows that it has the file's bytes
	NoCredentials    Code = "no_credentials"    // none to be had to ask it with
	Exists           Code = "exists"            // it has another object there, which a push that does not overwrite leaves as it is
	// ConditionUnsupported is of a push that does not overwrite, and that the
	// store has no safe way for.
	ConditionUnsupported Code = "condition_unsupported"

	// Something is the matter with the daemon.
	ShuttingDown       Code = "shutting_down"
	QueueFull          Code = "queue_full"          // as many pushes wait as may
	TooManyCallers     Code = "too_many_callers"    // as many requests are under way as may
	JournalUnavailable Code = "journal_unavailable" // nothing can be put on disk, so nothing is accepted
	Internal           Code = "internal"
)

// Error is a failure that a caller is told of.
type Error struct {
	Code   Code
	Detail string       // one line that says what is wrong and what to do; no secret, ever
	Store  *StoreAnswer // where the store had said something
	Err    error        // the cause, for logs only; may be nil

	// RetryAfter is when asking again makes sense, from now on; 0 where
	// nothing is known.
	RetryAfter time.Duration
}

// Errorf makes an Error with a detail and no cause.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Error returns the detail.
func (e *Error) Error() string { return e.Detail }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// StoreAnswer is what the store said when it refused.
type StoreAnswer struct {
	Status    int    `json:"status,omitempty"` // HTTP
	Code      string `json:"code,omitempty"`   // e.g. NoSuchBucket
	Message   string `json:"message,omitempty"`
	RequestID string `json:"request_id,omitempty"` // what the store's operators will ask for
}

// Problem returns the error as it is kept with a push. The words and the number
// of the HTTP status are not in it; package api adds them.
func (e *Error) Problem() *Problem {
	return &Problem{Detail: e.Detail, Code: e.Code, Store: e.Store}
}

// Problem is an Error on the wire: the application/problem+json of RFC 9457,
// with the members code, id and store beside the registered ones.
type Problem struct {
	Title  string       `json:"title"`  // the status in words
	Status int          `json:"status"` // HTTP
	Detail string       `json:"detail"`
	Code   Code         `json:"code"`
	ID     string       `json:"id,omitempty"` // of the push, once there is one
	Store  *StoreAnswer `json:"store,omitempty"`
}

// OneLine returns s with every run of white space and control characters
// turned into one space, so that text from elsewhere fits a line protocol.
func OneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
}
