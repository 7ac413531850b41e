package uploader

import (
	"bytes"
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
