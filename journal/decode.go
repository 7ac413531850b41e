package journal

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/lsst-dm/s3daemon/push"
)

// decode reads the value under an id.
func decode(id push.ID, value []byte) (*Record, error) {
	body, err := unseal(value, id[:])
	if err != nil {
		return nil, fmt.Errorf("push %s in the journal: %w", id, err)
	}
	r := &Record{ID: id}
	if err := eachField(body, r.set); err != nil {
		return nil, fmt.Errorf("push %s in the journal: %w", id, err)
	}
	if r.State == "" {
		return nil, fmt.Errorf("push %s in the journal has no state", id)
	}
	return r, nil
}

// field is one field on the wire.
type field struct {
	number protowire.Number
	kind   protowire.Type
	value  uint64 // of a number
	bytes  []byte // of a text
}

// nextField returns the field that b begins with and its length, which is
// negative where there is none.
func nextField(b []byte) (field, int) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return field{}, n
	}
	f := field{number: number, kind: kind}
	m := 0
	switch kind {
	case protowire.VarintType:
		f.value, m = protowire.ConsumeVarint(b[n:])
	case protowire.Fixed64Type:
		f.value, m = protowire.ConsumeFixed64(b[n:])
	case protowire.BytesType:
		f.bytes, m = protowire.ConsumeBytes(b[n:])
	default:
		m = protowire.ConsumeFieldValue(number, kind, b[n:])
	}
	if m < 0 {
		return field{}, m
	}
	return f, n + m
}

// eachField calls set for all fields in body, each with its text.
func eachField(body []byte, set func(f field, text string) error) error {
	// One copy for all the texts, which are parts of it.
	text := string(body)
	for len(body) > 0 {
		f, n := nextField(body)
		if n < 0 {
			return protowire.ParseError(n)
		}
		end := len(text) - len(body) + n
		if err := set(f, text[end-len(f.bytes):end]); err != nil {
			return fmt.Errorf("field %d: %w", f.number, err)
		}
		body = body[n:]
	}
	return nil
}

// set puts a field into the record; text is that of f.bytes. A field with
// another number is from a later s3daemon, and of no importance to this one:
// see the package comment on versions.
func (r *Record) set(f field, text string) error {
	switch f.number {
	case fieldState:
		if f.value == 0 || f.value >= uint64(len(states)) {
			return fmt.Errorf("%d stands for no state", f.value)
		}
		r.State = states[f.value]
	case fieldDestination:
		r.Request.Destination = text
	case fieldLabel:
		r.Request.Label = text
	case fieldFile:
		r.Request.File = text
	case fieldContentType:
		r.Request.ContentType = text
	case fieldMetadata:
		return setPair(&r.Request.Metadata, text)
	case fieldTags:
		return setPair(&r.Request.Tags, text)
	case fieldStorageClass:
		r.Request.StorageClass = text
	case fieldEncryption:
		r.Request.Encryption = text
	case fieldKMSKeyID:
		r.Request.KMSKeyID = text
	case fieldCreateOnly:
		if f.value != 0 {
			r.Request.Overwrite = new(bool)
		}
	case fieldSize:
		r.Size = int64(f.value)
	case fieldModSeconds:
		r.ModTime = time.Unix(protowire.DecodeZigZag(f.value), 0).UTC()
	case fieldModNanos:
		r.ModTime = r.ModTime.Add(time.Duration(f.value))
	case fieldDevice:
		r.Device = f.value
	case fieldInode:
		r.Inode = f.value
	case fieldAcceptedAt:
		r.AcceptedAt = moment(f.value)
	case fieldRetriedAt:
		r.RetriedAt = moment(f.value)
	case fieldIdempotencyKey:
		r.IdempotencyKey = text
	case fieldTraceparent:
		r.Traceparent = text
	case fieldRequestHash:
		if copy(r.RequestHash[:], text) != len(r.RequestHash) {
			return errors.New("it is too short")
		}
	case fieldFailedAttempt:
		return r.addAttempt(f.bytes)
	default:
		r.setEnd(f, text)
	}
	return nil
}

