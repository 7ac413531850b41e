package journal

import (
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/lsst-dm/s3daemon/push"
)

// The fields of an upload. The package comment has the list; a number once used
// keeps its meaning.
const (
	uploadStore protowire.Number = iota + 1
	uploadBucket
	uploadObject
	uploadID
	uploadChecksum
	uploadPartSize
	uploadSize
	uploadModSeconds
	uploadModNanos
	uploadDevice
	uploadInode
	uploadCompletedAt
	uploadProbe
	uploadChangedSeconds
	uploadChangedNanos
)

// The fields of a part, likewise.
const (
	partSize protowire.Number = iota + 1
	partETag
	partCRC64NVME
	partMD5
	partSHA256
	partAlgorithm
	partBy
	partTold
)

// encodeUpload returns the sealed value of an upload under its key.
func encodeUpload(key []byte, u *Upload) []byte {
	b := make([]byte, sumSize, 128+len(u.Store)+len(u.Bucket)+len(u.Key)+len(u.ID))
	b = appendText(b, uploadStore, u.Store)
	b = appendText(b, uploadBucket, u.Bucket)
	b = appendText(b, uploadObject, u.Key)
	b = appendText(b, uploadID, u.ID)
	b = appendText(b, uploadChecksum, u.Checksum)
	b = appendNumber(b, uploadPartSize, uint64(u.PartSize))
	b = appendNumber(b, uploadSize, uint64(u.Size))
	b = appendModTime(b, uploadModSeconds, uploadModNanos, u.ModTime)
	b = appendNumber(b, uploadDevice, u.Device)
	b = appendNumber(b, uploadInode, u.Inode)
	b = appendTime(b, uploadCompletedAt, u.CompletedAt)
	if u.Probe {
		b = appendNumber(b, uploadProbe, 1)
	}
	b = appendModTime(b, uploadChangedSeconds, uploadChangedNanos, u.ChangedAt)
	seal(b, key)
	return b
}

// decodeUpload reads the value under a key.
func decodeUpload(key, value []byte) (*Upload, error) {
	if len(key) != uploadKeySize {
		return nil, fmt.Errorf("an upload in the journal has a key of %d bytes", len(key))
	}
	u := &Upload{Push: push.ID(key[:len(push.ID{})]), BegunAt: moment(binary.BigEndian.Uint64(key[len(push.ID{}):]))}
	body, err := unseal(value, key)
	if err == nil {
		err = eachField(body, u.set)
	}
	if err != nil {
		return nil, fmt.Errorf("an upload of push %s in the journal: %w", u.Push, err)
	}
	return u, nil
}

// set puts a field into the upload, as Record.set does.
func (u *Upload) set(f field, text string) error {
	switch f.number {
	case uploadStore:
		u.Store = text
	case uploadBucket:
		u.Bucket = text
	case uploadObject:
		u.Key = text
	case uploadID:
		u.ID = text
	case uploadChecksum:
		u.Checksum = text
	case uploadPartSize:
		u.PartSize = int64(f.value)
	case uploadSize:
		u.Size = int64(f.value)
	case uploadModSeconds:
		u.ModTime = time.Unix(protowire.DecodeZigZag(f.value), 0).UTC()
	case uploadModNanos:
		u.ModTime = u.ModTime.Add(time.Duration(f.value))
	case uploadDevice:
		u.Device = f.value
	case uploadInode:
		u.Inode = f.value
	case uploadCompletedAt:
		u.CompletedAt = moment(f.value)
	case uploadProbe:
		u.Probe = f.value != 0
	case uploadChangedSeconds:
		u.ChangedAt = time.Unix(protowire.DecodeZigZag(f.value), 0).UTC()
	case uploadChangedNanos:
		u.ChangedAt = u.ChangedAt.Add(time.Duration(f.value))
	}
	return nil
}

// encodePart returns the sealed value of a part under its key.
func encodePart(key []byte, p *Part) []byte {
	b := make([]byte, sumSize, 160)
	b = appendNumber(b, partSize, uint64(p.Size))
	b = appendText(b, partETag, p.ETag)
	if p.CRC64NVME != 0 {
		b = protowire.AppendFixed64(protowire.AppendTag(b, partCRC64NVME, protowire.Fixed64Type), p.CRC64NVME)
	}
	b = appendText(b, partMD5, string(p.MD5))
	b = appendText(b, partSHA256, string(p.SHA256))
	b = appendText(b, partAlgorithm, p.Algorithm)
	b = appendText(b, partBy, p.By)
	if p.Told {
		b = appendNumber(b, partTold, 1)
	}
	seal(b, key)
	return b
}

// decodePart reads the value under a key.
func decodePart(key, value []byte) (*Part, error) {
	if len(key) != partKeySize {
		return nil, fmt.Errorf("a part in the journal has a key of %d bytes", len(key))
	}
	p := &Part{Number: int32(binary.BigEndian.Uint32(key[uploadKeySize:]))}
	body, err := unseal(value, key)
	if err == nil {
		err = eachField(body, p.set)
	}
	if err != nil {
		return nil, fmt.Errorf("part %d of an upload of push %s in the journal: %w", p.Number, push.ID(key[:len(push.ID{})]), err)
	}
	return p, nil
}

// set puts a field into the part, as Record.set does.
func (p *Part) set(f field, text string) error {
	switch f.number {
	case partSize:
		p.Size = int64(f.value)
	case partETag:
		p.ETag = text
	case partCRC64NVME:
		p.CRC64NVME = f.value
	case partMD5:
		p.MD5 = []byte(text)
	case partSHA256:
		p.SHA256 = []byte(text)
	case partAlgorithm:
		p.Algorithm = text
	case partBy:
		p.By = text
	case partTold:
		p.Told = f.value != 0
	}
	return nil
}
