package uploader

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/lsst-dm/s3daemon/push"
)

// This file is the one place where the store is asked for an object, and what it
// shows is compared with what was sent, or was to be sent.

// standing is what the store shows of an object: by its bytes, whoever sent them.
type standing uint8

const (
	noObject    standing = iota // there is none
	otherObject                 // it has other bytes
	ourObject                   // it has our bytes
	someObject                  // it has our size, and shows nothing else that could be compared
)

// sight is what the store showed when it was asked for an object.
type sight struct {
	is      standing
	differs *difference          // in what it is another
	got     outcome              // of ourObject and someObject
	head    *s3.HeadObjectOutput // nil where there is none
	at      time.Time            // when the answer was there
}

// look asks for the object, and compares it with the parts of an upload, each of
// which the store was shown to have. Without any, or where they tell nothing, it
// compares it with the file if there is one, which is read as far as the answer
// needs; the caller has yet to Check that the file is the one that he means. An
// error says that the store gave no answer, or
// one that leaves open whether there is an object.
func (d *delivery) look(parts []sentPart) (sight, error) {
	return d.lookIn(d.up.stopped, inPlace, parts)
}

// lookFirst is look for what goes before all that a run sends: nothing is lost by
// giving the place back if there is no answer, and a store that is silent about
// some keys does not hold those who push to others.
func (d *delivery) lookFirst(ctx context.Context, parts []sentPart) (sight, error) {
	return d.lookIn(ctx, first, parts)
}

func (d *delivery) lookIn(ctx context.Context, p placing, parts []sentPart) (sight, error) {
	head, err := d.headIn(ctx, p)
	switch {
	case answerOf(err).Status == http.StatusNotFound:
		return sight{at: time.Now()}, nil
	case err != nil:
		return sight{}, err
	}
	s := d.compare(head, parts)
	if s.is == someObject && parts != nil && d.file != nil { // some stores give an object of parts the MD5 of the whole
		s = d.compare(head, nil)
	}
	return s, nil
}

// mayHaveMade notes that a PutObject that began at that time ended so that the
// store may have the object.
func (d *delivery) mayHaveMade(begun time.Time) {
	d.maybe = true
	if d.unclearSince.IsZero() {
		d.unclearSince = begun
	}
}

// wasMade reports whether an earlier PutObject of the push made the object after
// all; what is known of it is in d.got then. If one may have, the store is asked,
// and an error says that it did not answer: nothing is sent before it has. A store
// that does not let us ask leaves nothing but to send again.
func (d *delivery) wasMade(ctx context.Context) (bool, error) {
	if d.unclearSince.IsZero() {
		return false, nil
	}
	head, err := d.headIn(ctx, first)
	switch {
	case err != nil && answerOf(err).Status != http.StatusNotFound && (transient(err) || ctx.Err() != nil):
		return false, err
	case err != nil:
		return false, nil
	}
	s := d.compare(head, nil)
	if !d.madeByUs(s, d.unclearSince) {
		return false, nil
	}
	d.stored, d.got = true, s.got
	return true, nil
}

// asking is the operation that asks for an object.
const asking = "HeadObject"

// head asks for the object until the daemon stops. It needs no file.
func (d *delivery) head() (*s3.HeadObjectOutput, error) { return d.headIn(d.up.stopped, inPlace) }

func (d *delivery) headIn(ctx context.Context, p placing) (head *s3.HeadObjectOutput, err error) {
	in := &s3.HeadObjectInput{Bucket: &d.dest.Bucket, Key: &d.dest.Key}
	if d.up.checksum != ChecksumMD5 {
		in.ChecksumMode = types.ChecksumModeEnabled
	}
	err = d.request(ctx, asking, single, p, func(ctx context.Context, _ *commitment) (err error) {
		head, err = d.up.client.HeadObject(ctx, in)
		return err
	})
	if err == nil && bareETag(aws.ToString(head.ETag)) == "" {
		err = errNoStore // proxies and portals say 200 to anything
	}
	return head, err
}