func (r *Record) addAttempt(message []byte) error {
	var a push.Attempt
	err := eachField(message, func(f field, text string) error {
		switch f.number {
		case attemptAt:
			a.At = moment(f.value)
		case attemptSeconds:
			a.Seconds = math.Float64frombits(f.value)
		case attemptOperation:
			a.Operation = text
		case attemptPart:
			a.Part = int(f.value)
		case attemptReason:
			a.Reason = text
		case attemptDetail:
			a.Detail = text
		}
		return nil
	})
	r.FailedAttempts = append(r.FailedAttempts, a)
	return err
}

func (r *Record) setEnd(f field, text string) {
	switch f.number {
	case fieldStartedAt:
		r.StartedAt = moment(f.value)
	case fieldFinishedAt:
		r.FinishedAt = moment(f.value)
	case fieldAttempts:
		r.Attempts = int(f.value)
	case fieldParts:
		r.Parts = int(f.value)
	case fieldETag:
		r.ETag = text
	case fieldVersionID:
		r.VersionID = text
	case fieldChecksumAlgorithm:
		made(&r.Checksum).Algorithm = text
	case fieldChecksumValue:
		made(&r.Checksum).Value = text
	case fieldVerifiedWhat:
		made(&r.Verified).What = text
	case fieldVerifiedAlgorithm:
		made(&r.Verified).Algorithm = text
	case fieldVerifiedBy:
		made(&r.Verified).By = text
	case fieldVerifiedValue:
		made(&r.Verified).Value = text
	case fieldConnect:
		made(&r.Spent).Connect = time.Duration(f.value)
	case fieldSend:
		made(&r.Spent).Send = time.Duration(f.value)
	case fieldStore:
		made(&r.Spent).Store = time.Duration(f.value)
	case fieldProblemCode:
		made(&r.Problem).Code = push.Code(text)
	case fieldProblemDetail:
		made(&r.Problem).Detail = text
	case fieldStoreStatus:
		made(&made(&r.Problem).Store).Status = int(f.value)
	case fieldStoreCode:
		made(&made(&r.Problem).Store).Code = text
	case fieldStoreMessage:
		made(&made(&r.Problem).Store).Message = text
	case fieldStoreRequestID:
		made(&made(&r.Problem).Store).RequestID = text
	}
}

// made returns what p points to, and makes it where it is not there yet.
func made[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

func moment(nanos uint64) time.Time { return time.Unix(0, int64(nanos)).UTC() }

func setPair(pairs *map[string]string, text string) error {
	var name, value string
	for body := []byte(text); len(body) > 0; {
		f, n := nextField(body)
		if n < 0 {
			return protowire.ParseError(n)
		}
		switch f.number {
		case 1:
			name = string(f.bytes)
		case 2:
			value = string(f.bytes)
		}
		body = body[n:]
	}
	if *pairs == nil {
		*pairs = make(map[string]string)
	}
	(*pairs)[name] = value
	return nil
}

// brief reads the beginning of the value under an id. It does not check the
// sum.
func brief(id push.ID, value []byte) Brief {
	b := Brief{ID: id}
	for body := value[min(sumSize, len(value)):]; len(body) > 0; {
		f, n := nextField(body)
		switch {
		case n < 0 || f.number > fieldFile:
			return b
		case f.number == fieldState && f.value < uint64(len(states)):
			b.State = states[f.value]
		case f.number == fieldDestination:
			b.Destination = f.bytes
		case f.number == fieldLabel:
			b.Label = f.bytes
		case f.number == fieldFile:
			b.File = f.bytes
		}
		body = body[n:]
	}
	return b
}

// idempotencyKey returns that of the record with this value; empty if there is
// none.
func idempotencyKey(value []byte) []byte {
	for body := value[min(sumSize, len(value)):]; len(body) > 0; {
		f, n := nextField(body)
		if n < 0 || f.number > fieldIdempotencyKey {
			return nil
		}
		if f.number == fieldIdempotencyKey {
			return f.bytes
		}
		body = body[n:]
	}
	return nil
}

// finishedAt returns when the push with this value ended; zero if it has not.
func finishedAt(value []byte) time.Time {
	for body := value[min(sumSize, len(value)):]; len(body) > 0; {
		f, n := nextField(body)
		if n < 0 || f.number > fieldFinishedAt {
			return time.Time{}
		}
		if f.number == fieldFinishedAt {
			return moment(f.value)
		}
		body = body[n:]
	}
	return time.Time{}
}
