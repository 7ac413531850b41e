package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/lsst-dm/s3daemon/push"
)

// The fields of a record. The package comment has the list; a number once used
// keeps its meaning. State, destination and label come first, so that a Brief
// needs no more than the beginning.
const (
	fieldState protowire.Number = iota + 1
	fieldDestination
	fieldLabel
	fieldFile
	fieldContentType
	fieldMetadata
	fieldTags
	fieldStorageClass
	fieldSize
	fieldModSeconds
	fieldModNanos
	fieldDevice
	fieldInode
	fieldAcceptedAt
	fieldRetriedAt
	fieldIdempotencyKey
	fieldRequestHash
	fieldStartedAt
	fieldFinishedAt
	fieldAttempts
	fieldParts
	fieldETag
	fieldVersionID
	fieldChecksumAlgorithm
	fieldChecksumValue
	fieldProblemCode
	fieldProblemDetail
	fieldStoreStatus
	fieldStoreCode
	fieldStoreMessage
	fieldStoreRequestID
)

// states has the number that stands for each state on disk.
var states = [...]push.State{1: push.Queued, 2: push.Done, 3: push.Failed, 4: push.Cancelled}

// sumSize is the length of the checksum that every value begins with.
const sumSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errSum = errors.New("its checksum is wrong")

// seal fills in the checksum that value begins with. The key is part of it, so
// that a value under another's key is noticed.
func seal(value, key []byte) {
	binary.BigEndian.PutUint32(value, sum(value, key))
}

// unseal returns what follows the checksum, if that is right.
func unseal(value, key []byte) ([]byte, error) {
	if len(value) < sumSize || binary.BigEndian.Uint32(value) != sum(value, key) {
		return nil, errSum
	}
	return value[sumSize:], nil
}

func sum(value, key []byte) uint32 {
	return crc32.Update(crc32.Checksum(value[sumSize:], castagnoli), castagnoli, key)
}

// encode returns the value of a record in this state, not sealed yet: a new
// record gets its id, which goes into the checksum, only when it is submitted.
func encode(r *Record, state push.State) []byte {
	b := make([]byte, sumSize, 160+len(r.Request.File)+len(r.Request.Destination)+len(r.Request.Label))
	b = appendNumber(b, fieldState, uint64(max(slices.Index(states[:], state), 1)))
	b = appendRequest(b, r)
	b = appendEnd(b, r)
	return b
}

func appendRequest(b []byte, r *Record) []byte {
	q := &r.Request
	b = appendText(b, fieldDestination, q.Destination)
	b = appendText(b, fieldLabel, q.Label)
	b = appendText(b, fieldFile, q.File)
	b = appendText(b, fieldContentType, q.ContentType)
	b = appendPairs(b, fieldMetadata, q.Metadata)
	b = appendPairs(b, fieldTags, q.Tags)
	b = appendText(b, fieldStorageClass, q.StorageClass)
	b = appendNumber(b, fieldSize, uint64(r.Size))
	// In two fields, since a file may have a time that nanoseconds in 64 bits
	// cannot express, and it is compared for equality.
	if !r.ModTime.IsZero() {
		b = protowire.AppendTag(b, fieldModSeconds, protowire.VarintType) // even if 0, which many archives give their files
		b = protowire.AppendVarint(b, protowire.EncodeZigZag(r.ModTime.Unix()))
	}
	b = appendNumber(b, fieldModNanos, uint64(r.ModTime.Nanosecond()))
	b = appendNumber(b, fieldDevice, r.Device)
	b = appendNumber(b, fieldInode, r.Inode)
	b = appendTime(b, fieldAcceptedAt, r.AcceptedAt)
	b = appendTime(b, fieldRetriedAt, r.RetriedAt)
	if r.IdempotencyKey != "" {
		b = appendText(b, fieldIdempotencyKey, r.IdempotencyKey)
		b = protowire.AppendTag(b, fieldRequestHash, protowire.BytesType)
		b = protowire.AppendBytes(b, r.RequestHash[:])
	}
	return b
}

