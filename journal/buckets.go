package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/lsst-dm/s3daemon/push"
)

// The names of the buckets and of what is in meta.
var (
	nameMeta    = []byte("meta")
	nameQueue   = []byte("queue")
	nameHistory = []byte("history")
	nameKeys    = []byte("keys")
	nameUploads = []byte("uploads")
	nameParts   = []byte("parts")

	metaVersion = []byte("version")
	metaTotals  = []byte("totals")
)

// fill is how full a page of records gets before the next is begun: nearly
// all of it, since records come in the order of their keys, or almost.
const fill = 0.9

// A bucket is one of a transaction. It counts what is in it.
type bucket struct {
	*bbolt.Bucket
	cursor *bbolt.Cursor
	count  *uint64
	sum    *uint64
}

// add puts a sealed value under a key that is not there yet.
func (b *bucket) add(key, value []byte) error {
	*b.count++
	*b.sum += uint64(binary.BigEndian.Uint32(value))
	return b.Put(key, value)
}

// put writes a sealed value under a key that may be there.
func (b *bucket) put(key, value []byte) error {
	if was := b.Get(key); was != nil {
		*b.count--
		*b.sum -= uint64(binary.BigEndian.Uint32(was))
	}
	return b.add(key, value)
}

// remove deletes a key, and reports whether it was there.
func (b *bucket) remove(key []byte) (bool, error) {
	k, value := b.cursor.Seek(key)
	if !bytes.Equal(k, key) {
		return false, nil
	}
	*b.count--
	*b.sum -= uint64(binary.BigEndian.Uint32(value))
	return true, b.cursor.Delete()
}

// totals is what all of a journal must amount to. It is written with each
// transaction, so that a page of an earlier one in the place of a newer, which
// is whole in itself, is noticed.
type totals struct {
	last                 uint64 // the order of the newest id that was given
	queue, history, keys uint64 // how many are in each bucket
	sum                  uint64 // of the checksums of all their values
	uploads, parts       uint64 // how many, again
}

func (t *totals) fields() []*uint64 {
	return []*uint64{&t.last, &t.queue, &t.history, &t.keys, &t.sum, &t.uploads, &t.parts}
}

// read reads what a file of this format has.
func (t *totals) read(value []byte, format uint64) error {
	fields := t.fields()
	if format < 2 {
		fields = fields[:5] // it knew of no uploads
	}
	values, err := parseNumbers(metaTotals, value, len(fields))
	for i := range values {
		*fields[i] = values[i]
	}
	return err
}

// buckets are those of one transaction that writes.
type buckets struct {
	queue, history, keys bucket
	uploads, parts       bucket // once openUploads was called

	meta   *bbolt.Bucket
	totals totals
}

// bucketsOf returns the buckets, all of which Open has seen to be there.
func bucketsOf(tx *bbolt.Tx) (*buckets, error) {
	b := &buckets{meta: tx.Bucket(nameMeta)}
	if err := b.totals.read(b.meta.Get(metaTotals), version); err != nil {
		return nil, err
	}
	b.queue = b.bucket(tx, nameQueue, &b.totals.queue)
	b.history = b.bucket(tx, nameHistory, &b.totals.history)
	b.keys = b.bucket(tx, nameKeys, &b.totals.keys)
	b.queue.FillPercent, b.history.FillPercent = fill, fill
	return b, nil
}

// openUploads makes uploads and parts ready. Most transactions do without.
func (b *buckets) openUploads() {
	if b.uploads.Bucket == nil {
		b.uploads = b.bucket(b.meta.Tx(), nameUploads, &b.totals.uploads)
		b.parts = b.bucket(b.meta.Tx(), nameParts, &b.totals.parts)
	}
}

func (b *buckets) bucket(tx *bbolt.Tx, name []byte, count *uint64) bucket {
	in := tx.Bucket(name)
	return bucket{Bucket: in, cursor: in.Cursor(), count: count, sum: &b.totals.sum}
}

