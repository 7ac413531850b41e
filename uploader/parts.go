package uploader

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/lsst-dm/s3daemon/push"
)

// sentPart is a part of an upload that the store has been shown to have. It is
// all that is needed to go on without sending the part again.
type sentPart struct {
	size  int64
	etag  string // by which the store knows it
	ours  digests
	proof proof
}

// keepPart notes that the store has the part of that number, from 1.
func (d *delivery) keepPart(number int32, p sentPart) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.parts[number-1] = p
}

// combined returns the CRC64NVME of the parts, one after the other.
func combined(parts []sentPart) uint64 {
	var crc uint64
	for _, p := range parts {
		crc = combine(crc, p.ours.crc, p.size)
	}
	return crc
}

// verifiedParts is the proof for the receipt of a file that went in parts, each
// of which was verified. Where they differ in how, it has all the algorithms,
// and the weaker of the two judges.
func verifiedParts(parts []sentPart) *push.Verified {
	v := &push.Verified{What: "parts", By: byDaemon}
	var used []string
	for _, p := range parts {
		used = append(used, p.proof.algorithm)
		if p.proof.by == byStore {
			v.By = byStore
		}
	}
	slices.Sort(used)
	v.Algorithm = strings.Join(slices.Compact(used), "+")
	switch v.Algorithm {
	case "md5":
		v.Value = joinedDigest(md5.New(), parts, func(p *sentPart) []byte { return p.ours.md5[:] })
	case "sha256":
		v.Value = joinedDigest(sha256.New(), parts, func(p *sentPart) []byte { return p.ours.sha256[:] })
	default:
		v.Value = crcText(combined(parts))
	}
	return v
}

// joinedDigest is the digest of the parts' digests and their number, as the ETag of
// an object of parts has it.
func joinedDigest(all hash.Hash, parts []sentPart, digest func(*sentPart) []byte) string {
	for i := range parts {
		all.Write(digest(&parts[i]))
	}
	return fmt.Sprintf("%x-%d", all.Sum(nil), len(parts))
}

// joinedETag returns the ETag that S3 gives an object of these parts: the MD5
// of their MD5s and their number. It is empty if their ETags are no MD5s, as
// with some encryptions.
func joinedETag(parts []sentPart) string {
	if slices.ContainsFunc(parts, func(p sentPart) bool { return !isMD5(p.etag) }) {
		return ""
	}
	return joinedDigest(md5.New(), parts, func(p *sentPart) []byte {
		sum, _ := hex.DecodeString(p.etag) // which is known to be one
		return sum
	})
}
