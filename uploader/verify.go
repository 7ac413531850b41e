package uploader

import (
	"crypto/md5"
	"encoding/hex"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// claim is what a store's answer of success says of the bytes that it has.
type claim struct {
	crc64nvme string // in base64; empty where it says none
	etag      string // bare
	opaque    bool   // the ETag is no digest of what was sent, whatever it looks like
}

func (d *delivery) newClaim(crc, etag *string, encryption types.ServerSideEncryption) claim {
	return claim{aws.ToString(crc), bareETag(aws.ToString(etag)), d.opaqueETag(encryption)}
}

// byKMS begins the names of encryption by a key that the store has from elsewhere.
const byKMS = "aws:kms"

// opaqueETag reports whether an ETag says nothing of the object's bytes, which
// depends on the encryption that was asked for or that the store tells. By a key
// of the caller's none is asked for.
func (d *delivery) opaqueETag(told types.ServerSideEncryption) bool {
	return strings.HasPrefix(d.req.Encryption, byKMS) || strings.HasPrefix(string(told), byKMS)
}

// proof is how it was shown that the store has the bytes of one request.
type proof struct{ algorithm, by string }

const (
	byDaemon = "daemon" // the store said what it had computed, and it was compared here
	byStore  = "store"  // the store took what it had been sent, which it refuses where it does not agree
)

// verdict is what an answer amounts to: one of its members is set, or none
// where the answer shows nothing.
type verdict struct {
	proof    proof
	differs  *difference // the store has other bytes
	needsMD5 bool        // the ETag would tell, if the MD5 were known
}

// difference is a digest of what was read beside that of what the store has.
type difference struct{ algorithm, read, stored string }

// judge says what an answer of success shows, given what is known of the bytes,
// which digests the request carried, and whether a CRC64NVME that is ours is
// believed.
//
//	it gives another CRC64NVME             the bytes differ
//	it gives ours, and that is believed    proof, if the ETag does not contradict
//	the ETag is an MD5, and another        the bytes differ
//	the ETag is ours                       proof
//	the ETag is an MD5, ours is not known  find that out
//	it gives several ETags                 the bytes differ
//	neither says anything, and the store   proof: stores refuse a Content-MD5, or a signed
//	took the MD5 or the SHA-256            SHA-256, that is not that of the body
//	neither, and it took a CRC64NVME       nothing: many stores ignore the header
func judge(ours *digests, carried algorithms, says claim, believed bool) verdict {
	var shown proof
	if says.crc64nvme != "" {
		if says.crc64nvme != ours.crc64nvme() {
			return verdict{differs: &difference{"CRC64NVME", ours.crc64nvme(), says.crc64nvme}}
		}
		if believed {
			shown = proof{"crc64nvme", byDaemon}
		}
	}
	several := contradictory(says.etag)
	comparable := several || !says.opaque && isMD5(says.etag)
	if comparable && ours.have&withMD5 != 0 {
		if !strings.EqualFold(says.etag, ours.md5Hex()) {
			return verdict{differs: &difference{"MD5", ours.md5Hex(), says.etag}}
		}
		if shown == (proof{}) {
			shown = proof{"md5", byDaemon}
		}
	}
	switch {
	case shown != proof{} && !several:
	case comparable:
		return verdict{needsMD5: true}
	case carried&withMD5 != 0:
		shown = proof{"md5", byStore}
	case carried&withSHA256 != 0:
		shown = proof{"sha256", byStore}
	}
	return verdict{proof: shown}
}

// isMD5 reports whether an ETag has the form of the MD5 of a body.
func isMD5(etag string) bool {
	sum, err := hex.DecodeString(etag)
	return err == nil && len(sum) == md5.Size
}

// isMD5OfParts reports whether an ETag has the form that S3 gives an object of
// parts.
func isMD5OfParts(etag string) bool {
	sum, number, found := strings.Cut(etag, "-")
	return found && number != "" && strings.Trim(number, "0123456789") == "" && isMD5(sum)
}

// verifies is what is known of the store: whether an operation is one that
// checks a CRC64NVME header. One server may do so for PutObject and not for
// UploadPart.
type verifies struct{ put, part trust }

// trust is how far it is believed that an operation checks a CRC64NVME header,
// where an answer says the value that we had computed.
//
//	unknown  at first
//	known    once an answer has said our value, and its ETag did not contradict
//	doubted  from then on, and for good, that an answer said our value and its ETag
//	         was that of other bytes: a server that repeats what it was told. So too
//	         once an answer said none after others had: the servers are not alike
type trust struct{ atomic.Uint32 }

const (
	unknown uint32 = iota
	known
	doubted
)

func (t *trust) knows() bool  { return t.Load() == known }
func (t *trust) doubts() bool { return t.Load() == doubted }

// learn notes what an answer shows of the operation, given what it amounts to.
func (t *trust) learn(ours *digests, says claim, v verdict) {
	switch {
	case says.crc64nvme == "":
		t.CompareAndSwap(known, doubted)
	case says.crc64nvme == ours.crc64nvme() && v.differs != nil:
		t.Store(doubted)
	case v.differs == nil:
		t.CompareAndSwap(unknown, known)
	}
}