// compare says what an answer of head shows, as look does.
func (d *delivery) compare(head *s3.HeadObjectOutput, parts []sentPart) sight {
	s := sight{head: head, at: time.Now()}
	if s.differs = sizeDiffers(head, d.sizeOf(parts)); s.differs != nil {
		s.is = otherObject
		return s
	}
	says, believed := d.headClaim(head), true
	if parts == nil {
		believed = d.up.checksum.believes(&d.up.verifies.put)
		var err error
		if parts, err = d.readFor(says); err != nil || parts == nil {
			s.is = someObject
			return s
		}
	}
	s.got = newOutcome(head.ETag, head.VersionId, combined(parts))
	s.got.verified = verifiedObject(parts, says, believed)
	shown, differs := d.judgeObject(claimOf(parts, says), says, believed)
	switch {
	case differs != nil:
		s.is, s.differs = otherObject, differs
	case shown:
		s.is = ourObject
	default:
		s.is = someObject
	}
	return s
}

func (d *delivery) headClaim(head *s3.HeadObjectOutput) claim {
	return d.newClaim(wholeCRC(head.ChecksumCRC64NVME, head.ChecksumType), head.ETag, head.ServerSideEncryption)
}

// wholeCRC is the CRC64NVME that an answer has of a whole object; nil if it has
// none.
func wholeCRC(crc *string, kind types.ChecksumType) *string {
	if kind == types.ChecksumTypeComposite {
		return nil
	}
	return crc
}

// sizeOf is the size of the parts, or else of the file.
func (d *delivery) sizeOf(parts []sentPart) int64 {
	if parts == nil {
		return d.file.Size()
	}
	var size int64
	for _, p := range parts {
		size += p.size
	}
	return size
}

// sizeDiffers returns in what the object is another, if that is its size.
func sizeDiffers(head *s3.HeadObjectOutput, size int64) *difference {
	if stored := aws.ToInt64(head.ContentLength); stored != size {
		return &difference{"size", fmt.Sprint(size), fmt.Sprint(stored)}
	}
	return nil
}

// readFor reads the file for what the claim can be compared by: a CRC64NVME, and
// unless that is known to be computed by the store, an ETag that is made of MD5s:
// of the whole, or of parts as ours are. Where there is neither there are no
// parts, and nothing is read.
func (d *delivery) readFor(says claim) (parts []sentPart, err error) {
	wanted, cuts := withCRC, []int64{d.file.Size()}
	ofParts := d.cutsBy(says.etag)
	comparable := !says.opaque && (isMD5(says.etag) || len(ofParts) > 0)
	switch {
	case says.crc64nvme == "" && !comparable:
		return nil, nil
	case comparable && (says.crc64nvme == "" || !d.up.verifies.put.knows() && d.up.checksum != ChecksumCRC64NVME):
		wanted |= withMD5
		if len(ofParts) > 0 {
			cuts = ofParts
		}
	}
	for _, cut := range cuts {
		if parts, err = d.readParts(max(1, cut), wanted); err != nil || strings.EqualFold(joinedETag(parts), says.etag) {
			break
		}
	}
	return parts, err
}

// cutsBy returns the part sizes by which the file may have been cut for an object
// with that ETag; none where it is not of parts, or not of as many.
func (d *delivery) cutsBy(etag string) []int64 {
	n := partsByETag(etag)
	switch {
	case !isMD5OfParts(etag):
		return nil
	case d.partSize == 0:
		return d.up.plan.cuts(d.file.Size(), n)
	case partsOf(d.file.Size(), d.partSize) == n:
		return []int64{d.partSize}
	}
	return nil
}

// readParts reads the file, cut into parts of that size.
func (d *delivery) readParts(cut int64, wanted algorithms) ([]sentPart, error) {
	parts := make([]sentPart, max(1, (d.file.Size()+cut-1)/cut))
	for i := range parts {
		p, at := &parts[i], int64(i)*cut
		content := io.NewSectionReader(d.section(d.up.stopped), at, min(cut, d.file.Size()-at))
		p.size = content.Size()
		if err := p.ours.compute(content, wanted); err != nil {
			return nil, err
		}
		if wanted&withMD5 != 0 {
			p.etag, p.proof = p.ours.md5Hex(), proof{"md5", byDaemon}
		}
	}
	return parts, nil
}

