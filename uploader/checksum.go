package uploader

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"io"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/crc64nvme"
)

// Checksum is what shows that the store has a file's bytes.
type Checksum string

// The kinds of Checksum. The CRC64NVME of what is read is computed with each of
// them.
const (
	ChecksumAuto      Checksum = "auto"      // a CRC64NVME header, and Content-MD5 where the store is not known to check that
	ChecksumCRC64NVME Checksum = "crc64nvme" // a CRC64NVME header
	ChecksumMD5       Checksum = "md5"       // Content-MD5, for stores that refuse CRC headers
	ChecksumSHA256    Checksum = "sha256"    // the signature covers the SHA-256 of the body, and there is a CRC64NVME header
)

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

// etagOf returns the ETag that S3 gives an object of the file's bytes that was
// sent in parts of that size, or whole.
func etagOf(f *io.SectionReader, partSize int64) (string, error) {
	var parts []types.CompletedPart
	for at := int64(0); at == 0 || at < f.Size(); at += partSize {
		h := md5.New()
		if _, err := io.Copy(h, io.NewSectionReader(f, at, min(partSize, f.Size()-at))); err != nil {
			return "", err
		}
		parts = append(parts, types.CompletedPart{ETag: aws.String(hex.EncodeToString(h.Sum(nil)))})
	}
	if len(parts) == 1 {
		return *parts[0].ETag, nil
	}
	return *joinedETag(parts), nil
}
