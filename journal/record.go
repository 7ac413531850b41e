package journal

import (
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// Record is a push as it is kept.
type Record struct {
	ID      push.ID
	State   push.State   // Queued until it has ended
	Request push.Request // Destination always in the form s3://bucket/key

	// The file as it was found at acceptance; once the push has ended, as it was
	// sent.
	Size          int64
	ModTime       time.Time // with nanoseconds
	Device, Inode uint64

	AcceptedAt     time.Time
	RetriedAt      time.Time // when somebody put it back last; zero: never
	IdempotencyKey string
	RequestHash    [32]byte // kept only where there is an IdempotencyKey
	Traceparent    string   // that the request came with

	// FailedAttempts are those that failed, oldest first, as far as they are kept:
	// before the end those from before the push was put back.
	FailedAttempts []push.Attempt

	// The end; all zero before it.
	StartedAt, FinishedAt time.Time
	Attempts, Parts       int
	ETag, VersionID       string
	Checksum              *push.Checksum
	Verified              *push.Verified
	Problem               *push.Problem // Code, Detail and Store are kept, and nothing else of it
	Spent                 *Spent        // nil where an earlier version ended it
}

// Spent is where the time of a push went that it was not queued in.
type Spent struct{ Connect, Send, Store time.Duration }

// Brief is what of a record can be seen without decoding the rest. The slices
// are valid only during the call that they were handed to.
type Brief struct {
	ID          push.ID
	State       push.State
	Destination []byte
	Label       []byte
	File        []byte
}