// claimOf is what a store would say that has these bytes and made its ETag in the
// way of the claim.
func claimOf(parts []sentPart, says claim) claim {
	c := claim{crc64nvme: crcText(combined(parts)), etag: joinedETag(parts)}
	if len(parts) == 1 && !isMD5OfParts(says.etag) {
		c.etag = parts[0].etag
	}
	return c
}

// verifiedObject is the proof for the receipt of an object that was asked for and
// is ours.
func verifiedObject(parts []sentPart, says claim, believed bool) *push.Verified {
	switch {
	case says.crc64nvme != "" && believed:
		return &push.Verified{What: "object", Algorithm: "crc64nvme", By: byDaemon, Value: says.crc64nvme}
	case isMD5(says.etag) && len(parts) == 1:
		return &push.Verified{What: "object", Algorithm: "md5", By: byDaemon, Value: says.etag}
	}
	return verifiedParts(parts)
}

// judgeObject says what an answer shows of an object whose bytes are known: that
// it is another than ours, that it is ours, or neither.
//
//	it gives another CRC64NVME                             another
//	it gives ours, with crc64nvme                          ours
//	its ETag is made in the way of ours, and is another    another
//	it gives ours, and that is believed, or our ETag       ours
//	its ETag is of another kind                            neither: stores make them in ways of
//	                                                       their own
func (d *delivery) judgeObject(ours, says claim, believed bool) (shown bool, differs *difference) {
	if says.crc64nvme != "" && says.crc64nvme != ours.crc64nvme {
		return false, &difference{"CRC64NVME", ours.crc64nvme, says.crc64nvme}
	}
	shown = believed && says.crc64nvme != ""
	if shown && d.up.checksum == ChecksumCRC64NVME {
		return true, nil
	}
	if ours.etag != "" && strings.EqualFold(says.etag, ours.etag) {
		return true, nil
	}
	if contradictory(says.etag) || alike(ours.etag, says.etag) && !says.opaque {
		return false, &difference{"ETag", ours.etag, says.etag}
	}
	return shown, nil
}

// alike reports whether two ETags are MD5s, or are made of the MD5s of as many
// parts.
func alike(a, b string) bool {
	_, partsA, _ := strings.Cut(a, "-")
	_, partsB, _ := strings.Cut(b, "-")
	return (isMD5(a) && isMD5(b) || isMD5OfParts(a) && isMD5OfParts(b)) && partsA == partsB
}

// writtenSlack is what the store's whole seconds can add to an object's age.
const writtenSlack = 2 * time.Second

// madeByUs reports whether an object that is there was made, as far as can be
// told, by one of our own requests, the first of which began at that time: it was
// written since, and has the content type and the metadata that were asked for.
// An object of our bytes may as well be an older one, of another push or another
// program, and ours be still on its way.
//
// Its age is by the store's own clock, that of the answer. Of an object of parts
// some stores tell when its upload was begun: since is to be that then.
func (d *delivery) madeByUs(s sight, since time.Time) bool {
	if s.is != ourObject || since.IsZero() {
		return false
	}
	age, known := ageOf(s.head)
	return known && age <= s.at.Sub(since)+writtenSlack && d.describedAsAsked(s.head)
}

// ageOf is how old an object was when the store answered.
func ageOf(head *s3.HeadObjectOutput) (age time.Duration, known bool) {
	raw, _ := awsmiddleware.GetRawResponse(head.ResultMetadata).(*smithyhttp.Response)
	if raw == nil || raw.Response == nil || head.LastModified == nil {
		return 0, false
	}
	date, err := http.ParseTime(raw.Header.Get("Date"))
	if err != nil {
		return 0, false
	}
	return date.Sub(*head.LastModified), true
}

// describedAsAsked compares what the store keeps with an object beside its bytes.
// Stores write the names of metadata in small letters.
func (d *delivery) describedAsAsked(head *s3.HeadObjectOutput) bool {
	return aws.ToString(head.ContentType) == d.contentType() && maps.Equal(lowerNames(head.Metadata), lowerNames(d.req.Metadata))
}

func lowerNames(metadata map[string]string) map[string]string {
	lower := make(map[string]string, len(metadata))
	for name, value := range metadata {
		lower[strings.ToLower(name)] = strings.TrimSpace(value)
	}
	return lower
}
