// Package push has the nouns of s3daemon: what a caller asks for (Request,
// Destination), what becomes of it (State, Receipt) and how it fails (Error,
// Problem). The daemon's packages and its clients speak to each other in
// these types, so that none of them needs to know another's.
//
// A push is one file on this host and one S3 object that is to hold its bytes:
//
//	req := push.Request{File: "/data/r22_s11.fits", Destination: "s3://raw/2026-11-23/r22_s11.fits"}
//	dest, err := req.Check() // *push.Error, code invalid_file, invalid_destination, ...
//
// The JSON forms of Request, Receipt and Problem are the wire format of the
// HTTP interface, described in openapi.yaml. This package imports nothing
// beyond the standard library.
package push

import "time"

// State is where a push is in its life.
type State string

// The states of a push. It begins queued, becomes running, and ends in one of
// the other three, which it never leaves by itself.
const (
	Queued    State = "queued"
	Running   State = "running"
	Done      State = "done"      // the store has exactly the file's bytes
	Failed    State = "failed"    // it will not be delivered; the problem says why
	Cancelled State = "cancelled" // somebody asked for it not to be delivered
)

// Checksum is a digest of an object's bytes.
type Checksum struct {
	Algorithm string `json:"algorithm"` // "crc64nvme"
	Value     string `json:"value"`     // base64 of the big-endian bytes, as S3 writes it
}

// Verified says how it was shown that the store has exactly the file's bytes.
type Verified struct {
	What      string `json:"what"`      // what was compared: "object", all of it at once, or "parts", each of them
	Algorithm string `json:"algorithm"` // "crc64nvme", "md5" or "sha256"; as "crc64nvme+md5" where parts were shown by different ones
	By        string `json:"by"`        // who compared: "daemon", with what the store computed, or "store", which took what the daemon had sent
	Value     string `json:"value"`     // the digest: a CRC64NVME in base64, the others in hexadecimal, those of parts as the ETag has them; of several algorithms the CRC64NVME of the whole
}

// Timing says where the time of a push went, in seconds that add up to
// Receipt.Seconds. Where several of its requests were at it at the same time, that
// time counts once. What went before a restart of the daemon, or before the push was
// put back, counts as queued.
type Timing struct {
	Queued  float64 `json:"queued"`  // no request was under way: it waited for its turn, for its file, or for another attempt
	Connect float64 `json:"connect"` // a request waited for a connection, and no other was under way
	Send    float64 `json:"send"`    // requests were under way, and the store had yet to acknowledge all of them
	Store   float64 `json:"store"`   // it had them, and had yet to answer
}

// Ended reports whether the state is one of the last three.
func (s State) Ended() bool { return s == Done || s == Failed || s == Cancelled }

// Receipt says what became of a push, or how far it is.
type Receipt struct {
	ID          string    `json:"id"` // a UUIDv7 (RFC 9562): ids sort by the time of acceptance
	State       State     `json:"state"`
	File        string    `json:"file"`        // as asked; what is not UTF-8 in it cannot be shown in JSON
	Destination string    `json:"destination"` // always in the form s3://bucket/key
	Bucket      string    `json:"bucket"`
	Key         string    `json:"key"`
	Size        int64     `json:"size"`                 // bytes
	ETag        string    `json:"etag,omitempty"`       // as the store gave it, without quotes
	Checksum    *Checksum `json:"checksum,omitempty"`   // of the whole file as it was read and sent; always there once it is done
	Verified    *Verified `json:"verified,omitempty"`   // the proof; always there once it is done
	VersionID   string    `json:"version_id,omitempty"` // where the bucket keeps versions
	Attempts    int       `json:"attempts"`             // runs of the push, where in each the request counts that was repeated most; 1 when nothing was, 0 before the first
	Parts       int       `json:"parts"`                // requests that carry the bytes: 1 is a single PutObject
	AcceptedAt  time.Time `json:"accepted_at"`
	StartedAt   time.Time `json:"started_at,omitzero"`  // when its last run began
	FinishedAt  time.Time `json:"finished_at,omitzero"` // once it has ended
	Seconds     float64   `json:"seconds"`              // from acceptance to the end, or until now
	Timing      *Timing   `json:"timing,omitempty"`     // once it has ended: where these seconds went
	Label       string    `json:"label,omitempty"`
	Traceparent string    `json:"traceparent,omitempty"` // that the request for it came with, and that its requests to the store have
	SentBytes   int64     `json:"sent_bytes,omitempty"`  // while it runs: what the store has acknowledged
	RetryAt     time.Time `json:"retry_at,omitzero"`     // while it waits for another attempt: when that is due
	// FailedAttempts are those of its attempts that failed, oldest first, the last ten;
	// none in lists.
	FailedAttempts []Attempt `json:"failed_attempts,omitempty"`
	// Problem says why it failed or was cancelled. Before the end it is what
	// the last attempt failed with, and why there is another, or why it waits
	// where the store cannot be reached.
	Problem *Problem `json:"problem,omitempty"`
}
