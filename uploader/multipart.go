//lint:file-ignore SA1019 the manager is deprecated and chosen all the same, see below

package uploader

// The manager is marked deprecated in favour of transfermanager, which reads
// every part into memory even where the body is a file; the manager reads a
// file in place.

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

var _ manager.UploadAPIClient = (*delivery)(nil)

// inParts sends a file of more than one part, or what the last run has left of
// it. A small one of which that has left nothing may go as a whole all the same.
func (d *delivery) inParts(ctx context.Context) (outcome, error) {
	if done, err := d.takeUp(ctx); err != nil || done {
		return d.got, err
	}
	if d.partSize == 0 {
		return d.whole(ctx)
	}
	room := min(d.outlook.fill(d.partSize), len(d.parts))
	d.enough = d.outlook.apiece(room)
	most := d.up.mostAtOnce()
	d.pacer = newPacer(room, most)
	uploads := manager.NewUploader(d, func(m *manager.Uploader) {
		m.PartSize = d.partSize
		m.MaxUploadParts = maxParts + 1 // at just as many parts as there may be, it would cut them anew
		m.Concurrency = most            // the pacer and the slots decide how many parts really go
		m.LeavePartsOnError = true      // for the next run, or the janitor
		m.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	})
	if _, err := uploads.Upload(ctx, d.input(ctx)); err != nil {
		// What the store does not know may have been completed just now.
		if _, open := errors.AsType[*unclearError](err); d.upload != nil && !open && (needsNewUpload(err) || d.stored) { // as what is not the file
			d.useless = d.upload.BegunAt
		}
		return outcome{}, err
	}
	return d.got, nil
}

// CreateMultipartUpload begins an upload in parts, or answers with the one that
// the run goes on with. Its checksum is to be one of the whole object, so that a
// reader can compare it whatever the part size was.
func (d *delivery) CreateMultipartUpload(ctx context.Context, in *s3.CreateMultipartUploadInput, opts ...func(*s3.Options)) (*s3.CreateMultipartUploadOutput, error) {
	if d.upload != nil {
		return &s3.CreateMultipartUploadOutput{UploadId: &d.upload.ID}, nil
	}
	if d.up.checksum != ChecksumMD5 {
		in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc64nvme
		in.ChecksumType = types.ChecksumTypeFullObject
	}
	// What the store does not say, or do, the janitor asks for again later.
	if err := d.clearIntents(ctx); err != nil && (ctx.Err() != nil || errors.Is(err, errLeaving)) {
		return nil, err
	}
	d.orphans = !d.begunAt.IsZero()
	up := d.newUpload()
	out, err := d.beginUpload(ctx, up, in, opts)
	if err != nil {
		return out, err
	}
	// An upload that has parts has its id on disk: so one in the store's list that
	// has some, and that no record names, is somebody else's.
	up.ID = *out.UploadId
	if err := d.up.keepUpload(ctx, up); err != nil {
		return nil, err
	}
	d.upload = up
	return out, nil
}

// beginUpload puts the intent on disk, and asks for the upload. What is in the journal
// then is no older than recordHolds when the store is asked.
func (d *delivery) beginUpload(ctx context.Context, up *journal.Upload, in *s3.CreateMultipartUploadInput, opts []func(*s3.Options)) (*s3.CreateMultipartUploadOutput, error) {
	for {
		// From here on whatever the store begins for us will be found, though this
		// process be killed.
		d.recordedAt = time.Now()
		if err := d.up.keepUpload(ctx, up); err != nil {
			return nil, err
		}
		if d.orphans {
			d.up.janitor.wake()
		}
		out, another, err := d.askForUpload(ctx, in, opts)
		old := errors.Is(err, errRecordOld)
		switch {
		case another: // the intent stays, for the one whose id nobody heard
			d.orphans = true
		case err != nil: // there is none
			d.up.journal.DropUpload(up, nil)
		}
		if another || old {
			up.BegunAt = d.nextBegunAt()
		}
		if !old {
			return out, err
		}
	}
}

// askForUpload asks for an upload, and reports whether an attempt may have begun one
// whose id was not heard. It ends with errRecordOld before an attempt that has had to
// wait for too long.
func (d *delivery) askForUpload(ctx context.Context, in *s3.CreateMultipartUploadInput, opts []func(*s3.Options)) (out *s3.CreateMultipartUploadOutput, another bool, err error) {
	err = d.request(ctx, "CreateMultipartUpload", single, first, func(ctx context.Context, c *commitment) (err error) {
		if d.recordIsOld() {
			return errRecordOld
		}
		if err := c.commit(); err != nil { // to hear the id
			return err
		}
		out, err = d.up.client.CreateMultipartUpload(ctx, in, opts...)
		switch {
		case err != nil:
		case aws.ToString(out.UploadId) == "":
			err = errors.New("the store's answer to CreateMultipartUpload has no upload id")
		case !d.named(out.Key):
			err = errors.New("the store's answer to CreateMultipartUpload is about another object")
		}
		another = another || err != nil && mayHaveBegun(err)
		return err
	})
	return out, another, err
}

