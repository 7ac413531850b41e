package uploader

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/lsst-dm/s3daemon/push"
)

// inMemory is the largest file that is sent from memory, in bytes: it is read
// once, and goes out in one packet with its headers where it fits.
const inMemory = 32 << 10

// PutObject sends a file of one part.
func (d *delivery) PutObject(ctx context.Context, in *s3.PutObjectInput, opts ...func(*s3.Options)) (*s3.PutObjectOutput, error) {
	content, err := d.content(ctx)
	if err != nil {
		return nil, err
	}
	in.ContentLength = aws.Int64(d.file.Size())
	var out *s3.PutObjectOutput
	err = d.request(ctx, "PutObject", single, first, func(ctx context.Context, c *commitment) (err error) {
		// The transport may still read the body of an attempt that has been
		// answered early, so each has a reader of its own.
		body, sum, err := d.prepare(io.NewSectionReader(content, 0, d.file.Size()), in.ChecksumCRC64NVME)
		if err != nil {
			return err
		}
		in.ChecksumCRC64NVME = sum
		if small, ok := content.(*bytes.Reader); ok { // which leaves at once
			if !c.commit() {
				return context.Cause(ctx)
			}
			again := *small
			in.Body = &again
		} else {
			sending := &sentBody{ReadSeeker: body, d: d, left: d.file.Size(), last: c}
			defer sending.failed(&err)
			in.Body = sending
		}
		if d.up.putter != nil {
			out, err = d.up.putter.put(ctx, in)
		} else {
			out, err = d.up.client.PutObject(ctx, in, append(opts, unsignedBody)...)
		}
		d.maybe = d.maybe || err != nil && c.reached() && unclear(err)
		if err != nil {
			return err
		}
		d.stored = true
		return cmp.Or(d.compare(sum, out.ChecksumCRC64NVME), d.acknowledged(out.ETag))
	})
	if err == nil && out.ChecksumCRC64NVME == nil {
		out.ChecksumCRC64NVME = in.ChecksumCRC64NVME // for the receipt: what was sent is what we summed
	}
	return out, err
}

// content returns the file's bytes: in memory if they are few, else the file.
func (d *delivery) content(ctx context.Context) (io.ReaderAt, error) {
	if d.file.Size() > inMemory {
		return d.file.Reader(ctx), nil
	}
	content := make([]byte, d.file.Size())
	if _, err := d.file.Reader(ctx).ReadAt(content, 0); err != nil {
		return nil, d.readError(err)
	}
	return bytes.NewReader(content), nil
}

// acknowledged checks that an answer of success is one of an S3 store, which
// gives every object and every part an ETag. Proxies, portals and other
// programs' ports say 200 to anything.
func (d *delivery) acknowledged(etag *string) error {
	if aws.ToString(etag) != "" {
		return nil
	}
	e := push.Errorf(push.StoreRefused, "what answers at %s is no S3 store: it said yes without an ETag; correct S3_ENDPOINT_URL", d.up.name)
	e.Err = errNoStore
	return e
}

// UploadPart sends one part.
func (d *delivery) UploadPart(ctx context.Context, in *s3.UploadPartInput, opts ...func(*s3.Options)) (*s3.UploadPartOutput, error) {
	var out *s3.UploadPartOutput
	content := in.Body
	err := d.request(ctx, "UploadPart", part, inPlace, func(ctx context.Context, _ *commitment) (err error) {
		body, sum, err := d.prepare(content, in.ChecksumCRC64NVME)
		if err != nil {
			return err
		}
		in.ChecksumCRC64NVME = sum
		sending := &sentBody{ReadSeeker: body, d: d}
		defer sending.failed(&err)
		in.Body = sending
		out, err = d.up.client.UploadPart(ctx, in, append(opts, unsignedBody)...)
		if err != nil {
			return err
		}
		return cmp.Or(d.compare(sum, out.ChecksumCRC64NVME), d.acknowledged(out.ETag))
	})
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
	if why := d.file.Check(d.up.stopped); why != nil {
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
