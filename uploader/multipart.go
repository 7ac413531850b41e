//lint:file-ignore SA1019 the manager is deprecated and chosen all the same, see below

package uploader

// The manager is marked deprecated in favour of transfermanager, which reads
// every part into memory even where the body is a file; the manager reads a
// file in place.

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

var _ manager.UploadAPIClient = (*delivery)(nil)

// abortTimeout bounds the clean-up after a failed multipart upload, with the
// wait for a slot.
const abortTimeout = time.Minute

// stoppedAbortTimeout bounds it when the daemon is being stopped.
const stoppedAbortTimeout = 2 * time.Second

func (d *delivery) inParts(ctx context.Context) (outcome, error) {
	uploads := manager.NewUploader(d, func(m *manager.Uploader) {
		m.PartSize = d.up.plan.partSize(d.file.Size())
		m.Concurrency = d.up.limit // the slots decide how many parts really go
		m.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	})
	out, err := uploads.Upload(ctx, d.input(ctx))
	if err != nil {
		return outcome{}, err
	}
	return newOutcome(out.ETag, out.VersionID, nil), nil // nobody has compared the whole object's checksum
}

// CreateMultipartUpload begins an upload in parts. Its checksum is to be one of
// the whole object, so that a reader can compare it whatever the part size was.
func (d *delivery) CreateMultipartUpload(ctx context.Context, in *s3.CreateMultipartUploadInput, opts ...func(*s3.Options)) (*s3.CreateMultipartUploadOutput, error) {
	in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc64nvme
	in.ChecksumType = types.ChecksumTypeFullObject
	var out *s3.CreateMultipartUploadOutput
	err := d.request(ctx, "CreateMultipartUpload", single, first, func(ctx context.Context, c *commitment) (err error) {
		if !c.commit() { // an upload whose id nobody heard would stay for ever
			return context.Cause(ctx)
		}
		out, err = d.up.client.CreateMultipartUpload(ctx, in, opts...)
		if err == nil && aws.ToString(out.UploadId) == "" {
			err = errors.New("the store's answer to CreateMultipartUpload has no upload id")
		}
		return err
	})
	return out, err
}

// CompleteMultipartUpload ends an upload in parts.
func (d *delivery) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput, opts ...func(*s3.Options)) (*s3.CompleteMultipartUploadOutput, error) {
	// The store must not join other parts than the ones of this file.
	in.MpuObjectSize = aws.Int64(d.file.Size())
	in.ChecksumType = types.ChecksumTypeFullObject
	var out *s3.CompleteMultipartUploadOutput
	err := d.request(ctx, "CompleteMultipartUpload", single, inPlace, func(ctx context.Context, c *commitment) (err error) {
		// Once the object stands a changed file can only be reported; before
		// this line it still leaves no object behind.
		if err := d.file.Check(d.up.stopped); err != nil {
			return err
		}
		if !c.commit() {
			return context.Cause(ctx)
		}
		d.unclear = false
		out, err = d.up.client.CompleteMultipartUpload(ctx, in, opts...)
		if err == nil && aws.ToString(out.ETag) == "" && aws.ToString(out.Key) == "" {
			err = errNoAnswer
		}
		d.stored = err == nil
		if err != nil && unclear(err) {
			d.maybe, d.unclear = true, true
			err = &unclearError{err}
		}
		return err
	})
	if d.unclear {
		return d.resolve(in, err)
	}
	if err == nil && aws.ToString(out.ETag) == "" { // Ceph 16 leaves it out
		out.ETag = joinedETag(in.MultipartUpload.Parts)
	}
	return out, err
}

// errNoAnswer marks a success that says nothing of an object.
var errNoAnswer = errors.New("the answer to CompleteMultipartUpload names no object")

// resolve asks for the object whose completion ended unclearly. If the store
// shows one of the file's size and with the ETag that these parts make, it was
// completed; else the cause stands.
func (d *delivery) resolve(in *s3.CompleteMultipartUploadInput, cause error) (*s3.CompleteMultipartUploadOutput, error) {
	want := joinedETag(in.MultipartUpload.Parts)
	if want == nil {
		return nil, cause
	}
	var head *s3.HeadObjectOutput
	err := d.request(d.up.stopped, "HeadObject", single, inPlace, func(ctx context.Context, _ *commitment) (err error) {
		head, err = d.up.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: in.Bucket, Key: in.Key})
		return err
	})
	if err != nil || aws.ToInt64(head.ContentLength) != d.file.Size() || unquote(aws.ToString(head.ETag)) != *want {
		return nil, cause
	}
	d.stored, d.unclear = true, false
	return &s3.CompleteMultipartUploadOutput{ETag: head.ETag, VersionId: head.VersionId}, nil
}

// madeOfMD5 reports whether an ETag has the form of an MD5, or of one of parts;
// with some encryptions it is something else.
func madeOfMD5(etag string) bool {
	sum, _, _ := strings.Cut(etag, "-")
	decoded, err := hex.DecodeString(sum)
	return err == nil && len(decoded) == md5.Size
}

// joinedETag returns the ETag that S3 gives an object of these parts: the MD5
// of their MD5s and their number. It is nil if their ETags are no MD5s, as with
// encryption.
func joinedETag(parts []types.CompletedPart) *string {
	all := md5.New()
	for _, p := range parts {
		sum, err := hex.DecodeString(unquote(aws.ToString(p.ETag)))
		if err != nil || len(sum) != md5.Size {
			return nil
		}
		all.Write(sum)
	}
	return aws.String(fmt.Sprintf("%x-%d", all.Sum(nil), len(parts)))
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
// does nothing where the upload may have been completed: on some stores an
// abort that meets a slow completion destroys the object.
func (d *delivery) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput, opts ...func(*s3.Options)) (*s3.AbortMultipartUploadOutput, error) {
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
	err := d.request(ctx, "AbortMultipartUpload", single, inPlace, func(ctx context.Context, _ *commitment) (err error) {
		out, err = d.up.client.AbortMultipartUpload(ctx, in, opts...)
		return err
	})
	if err != nil && answerOf(err).Code != "NoSuchUpload" {
		d.up.log.Warn("parts are left behind: the upload could not be aborted",
			"bucket", d.dest.Bucket, "key", d.dest.Key, "upload_id", aws.ToString(in.UploadId), "error", err.Error())
	}
	return out, err
}
