//lint:file-ignore SA1019 the manager is deprecated and chosen all the same, see its import

package uploader

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	// The manager is marked deprecated in favour of transfermanager, which
	// reads every part into memory even where the body is a file; the manager
	// reads a file in place.
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/crc64nvme"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/source"
)

// abortTimeout bounds the clean-up after a failed multipart upload, which runs
// even when the daemon is being stopped.
const abortTimeout = 3 * time.Second

// delivery carries one file to its object. It is the manager.UploadAPIClient
// of its push: whatever the manager asks of the store passes through its
// methods, and so through request, where a slot is taken, the answer checked
// and a failed attempt made again.
type delivery struct {
	up   *Uploader
	req  push.Request
	dest push.Destination
	file *source.File
	turn turn

	unclear bool // whether the upload was completed is not known

	mu       sync.Mutex
	attempts int // the most that one request needed; guarded by mu
}

var _ manager.UploadAPIClient = (*delivery)(nil)

// outcome is what a delivered object is known by.
type outcome struct {
	etag, versionID string
	checksum        *push.Checksum
}

// run delivers the file. When it returns without an error the store has said
// that it holds the object, and the file had not changed up to then.
func (d *delivery) run(ctx context.Context) (outcome, error) {
	var got outcome
	var err error
	if d.up.plan.parts(d.file.Size()) == 1 {
		got, err = d.whole(ctx)
	} else {
		got, err = d.inParts(ctx)
	}
	// A file that changed explains any failure, and spoils any success.
	if changed := d.file.Check(); changed != nil {
		return outcome{}, changed
	}
	return got, err
}

func (d *delivery) whole(ctx context.Context) (outcome, error) {
	out, err := d.PutObject(ctx, d.input())
	if err != nil {
		return outcome{}, err
	}
	return newOutcome(out.ETag, out.VersionId, out.ChecksumCRC64NVME), nil
}

func (d *delivery) inParts(ctx context.Context) (outcome, error) {
	uploads := manager.NewUploader(d, func(m *manager.Uploader) {
		m.PartSize = d.up.plan.partSize(d.file.Size())
		m.Concurrency = d.up.limit // the slots decide how many parts really go
		m.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	})
	out, err := uploads.Upload(ctx, d.input())
	if err != nil {
		return outcome{}, err
	}
	return newOutcome(out.ETag, out.VersionID, out.ChecksumCRC64NVME), nil
}

func newOutcome(etag, version, crc *string) outcome {
	o := outcome{etag: unquote(aws.ToString(etag)), versionID: aws.ToString(version)}
	if version != nil && *version == "null" { // what S3 says where versioning is suspended
		o.versionID = ""
	}
	if crc != nil && *crc != "" {
		o.checksum = &push.Checksum{Algorithm: "crc64nvme", Value: *crc}
	}
	return o
}

// input describes the object. The body ends at the size that the file had when
// it was opened: a file that grows must not be sent beyond its Content-Length.
func (d *delivery) input() *s3.PutObjectInput {
	in := &s3.PutObjectInput{
		Bucket:       &d.dest.Bucket,
		Key:          &d.dest.Key,
		Body:         io.NewSectionReader(d.file, 0, d.file.Size()),
		Metadata:     d.req.Metadata,
		StorageClass: types.StorageClass(d.req.StorageClass),
	}
	if d.req.ContentType != "" {
		in.ContentType = &d.req.ContentType
	}
	if len(d.req.Tags) > 0 {
		in.Tagging = aws.String(encodeTags(d.req.Tags))
	}
	return in
}

// inMemory is the largest file that is sent from memory, in bytes: it is read
// once, and goes out in one packet with its headers where it fits.
const inMemory = 32 << 10

// PutObject sends a file of one part.
func (d *delivery) PutObject(ctx context.Context, in *s3.PutObjectInput, opts ...func(*s3.Options)) (*s3.PutObjectOutput, error) {
	in.ContentLength = aws.Int64(d.file.Size())
	if d.file.Size() <= inMemory {
		content := make([]byte, d.file.Size())
		if _, err := d.file.ReadAt(content, 0); err != nil {
			return nil, d.readError(err)
		}
		in.Body = bytes.NewReader(content)
	}
	var out *s3.PutObjectOutput
	err := d.request(ctx, "PutObject", single, func(ctx context.Context) error {
		body, sum, err := d.prepare(in.Body, in.ChecksumCRC64NVME)
		if err != nil {
			return err
		}
		in.ChecksumCRC64NVME = sum
		in.Body = body
		if d.up.putter != nil {
			out, err = d.up.putter.put(ctx, in)
		} else {
			out, err = d.up.client.PutObject(ctx, in, append(opts, unsignedBody)...)
		}
		if err != nil {
			return err
		}
		return d.compare(sum, out.ChecksumCRC64NVME)
	})
	if err == nil && out.ChecksumCRC64NVME == nil {
		out.ChecksumCRC64NVME = in.ChecksumCRC64NVME // for the receipt: what was sent is what we summed
	}
	return out, err
}

// UploadPart sends one part.
func (d *delivery) UploadPart(ctx context.Context, in *s3.UploadPartInput, opts ...func(*s3.Options)) (*s3.UploadPartOutput, error) {
	var out *s3.UploadPartOutput
	err := d.request(ctx, "UploadPart", part, func(ctx context.Context) error {
		body, sum, err := d.prepare(in.Body, in.ChecksumCRC64NVME)
		if err != nil {
			return err
		}
		in.ChecksumCRC64NVME = sum
		in.Body = body
		out, err = d.up.client.UploadPart(ctx, in, append(opts, unsignedBody)...)
		if err != nil {
			return err
		}
		return d.compare(sum, out.ChecksumCRC64NVME)
	})
	return out, err
}

