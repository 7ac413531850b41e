package push

import "time"

// Options is how a caller wants a push handled; it is no part of what is
// pushed.
type Options struct {
	// Wait is how long the caller waits for the end: without a limit if it is
	// negative, not at all if it is 0.
	Wait time.Duration
	// IdempotencyKey names the request, so that a repetition of it gives the
	// first push back. Empty: every request is a push of its own.
	IdempotencyKey string
	// Traceparent is the trace that the request is part of, a valid value of that
	// header (W3C Trace Context); empty: none. A repetition by IdempotencyKey
	// leaves the push with its own.
	Traceparent string
}

// Forever is the Wait of a caller who wants to hear of the end, whenever that
// is.
const Forever time.Duration = -1

// MaxIdempotencyKeyBytes is the longest Idempotency-Key.
const MaxIdempotencyKeyBytes = 255

// Limits of a Page, and of what it is asked for by.
const (
	DefaultPage  = 100
	MaxPage      = 1000
	MaxTextBytes = 256
)

// Filter says which pushes a list is to have. The zero Filter has them all.
type Filter struct {
	States []State // any of these; all where empty
	Label  string  // exactly this; all where empty
	Text   string  // is in the file, the destination, the label or the id, in small letters or capitals; all where empty
	Limit  int     // at most this many, 1 to MaxPage; DefaultPage where 0
	Before ID      // only older ones: the Next of the page before; from the newest on where zero
}

// Page is a part of a list of pushes, newest first.
type Page struct {
	Pushes []Receipt `json:"pushes"`
	// Next is the cursor of the next page; it is empty on the last one.
	Next string `json:"next,omitempty"`
	// Pending is how many pushes with the filter's label (or of all, without
	// one) are queued or running, whatever the states asked for. 0 is what the
	// barrier waits for.
	Pending int `json:"pending"`
}
