package push

import "time"

// Overview is how the daemon stands at one moment, for whoever looks at it.
type Overview struct {
	Store          string        // its base URL, or what stands for it with Amazon S3
	Queued         Line          // accepted, and waiting for their turn or another attempt
	Running        Line          // under way
	QueueLimit     int           // pushes, queued and running, with which further ones are refused; 0: none is known
	InTurn         time.Duration // for how long the oldest of those that are queued has waited for its turn alone, since it was accepted or put back; 0 where none does
	Retrying       int           // pushes of those that are queued that wait for another attempt
	Slots          int           // size of the pool: requests to the store that may be under way at once
	SlotsInUse     int
	Connections    []Connection // to the store, by their numbers
	AckedBytes     int64        // that the store has acknowledged since the start, over all connections, of headers and failed attempts too
	LastTaken      time.Time    // when the store took the last request that brought it a file, or a part, or joined the parts; zero: it has not since the start
	LastUnanswered time.Time    // when a request for a push came back without an answer last, though it got there; zero: none has
	Troubles       []Trouble    // what whoever runs the daemon should know, the worst first; none where all is well
}

// Line is the pushes in one state.
type Line struct {
	Pushes int           `json:"pushes"`
	Oldest time.Duration `json:"-"` // age of the oldest since its acceptance; 0 where there is none
}

// Connection is one connection to the store.
type Connection struct {
	Number         int // its place in the pool, from 0
	Address        string
	Busy           bool // a request is under way on it
	Age            time.Duration
	Requests       int64         // that it has carried
	RTT            time.Duration // round trip time, smoothed; 0 where the system does not tell
	Rate           float64       // bytes a second that it is known to carry, and begins with after a pause; 0 where the system does not tell
	FirstRoundTrip int64         // bytes that it would send within its first round trip if it were used now
	Warm           bool          // that is more than a new connection would, or the store is so near that it makes no difference
}

// Trouble is something that keeps the daemon from its work, or has done so.
type Trouble struct {
	Kind   TroubleKind `json:"kind"`
	Since  time.Time   `json:"since,omitzero"`
	Bucket string      `json:"bucket,omitempty"` // that it is about, where it is about one
	Detail string      `json:"detail"`           // one line: what it is, with the cause as far as it may be told
	Cause  string      `json:"cause,omitempty"`  // that alone, for whoever is told what it is in other words; empty where the detail has none
}

// TroubleKind says what a Trouble is about.
type TroubleKind string

// The kinds of trouble.
const (
	TroubleShuttingDown     TroubleKind = "shutting_down"       // it was told to stop, and takes no pushes
	TroubleJournal          TroubleKind = "journal_unavailable" // what was to be put on disk last could not be
	TroubleStore            TroubleKind = "store_unreachable"   // no connection can be made to the store
	TroubleCredentials      TroubleKind = "credentials"         // there are none, or the store refuses them
	TroubleBucket           TroubleKind = "bucket_on_trial"     // requests for a bucket failed several times in a row
	TroubleJournalMovedAway TroubleKind = "journal_moved_aside" // it could not be read at the start
)

// Attempt is one attempt of a push that failed.
type Attempt struct {
	At        time.Time `json:"at"`                  // when it failed
	Seconds   float64   `json:"seconds"`             // that it took
	Operation string    `json:"operation,omitempty"` // the request that failed, as PutObject or UploadPart; empty where none did
	Part      int       `json:"part,omitempty"`      // of an UploadPart, from 1
	Reason    string    `json:"reason"`              // in a word: connection, stalled, 5xx, slow_down, or the code of a problem
	Detail    string    `json:"detail"`              // one line
}
