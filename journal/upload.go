package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/lsst-dm/s3daemon/push"
)

// Upload is a multipart upload that was begun, or is about to be. Push and
// BegunAt together tell it from all others.
type Upload struct {
	Push        push.ID   // that it was begun for
	BegunAt     time.Time // when it was put on disk, just before the store is asked for it; to the nanosecond
	Store       string    // that has it
	Bucket, Key string    // of the object that it is to become
	ID          string    // the store's; empty until it is known
	Checksum    string    // how S3DAEMON_CHECKSUM was set when it was begun
	PartSize    int64     // of all parts but the last

	// The file that it is of, as a Record has it, and when its inode was changed
	// last, when the first part was read; zero where that is not known.
	Size          int64
	ModTime       time.Time
	Device, Inode uint64
	ChangedAt     time.Time

	CompletedAt time.Time // when the store was last asked to complete it; zero: never
	Probe       bool      // it was begun to find out what the store does, so its key is to be deleted as well
}

// Part is a part of an upload that the store was shown to have.
type Part struct {
	Number        int32 // from 1
	Size          int64
	ETag          string // without quotes
	CRC64NVME     uint64
	MD5, SHA256   []byte // nil where it was not computed
	Algorithm, By string // how it was verified, as push.Verified has them
	Told          bool   // the store told its CRC64NVME, which the completion then has to name as well
}

// PutUpload puts an upload into the journal, in the place of the one with the
// same Push and BegunAt where there is one; that one's parts stay.
//
// It cannot fail: what cannot be written is kept in memory and tried again, as
// an end is. done, which may be nil, is called once on the writer's goroutine
// when it is on disk. It must be quick, and may not wait for the journal. After
// Close, or if Close gives up, it is never called. PutPart, DropUpload and
// Barrier are alike in this, and all changes are made in the order in which they
// are submitted, whatever they are of. The upload may be changed as soon as
// PutUpload returns.
func (j *Journal) PutUpload(u *Upload, done func()) {
	key := uploadKey(u)
	j.submit(change{kind: putUpload, key: string(key), value: encodeUpload(key, u), ended: done})
}

// PutPart puts a part of the upload with u's Push and BegunAt into the journal,
// in the place of the one with the same number where there is one. If the upload
// is not in the journal, or not any more, nothing is written.
func (j *Journal) PutPart(u *Upload, p *Part, done func()) {
	key := partKey(u, p.Number)
	j.submit(change{kind: putPart, key: string(key), value: encodePart(key, p), ended: done})
}

// DropUpload takes the upload with u's Push and BegunAt out of the journal, and
// its parts. If it is not there, nothing is written.
func (j *Journal) DropUpload(u *Upload, done func()) {
	j.submit(change{kind: dropUpload, key: string(uploadKey(u)), ended: done})
}

// Barrier calls done when all that was submitted before it is on disk, or
// refused. It writes nothing by itself.
func (j *Journal) Barrier(done func()) {
	j.submit(change{kind: barrier, ended: done})
}

// Uploads returns the uploads of a push, oldest first. What was submitted is
// among them once it is on disk.
func (j *Journal) Uploads(id push.ID) ([]Upload, error) {
	var all []Upload
	err := j.view(func(tx *bbolt.Tx) error {
		return eachWith(tx.Bucket(nameUploads), id[:], func(k, v []byte) error {
			u, err := decodeUpload(k, v)
			if err == nil {
				all = append(all, *u)
			}
			return err
		})
	})
	return all, err
}

// Parts returns the parts of the upload with u's Push and BegunAt, by number.
func (j *Journal) Parts(u *Upload) ([]Part, error) {
	var all []Part
	err := j.view(func(tx *bbolt.Tx) error {
		return eachWith(tx.Bucket(nameParts), uploadKey(u), func(k, v []byte) error {
			p, err := decodePart(k, v)
			if err == nil {
				all = append(all, *p)
			}
			return err
		})
	})
	return all, err
}

