//lint:file-ignore SA1019 the manager is deprecated and chosen all the same, see below

package uploader

// The manager is marked deprecated in favour of transfermanager, which reads
// every part into memory even where the body is a file; the manager reads a
// file in place.

import (
	"context"
	"errors"
	"net/url"
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
		m.Concurrency = d.up.limit // the slots decide how many parts really go
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

// joinedOutcome compares what the store says of the object of all parts with
// what is known of these.
func (d *delivery) joinedOutcome(out *s3.CompleteMultipartUploadOutput, crc uint64) (outcome, error) {
	verified := verifiedParts(d.parts)
	if whole := wholeCRC(out.ChecksumCRC64NVME, out.ChecksumType); whole != "" {
		if whole != crcText(crc) {
			err := errDiffers(d.dest, &difference{"CRC64NVME", crcText(crc), whole})
			d.mismatch(completing, crc, err)
			return outcome{}, err
		}
		verified = &push.Verified{What: "object", Algorithm: "crc64nvme", By: byDaemon, Value: whole}
	}
	etag := bareETag(aws.ToString(out.ETag))
	if ours := joinedETag(d.parts); etag == "" { // Ceph 16 leaves it out
		etag = ours
	} else if ours != "" && etag != ours && isMD5OfParts(etag) && !d.opaqueETag(out.ServerSideEncryption) {
		var err error
		if etag, err = d.settleETag(etag, ours, crc); err != nil {
			return outcome{}, err
		}
	}
	got := newOutcome(&etag, out.VersionId, crc)
	got.verified = verified
	return got, nil
}

// wholeCRC is the CRC64NVME that an answer has of a whole object; empty if it
// has none.
func wholeCRC(crc *string, kind types.ChecksumType) string {
	if kind == types.ChecksumTypeComposite {
		return ""
	}
	return aws.ToString(crc)
}

// settleETag asks for the object whose completion was answered with another
// ETag than its parts make, and returns the one that it has. If that is the
// answer's, the store makes ETags in a way of its own, and what counts is that
// each part was verified.
func (d *delivery) settleETag(said, ours string, crc uint64) (string, error) {
	head, err := d.head()
	if err == nil && aws.ToInt64(head.ContentLength) == d.file.Size() {
		if etag := bareETag(aws.ToString(head.ETag)); etag == ours || etag == said {
			return etag, nil
		}
	}
	mismatch := errDiffers(d.dest, &difference{"ETag", ours, said})
	mismatch.Err = err
	d.mismatch(completing, crc, mismatch)
	return "", mismatch
}

// resolve asks for the object whose completion ended unclearly. If the store
// shows one of the file's size, with the ETag that these parts make (or, where
// ETags tell nothing, with the checksum), it was completed; else the cause
// stands.
func (d *delivery) resolve(cause error) (*s3.CompleteMultipartUploadOutput, error) {
	head, err := d.head()
	if err != nil || aws.ToInt64(head.ContentLength) != d.file.Size() {
		return nil, cause
	}
	etag, ours, whole := bareETag(aws.ToString(head.ETag)), joinedETag(d.parts), wholeCRC(head.ChecksumCRC64NVME, head.ChecksumType)
	switch tells := ours != "" && isMD5OfParts(etag) && !d.opaqueETag(head.ServerSideEncryption); {
	case tells && etag != ours, !tells && whole == "":
		return nil, cause
	case whole != "" && whole != crcText(combined(d.parts)):
		return nil, cause
	}
	d.stored = true
	return &s3.CompleteMultipartUploadOutput{
		ETag: head.ETag, VersionId: head.VersionId, ChecksumCRC64NVME: head.ChecksumCRC64NVME, ChecksumType: head.ChecksumType,
		ServerSideEncryption: head.ServerSideEncryption,
	}, nil
}

// unclear reports whether the store may have carried out, or may still be
// carrying out, the request that ended so.
func unclear(err error) bool {
	answer := answerOf(err)
	refused := answer.Status >= 300 && answer.Status < 500 || answer.Code == "SlowDown"
	return !refused && !neverSent(err) && !notTried(err)
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
