package uploader

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"io"
	"sync"

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

// algorithms is a set of them.
type algorithms uint8

const (
	withCRC algorithms = 1 << iota
	withMD5
	withSHA256
)

// carries returns the digests that a request of the operation is to carry.
func (c Checksum) carries(operationVerifies bool) algorithms {
	switch c {
	case ChecksumCRC64NVME:
		return withCRC
	case ChecksumMD5:
		return withMD5
	case ChecksumSHA256:
		return withCRC | withSHA256
	}
	if operationVerifies {
		return withCRC
	}
	return withCRC | withMD5
}

// believes reports whether a CRC64NVME that an operation says, and that is ours,
// is proof. With crc64nvme nothing else is to count.
func (c Checksum) believes(operation *trust) bool {
	return c == ChecksumCRC64NVME || !operation.doubts()
}

// digests are of the bytes of one request, or of a file.
type digests struct {
	have   algorithms
	crc    uint64
	md5    [md5.Size]byte
	sha256 [sha256.Size]byte
}

// crc64nvme returns the CRC as S3 writes it: base64 of the eight bytes, most
// significant first.
func (d *digests) crc64nvme() string { return crcText(d.crc) }

func crcText(crc uint64) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, crc))
}

func (d *digests) md5Hex() string { return hex.EncodeToString(d.md5[:]) }

// buffers are for hashing; what a part needs of memory is this and no more.
var buffers = sync.Pool{New: func() any { return new([128 << 10]byte) }}

// compute adds the digests that are not there yet, in one pass over the content.
func (d *digests) compute(content *io.SectionReader, wanted algorithms) error {
	wanted &^= d.have
	if wanted == 0 {
		return nil
	}
	crc, inMD5, inSHA256 := uint64(0), md5.New(), sha256.New()
	err := eachBlock(content, func(block []byte) {
		if wanted&withCRC != 0 {
			crc = crc64nvme.Update(crc, block)
		}
		if wanted&withMD5 != 0 {
			inMD5.Write(block)
		}
		if wanted&withSHA256 != 0 {
			inSHA256.Write(block)
		}
	})
	if err != nil {
		return err
	}
	if wanted&withCRC != 0 {
		d.crc = crc
	}
	if wanted&withMD5 != 0 {
		inMD5.Sum(d.md5[:0])
	}
	if wanted&withSHA256 != 0 {
		inSHA256.Sum(d.sha256[:0])
	}
	d.have |= wanted
	return nil
}

// eachBlock reads the content from its start to its end. Bytes that are missing
// there are io.ErrUnexpectedEOF.
func eachBlock(content *io.SectionReader, f func(block []byte)) error {
	buf := buffers.Get().(*[128 << 10]byte)
	defer buffers.Put(buf)
	for at := int64(0); at < content.Size(); {
		n, err := content.ReadAt(buf[:min(int64(len(buf)), content.Size()-at)], at)
		f(buf[:n])
		at += int64(n)
		if err == io.EOF && at < content.Size() {
			return io.ErrUnexpectedEOF // the file was cut short
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}