// EachUpload calls yield for every upload, those of the oldest push first and
// each push's oldest first, until it returns an error, which EachUpload returns
// then. yield may keep the upload, and take its time: no transaction is open
// meanwhile. An upload that is put or dropped meanwhile may be seen as it was or
// as it is.
func (j *Journal) EachUpload(yield func(*Upload) error) error {
	var after []byte
	for {
		some, err := j.uploadsAfter(after, scanMost)
		for _, u := range some {
			if err := yield(u); err != nil {
				return err
			}
		}
		if err != nil || len(some) == 0 {
			return err
		}
		after = uploadKey(some[len(some)-1])
	}
}

// uploadsAfter returns uploads in the order of their keys, from the first beyond
// this one on.
func (j *Journal) uploadsAfter(after []byte, most int) ([]*Upload, error) {
	var some []*Upload
	err := j.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(nameUploads).Cursor()
		k, v := c.Seek(after)
		if bytes.Equal(k, after) {
			k, v = c.Next()
		}
		for ; k != nil && len(some) < most; k, v = c.Next() {
			u, err := decodeUpload(k, v)
			if err != nil {
				return err
			}
			some = append(some, u)
		}
		return nil
	})
	return some, err
}

// countUploads returns how many uploads there are; 0 if the journal is closed.
func (j *Journal) countUploads() uint64 {
	var t totals
	_ = j.view(func(tx *bbolt.Tx) error { return t.read(tx.Bucket(nameMeta).Get(metaTotals), version) })
	return t.uploads
}

// eachWith calls visit for each pair whose key begins so.
func eachWith(b *bbolt.Bucket, prefix []byte, visit func(k, v []byte) error) error {
	c := b.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if err := visit(k, v); err != nil {
			return err
		}
	}
	return nil
}

// The keys of uploads and parts: a push's uploads are next to each other, in the
// order in which they were begun, and an upload's parts likewise.
const (
	uploadKeySize = len(push.ID{}) + 8
	partKeySize   = uploadKeySize + 4
)

func uploadKey(u *Upload) []byte {
	b := append(make([]byte, 0, partKeySize), u.Push[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(u.BegunAt.UnixNano()))
}

func partKey(u *Upload, number int32) []byte {
	return binary.BigEndian.AppendUint32(uploadKey(u), uint32(number))
}

// errNoUpload says that a change has nothing to change.
var errNoUpload = errors.New("the upload is not in the journal")

func (b *buckets) putPart(c *change) error {
	if b.uploads.Get([]byte(c.key[:uploadKeySize])) == nil {
		c.err = errNoUpload
		return nil
	}
	return b.parts.put([]byte(c.key), c.value)
}

// dropUpload removes an upload, and its parts, of which there are none without
// it.
func (b *buckets) dropUpload(c *change) error {
	key := []byte(c.key)
	if was, err := b.uploads.remove(key); err != nil || !was {
		c.err = errNoUpload
		return err
	}
	// All keys first: to look for the next one after each removal would lead
	// through ever more pages that are empty already.
	var keys []byte
	err := eachWith(b.parts.Bucket, key, func(k, _ []byte) error {
		keys = append(keys, k...)
		return nil
	})
	for ; err == nil && len(keys) > 0; keys = keys[partKeySize:] {
		_, err = b.parts.remove(keys[:partKeySize])
	}
	return err
}

// lost says what of these changes, which will not be written any more, is
// missed; empty if nothing is.
func lost(kept []change) string {
	ends := 0
	uploads := make(map[string]bool)
	for i := range kept {
		switch c := &kept[i]; c.kind {
		case end:
			ends++
		case putUpload, putPart, dropUpload:
			uploads[c.key[:uploadKeySize]] = true
		}
	}
	switch {
	case ends == 0 && len(uploads) == 0:
		return ""
	case len(uploads) == 0:
		return fmt.Sprintf("the ends of %d pushes are not on disk, so these will be queued again", ends)
	case ends == 0:
		return fmt.Sprintf("the last about %d multipart uploads is not on disk", len(uploads))
	}
	return fmt.Sprintf("the ends of %d pushes are not on disk, so these will be queued again, nor is the last about %d multipart uploads", ends, len(uploads))
}