// mayHaveBegun reports whether the store may have begun an upload, though the
// request for it ended so. A SlowDown may be of something before the store, which
// was too late: what nobody looks for stays for ever.
func mayHaveBegun(err error) bool {
	status := answerOf(err).Status
	return !neverSent(err) && !notTried(err) && !untaken(err) && (status/100 != 4 || !isFinal(status))
}

// named reports whether an answer is about our object, as far as it says. Some
// stores escape the key. The bucket may have another name there.
func (d *delivery) named(key *string) bool {
	said := aws.ToString(key)
	if said == "" || said == d.dest.Key {
		return true
	}
	path, _ := url.PathUnescape(said)
	query, _ := url.QueryUnescape(said)
	return path == d.dest.Key || query == d.dest.Key
}

// CompleteMultipartUpload ends an upload in parts. What it amounts to is in
// d.got.
func (d *delivery) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput, opts ...func(*s3.Options)) (*s3.CompleteMultipartUploadOutput, error) {
	crc := combined(d.parts)
	in.IfNoneMatch = d.condition()
	if d.up.checksum != ChecksumMD5 {
		// The store must not join other parts than the ones of this file.
		in.MpuObjectSize = aws.Int64(d.file.Size())
		in.ChecksumType = types.ChecksumTypeFullObject
		in.ChecksumCRC64NVME = aws.String(crcText(crc))
	}
	before := d.upload.CompletedAt
	var out *s3.CompleteMultipartUploadOutput
	open, err := false, errRecordOld
	for errors.Is(err, errRecordOld) {
		// With it all parts are on disk, so that a daemon that is killed meanwhile
		// sends none of them again.
		if err = d.recordCompletion(ctx); err == nil {
			out, open, err = d.complete(ctx, in, crc, opts)
		}
	}
	switch {
	case open:
		out, err = new(s3.CompleteMultipartUploadOutput), d.resolve(err)
	case err != nil: // it was refused, or not asked for: the journal may not have been written, too
		if mismatched(err) { // and so was it before, if it was asked for then
			before = time.Time{}
		}
		d.upload.CompletedAt = before
		d.up.journal.PutUpload(d.upload, nil)
	default:
		d.got, err = d.joinedOutcome(out, crc)
	}
	if open, ok := errors.AsType[*unclearError](err); ok {
		d.doubts(open)
	}
	d.got.parts, d.got.over, d.got.orphans = len(d.parts), d.upload, d.orphans
	if open { // an earlier upload may have made the object, and this one still be there
		d.got.over, d.got.orphans = nil, true
	}
	return out, err
}

// complete asks for the completion of the upload, and reports whether it is left
// open what became of that. It ends with errRecordOld where the store was not
// asked, since it had to wait for too long.
func (d *delivery) complete(ctx context.Context, in *s3.CompleteMultipartUploadInput, crc uint64, opts []func(*s3.Options)) (out *s3.CompleteMultipartUploadOutput, open bool, err error) {
	err = d.request(ctx, completing, single, inPlace, func(ctx context.Context, c *commitment) (err error) {
		// Once the object stands a changed file can only be reported; before
		// this line it still leaves no object behind.
		if err := d.file.Check(ctx); err != nil {
			return err
		}
		if d.recordIsOld() {
			return errRecordOld
		}
		if err := c.commit(); err != nil {
			return err
		}
		out, err = d.up.client.CompleteMultipartUpload(ctx, in, opts...)
		if err == nil && (aws.ToString(out.ETag) == "" && aws.ToString(out.Key) == "" || !d.named(out.Key)) {
			err = errNoAnswer
		}
		d.stored = err == nil
		if mismatched(err) {
			d.mismatch(completing, crc, err)
		}
		switch {
		case err == nil:
		case unclear(err) || overtaken(err):
			d.maybe, d.unclear, open = true, true, true
			err = &unclearError{err: err}
		case mismatched(err):
			err = &spoiledError{err}
		}
		return err
	})
	return out, open, err
}

// recordHolds is how old the record of a request may be when it is made.
const recordHolds = time.Minute

// errRecordOld ends a request, before it is made, that has waited for so long, as in
// an outage, that it is to be recorded anew: those who leave what was asked for alone
// for a time count from the record. No slot is held meanwhile, since the journal may
// take its time.
var errRecordOld = errors.New("the request was recorded too long ago")

func (d *delivery) recordIsOld() bool { return time.Since(d.recordedAt) > recordHolds }

