package journal

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// sequence makes ids, each later than the one before. What it counts with has
// 60 bits: the milliseconds of an id and its 12 bits of order, which hold the
// fraction of the millisecond as far as the clock runs forward.
type sequence struct {
	last uint64
}

// next returns an id for the moment now, or for the one just after the last id
// where the clock has not come as far.
func (s *sequence) next(now time.Time) push.ID {
	n := uint64(now.UnixMilli())<<12 | uint64(now.Nanosecond()%1e6)<<12/1e6
	s.last = max(n, s.last+1)
	var random [8]byte
	rand.Read(random[:]) // never fails
	return push.NewID(time.UnixMilli(int64(s.last>>12)), uint16(s.last&0xfff), random)
}

// seen makes all later ids come after this one.
func (s *sequence) seen(id push.ID) {
	s.last = max(s.last, order(id))
}

// order returns the number that the sequence made an id of.
func order(id push.ID) uint64 {
	n := binary.BigEndian.Uint64(id[:8])
	return n>>16<<12 | n&0xfff
}
