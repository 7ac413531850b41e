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
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/lsst-dm/s3daemon/push"
)

var _ manager.UploadAPIClient = (*delivery)(nil)

// abortTimeout bounds the clean-up after a failed multipart upload, with the
// wait for a slot.
const abortTimeout = time.Minute

// stoppedAbortTimeout bounds it when the daemon is being stopped.
const stoppedAbortTimeout = 2 * time.Second

// inParts sends a file of more than one part.
func (d *delivery) inParts(ctx context.Context) (outcome, error) {
	d.parts = make([]sentPart, d.up.plan.parts(d.file.Size()))
	uploads := manager.NewUploader(d, func(m *manager.Uploader) {
		m.PartSize = d.up.plan.partSize(d.file.Size())
		m.MaxUploadParts = maxParts + 1 // at just as many parts as there may be, it would cut them anew
		m.Concurrency = d.up.limit      // the slots decide how many parts really go
		m.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	})
	if _, err := uploads.Upload(ctx, d.input(ctx)); err != nil {
		return outcome{}, err
	}
	return d.got, nil
}

// CreateMultipartUpload begins an upload in parts. Its checksum is to be one of
// the whole object, so that a reader can compare it whatever the part size was.
func (d *delivery) CreateMultipartUpload(ctx context.Context, in *s3.CreateMultipartUploadInput, opts ...func(*s3.Options)) (*s3.CreateMultipartUploadOutput, error) {
	if d.up.checksum != ChecksumMD5 {
		in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc64nvme
		in.ChecksumType = types.ChecksumTypeFullObject
	}
	var out *s3.CreateMultipartUploadOutput
	err := d.request(ctx, "CreateMultipartUpload", single, first, func(ctx context.Context, c *commitment) (err error) {
		if !c.commit() { // an upload whose id nobody heard would stay for ever
			return context.Cause(ctx)
		}
		out, err = d.up.client.CreateMultipartUpload(ctx, in, opts...)
		switch {
		case err != nil:
		case aws.ToString(out.UploadId) == "":
			err = errors.New("the store's answer to CreateMultipartUpload has no upload id")
		case !d.named(out.Key):
			err = errors.New("the store's answer to CreateMultipartUpload is about another object")
		}
		return err
	})
	return out, err
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
	var out *s3.CompleteMultipartUploadOutput
	err := d.request(ctx, completing, single, inPlace, func(ctx context.Context, c *commitment) (err error) {
		// Once the object stands a changed file can only be reported; before
		// this line it still leaves no object behind.
		if err := d.file.Check(ctx); err != nil {
			return err
		}
		if !c.commit() {
			return context.Cause(ctx)
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
		case unclear(err) || answerOf(err).Code == "NoSuchUpload": // which an earlier attempt may have completed
			d.maybe, d.unclear = true, true
			err = &unclearError{err}
		case mismatched(err):
			err = &spoiledError{err}
		}
		return err
	})
	if d.unclear {
		out, err = d.resolve(err)
	}
	if err != nil {
		return out, err
	}
	d.got, err = d.joinedOutcome(out, crc)
	return out, err
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
	return &unclearError{fmt.Errorf("what it answered shows no object, and it does not show one when asked (HeadObject): %s", text)}
}

// resolve asks for the object whose completion ended unclearly. If what the
// store shows is ours, it was completed; else the cause stands.
func (d *delivery) resolve(cause error) (*s3.CompleteMultipartUploadOutput, error) {
	s, err := d.look(d.parts)
	if err != nil || s.is != ourObject {
		return nil, cause
	}
	d.stored = true
	return &s3.CompleteMultipartUploadOutput{
		ETag: s.head.ETag, VersionId: s.head.VersionId, ChecksumCRC64NVME: s.head.ChecksumCRC64NVME, ChecksumType: s.head.ChecksumType,
		ServerSideEncryption: s.head.ServerSideEncryption,
	}, nil
}

// unclear reports whether the store may have carried out, or may still be
// carrying out, the request that ended so.
func unclear(err error) bool {
	answer := answerOf(err)
	refused := answer.Status >= 300 && answer.Status < 500 || answer.Code == "SlowDown"
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return !refused && !untrusted && !neverSent(err) && !notTried(err)
}

// AbortMultipartUpload drops the parts of a failed upload. It has a context and
// a limit of its own: the push's own context may be what ended the upload. It
// does nothing where the upload was, or may have been, completed: on some stores
// an abort that meets a slow completion destroys the object.
func (d *delivery) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput, opts ...func(*s3.Options)) (*s3.AbortMultipartUploadOutput, error) {
	if d.stored { // as an object, whatever was found wrong with it then
		return new(s3.AbortMultipartUploadOutput), nil
	}
	if d.unclear {
		d.up.log.Warn("parts may be left behind: whether the upload was completed is not known",
			"bucket", d.dest.Bucket, "key", d.dest.Key, "upload_id", aws.ToString(in.UploadId))
		return new(s3.AbortMultipartUploadOutput), nil
	}
	limit := abortTimeout
	if d.up.stopped.Err() != nil {
		limit = stoppedAbortTimeout
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	var out *s3.AbortMultipartUploadOutput
	err := d.request(ctx, aborting, single, inPlace, func(ctx context.Context, _ *commitment) (err error) {
		out, err = d.up.client.AbortMultipartUpload(ctx, in, opts...)
		return err
	})
	if err != nil && answerOf(err).Code != "NoSuchUpload" {
		d.up.log.Warn("parts are left behind: the upload could not be aborted",
			"bucket", d.dest.Bucket, "key", d.dest.Key, "upload_id", aws.ToString(in.UploadId), "error", err.Error())
	}
	return out, err
}
