package push

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// ID names a push. It is a UUIDv7 (RFC 9562, section 5.7), so ids sort by the
// time of acceptance, as bytes and as text. The zero ID names none.
type ID [16]byte

// NewID makes the ID of a moment, in milliseconds. Among those of one
// millisecond the lower 12 bits of order decide (RFC 9562, section 6.2, method
// 3); the rest is random.
func NewID(at time.Time, order uint16, random [8]byte) ID {
	var id ID
	binary.BigEndian.PutUint64(id[:8], uint64(at.UnixMilli())<<16|0x7000|uint64(order&0x0fff))
	copy(id[8:], random[:])
	id[8] = id[8]&0x3f | 0x80
	return id
}

// ParseID reads the text of an ID. Any error is an *Error with the code
// PushNotFound, since what is no ID names no push.
func ParseID(s string) (ID, error) {
	var id ID
	bad := func() (ID, error) {
		return ID{}, Errorf(PushNotFound, "%s is not the id of a push: an id looks like 01a2099f-a374-7d75-988c-bfa863fc1e8f", Quote(s))
	}
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return bad()
	}
	compact := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if _, err := hex.Decode(id[:], []byte(compact)); err != nil {
		return bad()
	}
	return id, nil
}

// String returns the ID as RFC 9562 writes it, in small letters.
func (id ID) String() string {
	var b [36]byte
	hex.Encode(b[:8], id[:4])
	hex.Encode(b[9:13], id[4:6])
	hex.Encode(b[14:18], id[6:8])
	hex.Encode(b[19:23], id[8:10])
	hex.Encode(b[24:], id[10:])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// Time returns the moment in the ID, in whole milliseconds.
func (id ID) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16)).UTC()
}

// IsZero reports whether it is the ID of no push.
func (id ID) IsZero() bool { return id == ID{} }

// Compare returns -1, 0 or 1 as id is from before other, the same, or from
// after it.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }
