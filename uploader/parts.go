package uploader

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

// sentPart is a part of an upload that the store has been shown to have. It is
// all that is needed to go on without sending the part again.
type sentPart struct {
	size  int64
	etag  string // by which the store knows it
	ours  digests
	proof proof
	told  bool // the store told its CRC64NVME: some want the completion to name it then
}

// expect begins with so many parts, of which the store has none.
func (d *delivery) expect(parts int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.parts = make([]sentPart, parts)
}

// planned returns in how many parts the file goes; 0 where it goes as a whole, or that
// is not known yet.
func (d *delivery) planned() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.parts)
}

// keepPart notes that the store has the part of that number, from 1, and has it
// put on disk.
func (d *delivery) keepPart(number int32, p sentPart) {
	d.mu.Lock()
	d.parts[number-1] = p
	d.mu.Unlock()
	d.up.journal.PutPart(d.upload, p.record(number), nil)
}

// partOf returns the part of that number, from 1; zero if the store does not have
// it.
func (d *delivery) partOf(number int32) sentPart {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.parts[number-1]
}

// record is the part as the journal has it.
func (p *sentPart) record(number int32) *journal.Part {
	r := &journal.Part{Number: number, Size: p.size, ETag: p.etag, CRC64NVME: p.ours.crc, Algorithm: p.proof.algorithm, By: p.proof.by, Told: p.told}
	if p.ours.have&withMD5 != 0 {
		r.MD5 = p.ours.md5[:]
	}
	if p.ours.have&withSHA256 != 0 {
		r.SHA256 = p.ours.sha256[:]
	}
	return r
}

// sentPartOf is the part that the journal has.
func sentPartOf(r *journal.Part) sentPart {
	p := sentPart{size: r.Size, etag: r.ETag, ours: digests{have: withCRC, crc: r.CRC64NVME}, proof: proof{r.Algorithm, r.By}, told: r.Told}
	if copy(p.ours.md5[:], r.MD5) == md5.Size {
		p.ours.have |= withMD5
	}
	if copy(p.ours.sha256[:], r.SHA256) == sha256.Size {
		p.ours.have |= withSHA256
	}
	return p
}

// answer is what the store said when it got the part, as far as the completion
// has it.
func (p *sentPart) answer() *s3.UploadPartOutput {
	out := &s3.UploadPartOutput{ETag: aws.String(`"` + p.etag + `"`)}
	if p.told {
		out.ChecksumCRC64NVME = aws.String(p.ours.crc64nvme())
	}
	return out
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