// recordCompletion puts on disk that the upload is about to be completed.
func (d *delivery) recordCompletion(ctx context.Context) error {
	d.recordedAt = time.Now()
	d.upload.CompletedAt = d.recordedAt.UTC()
	return d.up.keepUpload(ctx, d.upload)
}

const (
	completing = "CompleteMultipartUpload" // makes an object of parts
	aborting   = "AbortMultipartUpload"
)

// errNoAnswer marks a success that says nothing of our object.
var errNoAnswer = errors.New("the answer to CompleteMultipartUpload does not name the object")

// joinedOutcome says what is known of the object of all parts. Where the answer
// to the completion does not show that it is ours, it may be the answer to
// another request, so the store is asked for the object.
func (d *delivery) joinedOutcome(out *s3.CompleteMultipartUploadOutput, crc uint64) (outcome, error) {
	ours := claim{crc64nvme: crcText(crc), etag: joinedETag(d.parts)}
	says := d.newClaim(wholeCRC(out.ChecksumCRC64NVME, out.ChecksumType), out.ETag, out.ServerSideEncryption)
	version, believed := out.VersionId, d.up.checksum.believes(&d.up.verifies.part)
	shown, differs := d.judgeObject(ours, says, believed)
	if !shown && (differs == nil || differs.algorithm == "ETag") {
		var err error
		if says, version, differs, err = d.askJoined(out); err != nil {
			return outcome{}, err
		}
		believed = true
	}
	if differs != nil {
		err := errDiffers(d.dest, differs)
		d.mismatch(completing, crc, err)
		return outcome{}, err
	}
	got := newOutcome(&says.etag, version, crc)
	if got.etag == "" { // Ceph 16 leaves it out
		got.etag = ours.etag
	}
	got.verified = verifiedParts(d.parts)
	if believed && says.crc64nvme != "" {
		got.verified = &push.Verified{What: "object", Algorithm: "crc64nvme", By: byDaemon, Value: says.crc64nvme}
	}
	return got, nil
}

// askJoined asks for the object whose completion was answered with what it says,
// and returns what the object's own answer says, and in what that is another
// object than ours. Where ETags tell nothing it counts that each part was
// verified; but it must be the object that the completion spoke of.
func (d *delivery) askJoined(out *s3.CompleteMultipartUploadOutput) (says claim, version *string, differs *difference, err error) {
	head, err := d.head()
	if err != nil {
		d.stored, d.maybe, d.unclear = false, true, true
		return claim{}, nil, nil, errNotShown(err)
	}
	head.ServerSideEncryption = cmp.Or(head.ServerSideEncryption, out.ServerSideEncryption)
	s := d.compare(head, d.parts)
	says = d.headClaim(head)
	said := bareETag(aws.ToString(out.ETag))
	if s.is == someObject && said != "" && !strings.EqualFold(said, says.etag) {
		s.differs = &difference{"ETag", said, says.etag}
	}
	return says, head.VersionId, s.differs, nil
}

// errNotShown ends an upload whose completion was answered with success, though
// not so that it showed the object, and whose object the store does not show
// either. The cause is in it as text: it was not the push that was refused.
func errNotShown(cause error) error {
	text := rootText(cause)
	if answer := answerOf(cause); answer.Status != 0 {
		text = answerText(answer)
	}
	return &unclearError{err: fmt.Errorf("what it answered shows no object, and it does not show one when asked (HeadObject): %s", text)}
}

// resolve asks for the object whose completion ended unclearly. If what the
// store shows is ours, it was completed, and d.got says what it amounts to; else
// the cause stands.
func (d *delivery) resolve(cause error) error {
	s, err := d.look(d.parts)
	if err != nil || !d.madeByUs(s, d.uploadSince()) {
		return cause
	}
	d.stored, d.got = true, s.got
	return nil
}

// overtaken reports whether the store refused a completion so that another one of
// the same upload may have been carried out, or may just be.
func overtaken(err error) bool {
	answer := answerOf(err)
	switch answer.Code {
	case "NoSuchUpload":
		return true
	case "", "Conflict", "OperationAborted", "ConditionalRequestConflict":
		return answer.Status == http.StatusConflict
	}
	return false // another conflict, as of the key with that of another object, is a refusal
}

// unclear reports whether the store may have carried out, or may still be
// carrying out, the request that ended so.
func unclear(err error) bool {
	answer := answerOf(err)
	refused := answer.Status >= 300 && answer.Status < 500
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return !refused && !untrusted && !untaken(err) && !neverSent(err) && !notTried(err)
}

// AbortMultipartUpload is never called: what a run leaves is for the next one,
// or, once the push has ended, the janitor's.
func (d *delivery) AbortMultipartUpload(context.Context, *s3.AbortMultipartUploadInput, ...func(*s3.Options)) (*s3.AbortMultipartUploadOutput, error) {
	return nil, errors.New("a run aborts nothing")
}
