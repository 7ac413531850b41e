package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/lsst-dm/s3daemon/push"
)

// The fields of a record. The package comment has the list; a number once used
// keeps its meaning. State, destination, label and file come first, so that
// a Brief needs no more than the beginning.
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
	fieldEncryption
	fieldKMSKeyID
	fieldVerifiedWhat
	fieldVerifiedAlgorithm
	fieldVerifiedBy
	fieldVerifiedValue
	fieldCreateOnly
	fieldConnect
	fieldSend
	fieldStore
	fieldTraceparent
	fieldFailedAttempt
)

// The fields of the message that a failed attempt is.
const (
	attemptAt protowire.Number = iota + 1
	attemptSeconds
	attemptOperation
	attemptPart
	attemptReason
	attemptDetail
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
	b = appendText(b, fieldEncryption, r.Request.Encryption)
	b = appendText(b, fieldKMSKeyID, r.Request.KMSKeyID)
	b = appendVerified(b, r.Verified)
	if r.Request.CreateOnly() {
		b = appendNumber(b, fieldCreateOnly, 1)
	}
	if s := r.Spent; s != nil {
		b = protowire.AppendTag(b, fieldConnect, protowire.VarintType) // even if 0: it says that the others are known
		b = protowire.AppendVarint(b, uint64(s.Connect))
		b = appendNumber(b, fieldSend, uint64(s.Send))
		b = appendNumber(b, fieldStore, uint64(s.Store))
	}
	b = appendText(b, fieldTraceparent, r.Traceparent)
	return appendAttempts(b, r.FailedAttempts)
}

// appendAttempts writes each attempt as a message of its own.
func appendAttempts(b []byte, failed []push.Attempt) []byte {
	var m []byte
	for _, a := range failed {
		m = appendTime(m[:0], attemptAt, a.At)
		m = protowire.AppendFixed64(protowire.AppendTag(m, attemptSeconds, protowire.Fixed64Type), math.Float64bits(a.Seconds))
		m = appendText(m, attemptOperation, a.Operation)
		m = appendNumber(m, attemptPart, uint64(a.Part))
		m = appendText(m, attemptReason, a.Reason)
		m = appendText(m, attemptDetail, a.Detail)
		b = protowire.AppendBytes(protowire.AppendTag(b, fieldFailedAttempt, protowire.BytesType), m)
	}
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
	b = appendModTime(b, fieldModSeconds, fieldModNanos, r.ModTime)
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

func appendVerified(b []byte, v *push.Verified) []byte {
	if v == nil {
		return b
	}
	b = appendText(b, fieldVerifiedWhat, v.What)
	b = appendText(b, fieldVerifiedAlgorithm, v.Algorithm)
	b = appendText(b, fieldVerifiedBy, v.By)
	return appendText(b, fieldVerifiedValue, v.Value)
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

// appendModTime writes the time of a file, in two fields: it may be one that
// nanoseconds in 64 bits cannot express, and it is compared for equality.
func appendModTime(b []byte, seconds, nanos protowire.Number, t time.Time) []byte {
	if !t.IsZero() {
		b = protowire.AppendTag(b, seconds, protowire.VarintType) // even if 0, which many archives give their files
		b = protowire.AppendVarint(b, protowire.EncodeZigZag(t.Unix()))
	}
	return appendNumber(b, nanos, uint64(t.Nanosecond()))
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
