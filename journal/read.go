package journal

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/lsst-dm/s3daemon/push"
)

// Get returns the push with this id, and whether there is one.
func (j *Journal) Get(id push.ID) (Record, bool, error) {
	var r *Record
	err := j.view(func(tx *bbolt.Tx) error {
		value := tx.Bucket(nameQueue).Get(id[:])
		if value == nil {
			value = tx.Bucket(nameHistory).Get(id[:])
		}
		if value == nil {
			return nil
		}
		var err error
		r, err = decode(id, value)
		return err
	})
	if err != nil || r == nil {
		return Record{}, false, err
	}
	return *r, true, nil
}

// FindKey returns the push that has this idempotency key, and the hash of its
// request.
func (j *Journal) FindKey(key string) (id push.ID, hash [32]byte, found bool, err error) {
	err = j.view(func(tx *bbolt.Tx) error {
		k := []byte(key)
		value := tx.Bucket(nameKeys).Get(k)
		if value == nil {
			return nil
		}
		found = true
		id, hash, err = parseKeyEntry(k, value)
		return err
	})
	return id, hash, found && err == nil, err
}

// OldestQueued returns the oldest push of the queue that is not skipped. skip
// is called within a transaction and may not wait for the journal.
func (j *Journal) OldestQueued(skip func(push.ID) bool) (oldest push.ID, found bool) {
	_ = j.view(func(tx *bbolt.Tx) error { // an error: there is nothing to be had
		c := tx.Bucket(nameQueue).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			if id := push.ID(k); skip == nil || !skip(id) {
				oldest, found = id, true
				break
			}
		}
		return nil
	})
	return oldest, found
}

// Queued calls yield for every push that has not ended, oldest first, until it
// returns an error, which Queued returns then. yield may keep the record.
func (j *Journal) Queued(yield func(*Record) error) error {
	var stop error
	err := j.scan(push.ID{}, forward, false, nil, func(r *Record) bool {
		stop = yield(r)
		return stop == nil
	}, runtime.Gosched)
	return errors.Join(err, stop)
}

// Newest calls yield for the pushes of queue and history together, the newest
// first, until it returns false: those before the one with this id, or all if
// that is zero. yield may keep the record, and take its time: no transaction is
// open meanwhile. What changes during the scan may be seen as it was or as it
// is, but no push is seen twice, and none that was there all along is missed.
func (j *Journal) Newest(before push.ID, yield func(*Record) bool) error {
	return j.scan(before, backward, true, nil, yield, runtime.Gosched)
}

// NewestWhere is Newest for the pushes that want says yes to; the others cost
// little. want is called within a transaction: it must be quick and may not
// wait for the journal. A scan that goes on for long has pauses, and takes turns
// with others, so that the pushes meanwhile have most of the processors: yield may
// not wait for another scan.
func (j *Journal) NewestWhere(before push.ID, want func(*Brief) bool, yield func(*Record) bool) error {
	t := turn{long: j.long}
	defer t.end()
	return j.scan(before, backward, true, func(b *Brief) bool {
		t.looked++
		return want(b)
	}, yield, t.next)
}

// Since is Newest the other way round: the pushes after the one with this id,
// the oldest first.
func (j *Journal) Since(after push.ID, yield func(*Record) bool) error {
	return j.scan(after, forward, true, nil, yield, runtime.Gosched)
}

// SinceWhere is Since for the pushes that want says yes to, as in NewestWhere.
func (j *Journal) SinceWhere(after push.ID, want func(*Brief) bool, yield func(*Record) bool) error {
	return j.scan(after, forward, true, want, yield, runtime.Gosched)
}

// view calls f with a transaction that only reads.
func (j *Journal) view(f func(*bbolt.Tx) error) error {
	err := j.db.View(f)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	return nil
}

// How many pushes a scan looks at in one transaction, at first and at most: a
// page of a list needs few, and as long as a transaction is open, bbolt can
// reuse no page that has been replaced. They are decoded in one go, which is a
// millisecond.
const (
	scanFirst = 64
	scanMost  = 256
)

type direction bool

const (
	forward  direction = true
	backward direction = false
)

// scan goes through the queue, and the history if wanted, from one id on,
// which may be zero, in either direction.
// Between two transactions it calls between.
func (j *Journal) scan(from push.ID, d direction, history bool, want func(*Brief) bool, yield func(*Record) bool, between func()) error {
	var some []*Record
	for most := scanFirst; ; most = min(2*most, scanMost) {
		some = some[:0]
		end := false
		err := j.view(func(tx *bbolt.Tx) error {
			m := merge{d: d, queue: tx.Bucket(nameQueue).Cursor()}
			if history {
				m.history = tx.Bucket(nameHistory).Cursor()
			}
			m.seek(from)
			for range most {
				k, v := m.next()
				if k == nil {
					end = true
					return nil
				}
				from = push.ID(k)
				if want != nil {
					if b := brief(from, v); !want(&b) {
						continue
					}
				}
				r, err := decode(from, v)
				if err != nil {
					return err
				}
				some = append(some, r)
			}
			return nil
		})
		for _, r := range some {
			if !yield(r) {
				return nil
			}
		}
		if err != nil || end {
			return err
		}
		between() // those who want little may go on for long without a record that they want
	}
}

// merge reads two buckets as one.
type merge struct {
	d              direction
	queue, history *bbolt.Cursor // history may be nil
	qk, qv, hk, hv []byte        // what each has next; nil at its end
}

// seek goes to the first push beyond the id, or to the first of all.
func (m *merge) seek(from push.ID) {
	m.qk, m.qv = m.start(m.queue, from)
	if m.history != nil {
		m.hk, m.hv = m.start(m.history, from)
	}
}

func (m *merge) start(c *bbolt.Cursor, from push.ID) (k, v []byte) {
	switch {
	case m.d == backward && from.IsZero():
		return c.Last()
	case m.d == backward:
		// Seek goes to the id or the next above it, so what is wanted is just
		// before; past the end it is the last.
		if k, _ := c.Seek(from[:]); k == nil {
			return c.Last()
		}
		return c.Prev()
	}
	k, v = c.Seek(from[:])
	if bytes.Equal(k, from[:]) {
		return c.Next()
	}
	return k, v
}

// next returns the next push of both.
func (m *merge) next() (k, v []byte) {
	if m.hk == nil || m.qk != nil && (bytes.Compare(m.qk, m.hk) < 0) == bool(m.d) {
		k, v = m.qk, m.qv
		if k != nil {
			m.qk, m.qv = m.step(m.queue)
		}
		return k, v
	}
	k, v = m.hk, m.hv
	m.hk, m.hv = m.step(m.history)
	return k, v
}

func (m *merge) step(c *bbolt.Cursor) (k, v []byte) {
	if m.d == forward {
		return c.Next()
	}
	return c.Prev()
}