// putTotals ends what is written in a transaction.
func (b *buckets) putTotals(last uint64) error {
	b.totals.last = max(b.totals.last, last)
	return putTotals(b.meta, b.totals)
}

func putTotals(meta *bbolt.Bucket, t totals) error {
	var values []uint64
	for _, field := range t.fields() {
		values = append(values, *field)
	}
	return putNumbers(meta, metaTotals, values...)
}

// apply makes the change, or sets its err and makes none. An error is one of
// bbolt's: nothing of the transaction can be used.
//
// What cannot be refused, and was made before by a transaction that failed and
// yet landed, can be made again.
func (b *buckets) apply(c *change) error {
	c.err, c.undo = nil, nil
	switch c.kind {
	case accept:
		return b.accept(c)
	case requeue:
		return b.requeue(c)
	case end:
		return b.end(c)
	case barrier:
		return nil
	}
	b.openUploads()
	switch c.kind {
	case putUpload:
		return b.uploads.put([]byte(c.key), c.value)
	case putPart:
		return b.putPart(c)
	default:
		return b.dropUpload(c)
	}
}

func (b *buckets) accept(c *change) error {
	if c.key != "" {
		key := []byte(c.key)
		if entry := b.keys.Get(key); entry != nil {
			id, hash, err := parseKeyEntry(key, entry)
			if err == nil {
				err = &DuplicateError{ID: id, RequestHash: hash}
			}
			c.err = err
			return nil
		}
		if err := b.keys.add(key, keyEntry(key, c.id, c.hash)); err != nil {
			return err
		}
	}
	return b.queue.add(c.id[:], c.value)
}

func (b *buckets) end(c *change) error {
	was, err := b.queue.remove(c.id[:])
	if !was && err == nil {
		_, err = b.history.remove(c.id[:])
	}
	if err != nil {
		return err
	}
	return b.history.add(c.id[:], c.value)
}

func (b *buckets) requeue(c *change) error {
	was := b.history.Get(c.id[:])
	if was == nil {
		c.err = ErrNotEnded
		return nil
	}
	c.undo = bytes.Clone(was)
	if _, err := b.history.remove(c.id[:]); err != nil {
		return err
	}
	return b.queue.add(c.id[:], c.value)
}

// withdraw undoes an accept or a requeue.
func (b *buckets) withdraw(c *change) error {
	if was, err := b.queue.remove(c.id[:]); err != nil || !was {
		return err
	}
	if c.kind == requeue {
		return b.history.add(c.id[:], c.undo)
	}
	return b.dropKey([]byte(c.key), c.id)
}

// dropKey removes an idempotency key, if it is that of the push.
func (b *buckets) dropKey(key []byte, id push.ID) error {
	if len(key) == 0 {
		return nil
	}
	if of, _, err := parseKeyEntry(key, b.keys.Get(key)); err != nil || of != id {
		return nil
	}
	_, err := b.keys.remove(key)
	return err
}

// putNumbers writes numbers into meta.
func putNumbers(meta *bbolt.Bucket, name []byte, numbers ...uint64) error {
	value := make([]byte, sumSize, sumSize+8*len(numbers))
	for _, n := range numbers {
		value = binary.BigEndian.AppendUint64(value, n)
	}
	seal(value, name)
	return meta.Put(name, value)
}

// parseNumbers reads what putNumbers wrote, which must be n numbers.
func parseNumbers(name, value []byte, n int) ([]uint64, error) {
	body, err := unseal(value, name)
	if err == nil && len(body) != 8*n {
		err = errors.New("its length is wrong")
	}
	if err != nil {
		return nil, fmt.Errorf("%s in the journal: %w", name, err)
	}
	numbers := make([]uint64, n)
	for i := range numbers {
		numbers[i] = binary.BigEndian.Uint64(body[8*i:])
	}
	return numbers, nil
}
