package uploader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/lsst-dm/s3daemon/push"
)

// inMemory is the largest file that is sent from memory, in bytes: it is read
// once, and goes out in one packet with its headers where it fits.
const inMemory = 32 << 10

// PutObject sends a file by one request, which counts as one of a large file where
// it is one. What it amounts to is in d.got.
func (d *delivery) PutObject(ctx context.Context, in *s3.PutObjectInput, opts ...func(*s3.Options)) (*s3.PutObjectOutput, error) {
	content, err := d.content(ctx)
	if err != nil {
		return nil, err
	}
	in.ContentLength = aws.Int64(d.file.Size())
	p := &payload{d: d, operation: putting, verifies: &d.up.verifies.put, content: io.NewSectionReader(content, 0, d.file.Size())}
	var out *s3.PutObjectOutput
	err = d.request(ctx, p.operation, d.up.kindOf(d.file.Size()), first, func(ctx context.Context, c *commitment) (err error) {
		begun := time.Now()
		if err := p.prepare(); err != nil {
			return err
		}
		in.ChecksumCRC64NVME, in.ContentMD5 = p.crc64nvme(), p.contentMD5()
		if small, ok := content.(*bytes.Reader); ok { // which leaves at once
			if err := c.commit(); err != nil {
				return err
			}
			again := *small
			in.Body = &again
		} else {
			in.Body = &lastByte{ReadSeeker: p.reader(), size: d.file.Size(), left: d.file.Size(), commitment: c}
		}
		if d.up.putter != nil {
			out, err = d.up.putter.put(ctx, in, p.signed())
		} else {
			out, err = d.up.client.PutObject(ctx, in, slices.Concat(opts, []func(*s3.Options){p.sign})...)
		}
		if err != nil {
			if c.reached() && unclear(err) {
				d.mayHaveMade(begun)
			}
			return p.refused(err)
		}
		d.stored = true
		if err := p.verify(d.newClaim(out.ChecksumCRC64NVME, out.ETag, out.ServerSideEncryption)); err != nil {
			return err
		}
		d.got = newOutcome(out.ETag, out.VersionId, p.ours.crc)
		d.got.verified = p.verified()
		return nil
	})
	return out, err
}

// verified is the proof for the receipt of a file that went as a whole.
func (p *payload) verified() *push.Verified {
	v := &push.Verified{What: "object", Algorithm: p.proof.algorithm, By: p.proof.by}
	switch v.Algorithm {
	case "crc64nvme":
		v.Value = p.ours.crc64nvme()
	case "md5":
		v.Value = p.ours.md5Hex()
	case "sha256":
		v.Value = p.signed()
	}
	return v
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
func (d *delivery) acknowledged(etag string) error {
	if etag != "" {
		return nil
	}
	e := push.Errorf(push.StoreRefused, "what answers at %s is no S3 store: it said yes without an ETag; correct S3_ENDPOINT_URL", d.up.name)
	e.Err = errNoStore
	return e
}

// UploadPart sends one part, unless the store has it already.
func (d *delivery) UploadPart(ctx context.Context, in *s3.UploadPartInput, opts ...func(*s3.Options)) (*s3.UploadPartOutput, error) {
	content, ok := in.Body.(*io.SectionReader)
	if !ok {
		return nil, fmt.Errorf("a part of type %T, where the manager is to cut the file in place", in.Body)
	}
	number := aws.ToInt32(in.PartNumber)
	if p := d.partOf(number); p.size > 0 {
		return p.answer(), nil
	}
	if err := d.pacer.enter(ctx, number); err != nil {
		return nil, err
	}
	out, err := d.sendPart(ctx, in, content, opts)
	d.pacer.leave(number, content.Size(), err)
	return out, err
}

func (d *delivery) sendPart(ctx context.Context, in *s3.UploadPartInput, content *io.SectionReader, opts []func(*s3.Options)) (*s3.UploadPartOutput, error) {
	p := &payload{d: d, operation: "UploadPart", verifies: &d.up.verifies.part, content: content}
	number := *in.PartNumber
	var out *s3.UploadPartOutput
	err := d.requestPart(ctx, p.operation, number, part, inPlace, func(ctx context.Context, _ *commitment) (err error) {
		if longest := d.pacer.sending(number); !d.up.timeFor(longest) {
			return errLeaving
		}
		if err := p.prepare(); err != nil {
			return err
		}
		in.ChecksumCRC64NVME, in.ContentMD5 = p.crc64nvme(), p.contentMD5()
		in.Body = p.reader()
		out, err = d.up.client.UploadPart(ctx, in, slices.Concat(opts, []func(*s3.Options){p.sign})...)
		if err != nil {
			return p.refused(err)
		}
		return p.verify(d.newClaim(out.ChecksumCRC64NVME, out.ETag, out.ServerSideEncryption))
	})
	if err == nil {
		etag := bareETag(*out.ETag)
		out.ETag = aws.String(`"` + etag + `"`) // which the completion names the part by
		d.keepPart(number, sentPart{size: content.Size(), etag: etag, ours: p.ours, proof: p.proof, told: out.ChecksumCRC64NVME != nil})
	}
	return out, err
}

// readError explains why the file's bytes could not be read, where the Check that
// follows any failure does not: the file ends too early and has not changed. What
// else Check does not know of is the end of the run.
func (d *delivery) readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &push.Error{Code: push.FileUnreadable, Err: err,
			Detail: fmt.Sprintf("file %s ends before the %d bytes that its file system says it has: see to that", push.Quote(d.req.File), d.file.Size())}
	}
	return err
}
