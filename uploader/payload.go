package uploader

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/secret"
)

// payload is the bytes that one request carries to the store, through all its
// attempts, and what is known of them.
type payload struct {
	d         *delivery
	operation string
	verifies  *trust // what is known of the operation
	content   *io.SectionReader
	ours      digests
	carried   algorithms // by the last attempt
	proof     proof      // once an answer has given one
}

// reader returns a reader of the payload from its start. Each attempt has one of
// its own, since the transport may still read the body of an attempt that was
// answered early.
func (p *payload) reader() *io.SectionReader {
	return io.NewSectionReader(p.content, 0, p.content.Size())
}

// prepare has the digests ready that the next attempt carries. It is called with
// a slot held, so that what is read is sent while it is still in the page cache.
func (p *payload) prepare() error {
	p.carried = p.d.up.checksum.carries(p.verifies.knows())
	return p.compute(p.carried | withCRC)
}

func (p *payload) compute(wanted algorithms) error {
	if err := p.ours.compute(p.content, wanted); err != nil {
		return p.d.readError(err)
	}
	return nil
}

// crc64nvme and contentMD5 are headers of the attempt; nil where it has none.
func (p *payload) crc64nvme() *string {
	if p.carried&withCRC == 0 {
		return nil
	}
	return aws.String(p.ours.crc64nvme())
}

func (p *payload) contentMD5() *string {
	if p.carried&withMD5 == 0 {
		return nil
	}
	return aws.String(base64.StdEncoding.EncodeToString(p.ours.md5[:]))
}

// unsignedPayload stands in the signature for the SHA-256 of a body whose
// checksum is in a header, which is signed.
const unsignedPayload = "UNSIGNED-PAYLOAD"

// signed is what the signature has for the body.
func (p *payload) signed() string {
	if p.carried&withSHA256 == 0 {
		return unsignedPayload
	}
	return hex.EncodeToString(p.ours.sha256[:])
}

// sign has the SDK put into the signature what is known of the body. By itself
// it would read every byte once more.
func (p *payload) sign(o *s3.Options) {
	hash := bodyHash(p.signed())
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		_, err := stack.Finalize.Swap(hash.ID(), hash)
		return err
	})
}

// bodyHash takes the place of the SDK's middleware that computes one.
type bodyHash string

func (bodyHash) ID() string { return new(v4.ComputePayloadSHA256).ID() }

func (h bodyHash) HandleFinalize(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
	return next.HandleFinalize(v4.SetPayloadHash(ctx, string(h)), in)
}

// refused takes note of an attempt that failed, and returns why.
func (p *payload) refused(err error) error {
	if mismatched(err) {
		p.differs(err)
	}
	return err
}

// verify returns nil if the answer of success to the attempt proves that the
// store has the bytes, and the proof is then known.
func (p *payload) verify(says claim) error {
	believed := p.d.up.checksum.believes(p.verifies)
	v := judge(&p.ours, p.carried, says, believed)
	if v.needsMD5 {
		if err := p.compute(withMD5); err != nil {
			return err
		}
		v = judge(&p.ours, p.carried, says, believed)
	}
	p.verifies.learn(&p.ours, says, v)
	if v.differs != nil {
		err := errDiffers(p.d.dest, v.differs)
		if v.differs.algorithm == "MD5" && says.crc64nvme != "" {
			err.Detail += "; the store's CRC64NVME is the right one: if its ETags are no MD5s, set S3DAEMON_CHECKSUM=crc64nvme"
		}
		p.differs(err)
		return err
	}
	if err := p.d.acknowledged(says.etag); err != nil {
		return err
	}
	if v.proof == (proof{}) {
		return p.notVerified()
	}
	p.proof = v.proof
	return nil
}

// differs takes note of a mismatch. What was read is read anew for the next
// attempt: somebody may write to the file through a mapping.
func (p *payload) differs(err error) {
	p.d.mismatch(p.operation, p.ours.crc, err)
	p.ours = digests{}
}

// errNotKnown marks a success without proof of an operation that gave proof
// before. The next attempt carries what it takes.
var errNotKnown = errors.New("the store does not tell a CRC64NVME any more")

func (p *payload) notVerified() error {
	e := push.Errorf(push.NotVerified, "the store at %s said yes to %s, and nothing shows that it has the file's bytes: it tells no CRC64NVME to rely on, and its ETag is no MD5", p.d.up.name, p.d.dest)
	if p.d.up.checksum == ChecksumCRC64NVME {
		e.Detail += ": set S3DAEMON_CHECKSUM=auto"
		return e
	}
	e.Err = errNotKnown
	e.Detail += ": push it again"
	return e
}

// errDiffers says that the store has other bytes than were read.
func errDiffers(dest push.Destination, d *difference) *push.Error {
	return push.Errorf(push.ChecksumMismatch, "the store has other bytes for %s than were read (%s %s read, %s stored): push it again, and have the network's hardware looked at if that repeats",
		dest, d.algorithm, d.read, secret.Blot(d.stored))
}

// mismatch counts and logs that the store has, or got, other bytes than those
// read, which have this CRC64NVME. The error has what the store said.
func (d *delivery) mismatch(operation string, crc uint64, err error) {
	d.mismatches.Add(1)
	d.up.metrics.mismatches.WithLabelValues(operation).Inc()
	d.up.log.LogAttrs(context.Background(), slog.LevelWarn, "checksum mismatch", append(d.about(), slog.String("operation", operation),
		slog.String("crc64nvme", crcText(crc)), slog.String("error", textOf(err)))...)
}