func appendEnd(b []byte, r *Record) []byte {
	b = appendTime(b, fieldStartedAt, r.StartedAt)
	b = appendTime(b, fieldFinishedAt, r.FinishedAt)
	b = appendNumber(b, fieldAttempts, uint64(r.Attempts))
	b = appendNumber(b, fieldParts, uint64(r.Parts))
	b = appendText(b, fieldETag, r.ETag)
	b = appendText(b, fieldVersionID, r.VersionID)
	if c := r.Checksum; c != nil {
		b = appendText(b, fieldChecksumAlgorithm, c.Algorithm)
		b = appendText(b, fieldChecksumValue, c.Value)
	}
	if p := r.Problem; p != nil {
		b = protowire.AppendTag(b, fieldProblemCode, protowire.BytesType) // even if empty: it says that there is a problem
		b = protowire.AppendString(b, string(p.Code))
		b = appendText(b, fieldProblemDetail, p.Detail)
		if s := p.Store; s != nil {
			b = protowire.AppendTag(b, fieldStoreStatus, protowire.VarintType) // even if 0: it says that the store had answered
			b = protowire.AppendVarint(b, uint64(s.Status))
			b = appendText(b, fieldStoreCode, s.Code)
			b = appendText(b, fieldStoreMessage, s.Message)
			b = appendText(b, fieldStoreRequestID, s.RequestID)
		}
	}
	return b
}

func appendText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func appendNumber(b []byte, field protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
}

func appendTime(b []byte, field protowire.Number, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), uint64(t.UnixNano()))
}

// appendPairs writes each pair as a message of its own, with the name as field
// 1 and the value as field 2, in the order of the names.
func appendPairs(b []byte, field protowire.Number, pairs map[string]string) []byte {
	if len(pairs) == 0 {
		return b
	}
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		value := pairs[name]
		b = protowire.AppendTag(b, field, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(2+protowire.SizeBytes(len(name))+protowire.SizeBytes(len(value))))
		b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), name)
		b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), value)
	}
	return b
}

// decode reads the value under an id.
func decode(id push.ID, value []byte) (*Record, error) {
	body, err := unseal(value, id[:])
	if err != nil {
		return nil, fmt.Errorf("push %s in the journal: %w", id, err)
	}
	r := &Record{ID: id}
	// One copy for all the texts, which are parts of it.
	text := string(body)
	for len(body) > 0 {
		f, n := nextField(body)
		if n < 0 {
			return nil, fmt.Errorf("push %s in the journal: %w", id, protowire.ParseError(n))
		}
		end := len(text) - len(body) + n
		if err := r.set(f, text[end-len(f.bytes):end]); err != nil {
			return nil, fmt.Errorf("push %s in the journal: field %d: %w", id, f.number, err)
		}
		body = body[n:]
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
	case fieldRequestHash:
		if copy(r.RequestHash[:], text) != len(r.RequestHash) {
			return errors.New("it is too short")
		}
	default:
		r.setEnd(f, text)
	}
	return nil
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
		case n < 0 || f.number > fieldLabel:
			return b
		case f.number == fieldState && f.value < uint64(len(states)):
			b.State = states[f.value]
		case f.number == fieldDestination:
			b.Destination = f.bytes
		case f.number == fieldLabel:
			b.Label = f.bytes
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

// keyEntry returns the sealed value that an idempotency key has.
func keyEntry(key []byte, id push.ID, hash [32]byte) []byte {
	b := make([]byte, sumSize, sumSize+len(id)+len(hash))
	b = append(append(b, id[:]...), hash[:]...)
	seal(b, key)
	return b
}

// parseKeyEntry reads what keyEntry made.
func parseKeyEntry(key, value []byte) (id push.ID, hash [32]byte, err error) {
	body, err := unseal(value, key)
	if err == nil && len(body) != len(id)+len(hash) {
		err = errors.New("its length is wrong")
	}
	if err != nil {
		return id, hash, fmt.Errorf("an idempotency key in the journal: %w", err)
	}
	copy(id[:], body)
	copy(hash[:], body[len(id):])
	return id, hash, nil
}