// CreateMultipartUpload begins an upload in parts. Its checksum is to be one of
// the whole object, so that a reader can compare it whatever the part size was.
func (d *delivery) CreateMultipartUpload(ctx context.Context, in *s3.CreateMultipartUploadInput, opts ...func(*s3.Options)) (*s3.CreateMultipartUploadOutput, error) {
	in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc64nvme
	in.ChecksumType = types.ChecksumTypeFullObject
	var out *s3.CreateMultipartUploadOutput
	err := d.request(ctx, "CreateMultipartUpload", single, func(ctx context.Context) (err error) {
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
	err := d.request(ctx, "CompleteMultipartUpload", single, func(ctx context.Context) (err error) {
		// Once the object stands a changed file can only be reported; before
		// this line it still leaves no object behind.
		if err := d.file.Check(); err != nil {
			return err
		}
		out, err = d.up.client.CompleteMultipartUpload(ctx, in, opts...)
		if err != nil && unclear(err) {
			d.unclear = true
			err = &unclearError{err}
		}
		return err
	})
	return out, err
}

// unclear reports whether the store may have carried out, or may still be
// carrying out, the request that ended so.
func unclear(err error) bool {
	answer := answerOf(err)
	refused := answer.Status >= 300 && answer.Status < 500 || answer.Code == "SlowDown"
	return !refused && !neverSent(err) && !errors.Is(err, syscall.ECONNREFUSED)
}

// AbortMultipartUpload drops the parts of a failed upload. It has a context and
// a limit of its own: the push's own context may be what ended the upload. It
// does nothing where the upload may have been completed: on some stores an
// abort that meets a slow completion destroys the object.
func (d *delivery) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput, opts ...func(*s3.Options)) (*s3.AbortMultipartUploadOutput, error) {
	if d.unclear {
		return new(s3.AbortMultipartUploadOutput), nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	var out *s3.AbortMultipartUploadOutput
	err := d.request(ctx, "AbortMultipartUpload", single, func(ctx context.Context) (err error) {
		out, err = d.up.client.AbortMultipartUpload(ctx, in, opts...)
		return err
	})
	if err != nil {
		d.up.log.Warn("parts are left behind: the upload could not be aborted",
			"bucket", d.dest.Bucket, "key", d.dest.Key, "upload_id", aws.ToString(in.UploadId), "error", err.Error())
	}
	return out, err
}

// prepare returns the body from its start and its checksum, which is computed
// only if an earlier attempt did not. It is called with a slot held, so that
// what is read is sent while it is still in the page cache.
func (d *delivery) prepare(body io.Reader, known *string) (io.ReadSeeker, *string, error) {
	seeker, ok := body.(io.ReadSeeker)
	if !ok {
		return nil, nil, fmt.Errorf("body of type %T cannot be sent twice", body)
	}
	if known == nil {
		sum, err := checksum(seeker)
		if err != nil {
			return nil, nil, d.readError(err)
		}
		known = &sum
	}
	_, err := seeker.Seek(0, io.SeekStart)
	return seeker, known, err
}

// readError explains why the file's bytes could not be read.
func (d *delivery) readError(err error) error {
	if why := d.file.Check(); why != nil {
		return why
	}
	return &push.Error{Code: push.FileUnreadable, Detail: "the file could not be read: " + err.Error(), Err: err}
}

// compare checks the checksum that the store computed, where it says one.
func (d *delivery) compare(sent, stored *string) error {
	if stored == nil || *stored == "" || *stored == *sent {
		return nil
	}
	return push.Errorf(push.ChecksumMismatch, "the store holds other bytes for %s than were sent (CRC64NVME %s sent, %s stored): push it again, and have the network's hardware looked at if that repeats",
		d.dest, *sent, *stored)
}

// request is the way of every request to the store: it takes a slot, makes an
// attempt, gives the slot back, and repeats that as the retry policy says. No
// slot is held during a backoff.
func (d *delivery) request(ctx context.Context, operation string, k kind, attempt func(context.Context) error) error {
	for n := 1; ; n++ {
		if err := d.up.slots.acquire(ctx, &d.turn, k); err != nil {
			return d.explain(n, err)
		}
		begun := time.Now()
		err := attempt(ctx)
		d.up.slots.release(&d.turn, k)
		d.up.metrics.request(operation, err, time.Since(begun))
		d.count(n)
		if err == nil {
			return nil
		}
		// What the file did to the attempt is not the store's failure.
		if why := d.file.Check(); why != nil {
			return why
		}
		wait, again := d.up.retry.after(n, err)
		if !again {
			return d.explain(n, err)
		}
		d.up.log.Debug("attempt failed", "operation", operation, "bucket", d.dest.Bucket, "key", d.dest.Key,
			"attempt", n, "wait_seconds", wait.Seconds(), "error", err.Error())
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return d.explain(n, ctx.Err())
		}
	}
}

func (d *delivery) count(attempts int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attempts = max(d.attempts, attempts)
}

// buffers are for hashing; what a part needs of memory is this and no more.
var buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// checksum reads r from its start to its end and returns the CRC64NVME as S3
// writes it: base64 of the eight bytes, most significant first.
func checksum(r io.ReadSeeker) (string, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	size, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return "", err
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	buf := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buf)
	var crc uint64
	for {
		n, err := r.Read(buf[:])
		crc = crc64nvme.Update(crc, buf[:n])
		size -= int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", err
		}
	}
	if size != 0 {
		return "", io.ErrUnexpectedEOF // the file was cut short
	}
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, crc)), nil
}
