package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/lsst-dm/s3daemon/push"
)

// version is that of the format; see the package comment on versions.
const version = 2

// errDamaged says that a file is not, or not any more, what this package has
// written.
var errDamaged = errors.New("it cannot be read")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errDamaged, fmt.Sprintf(format, args...))
}

// contents is what check finds in a file.
type contents struct {
	totals
	version uint64
	oneMeta bool // one of the two pages that bbolt can start from is damaged
}

// check reads the whole file and reports as an errDamaged what is wrong with
// it. It comes before bbolt, which trusts what it reads: on garbage it can
// panic on a goroutine of its own, read beyond the end of the file, or go on
// with half of the pushes.
func check(file *os.File) (contents, error) {
	t, err := openTree(file)
	if err != nil {
		return contents{}, err
	}
	roots, err := t.buckets()
	if err != nil {
		return contents{}, err
	}
	// What is in the file can be judged only if its version is known.
	want, format, err := checkMeta(t, roots)
	if err != nil {
		return contents{}, err
	}
	found := contents{version: format, oneMeta: t.oneMeta}
	buckets := found.buckets()
	if len(roots) != len(buckets)+1 {
		return contents{}, damaged("it has %d buckets", len(roots))
	}
	for _, b := range buckets {
		root, ok := roots[string(b.name)]
		if !ok {
			return contents{}, damaged("it has no bucket %s", b.name)
		}
		err := t.walkBucket(root, func(key, value []byte) error {
			if err := b.visit(key, value); err != nil {
				return err
			}
			*b.count++
			found.sum += uint64(binary.BigEndian.Uint32(value))
			return nil
		})
		if err != nil {
			return contents{}, err
		}
	}
	if found.last > want.last {
		return contents{}, damaged("there are ids later than the last")
	}
	found.last = want.last
	if found.totals != want {
		return contents{}, damaged("it should have %s, and has others: %s", &want, &found.totals)
	}
	return found, nil
}

// String says how many there are of each.
func (t *totals) String() string {
	return fmt.Sprintf("%d pushes in the queue, %d in the history, %d idempotency keys, %d uploads and %d parts of them", t.queue, t.history, t.keys, t.uploads, t.parts)
}

// checked is a bucket that check goes through.
type checked struct {
	name  []byte
	count *uint64
	visit func(key, value []byte) error
}

// buckets returns those that a file of this format has, besides meta.
func (c *contents) buckets() []checked {
	all := []checked{
		{nameQueue, &c.queue, c.checkPush},
		{nameHistory, &c.history, c.checkPush},
		{nameKeys, &c.keys, checkKey},
		{nameUploads, &c.uploads, checkUpload},
		{nameParts, &c.parts, checkPart},
	}
	if c.version < 2 {
		return all[:3]
	}
	return all
}

// checkMeta returns what the journal must amount to, and the version of its
// format.
func checkMeta(t *tree, roots map[string][]byte) (want totals, format uint64, err error) {
	root, ok := roots[string(nameMeta)]
	if !ok {
		return want, 0, damaged("it has no bucket %s", nameMeta)
	}
	values := make(map[string][]byte)
	err = t.walkBucket(root, func(k, v []byte) error {
		values[string(k)] = bytes.Clone(v)
		return nil
	})
	if err != nil {
		return want, 0, err
	}
	v, err := parseNumbers(metaVersion, values[string(metaVersion)], 1)
	switch {
	case err != nil:
		return want, 0, asDamage(err)
	case v[0] > version:
		return want, 0, fmt.Errorf("%w: its format is %d, and this s3daemon knows formats up to %d: start the later version, or give this one another directory with S3DAEMON_DATA_DIR", ErrNewer, v[0], version)
	case v[0] == 0:
		return want, 0, damaged("there is no format 0")
	}
	return want, v[0], asDamage(want.read(values[string(metaTotals)], v[0]))
}

// checkPush looks at one push.
func (c *contents) checkPush(key, value []byte) error {
	if len(key) != len(push.ID{}) {
		return damaged("a push has an id of %d bytes", len(key))
	}
	id := push.ID(key)
	if _, err := decode(id, value); err != nil {
		return asDamage(err)
	}
	c.last = max(c.last, order(id))
	return nil
}

func checkKey(key, value []byte) error {
	_, _, err := parseKeyEntry(key, value)
	return asDamage(err)
}

func checkUpload(key, value []byte) error {
	_, err := decodeUpload(key, value)
	return asDamage(err)
}

func checkPart(key, value []byte) error {
	_, err := decodePart(key, value)
	return asDamage(err)
}

func asDamage(err error) error {
	if err == nil {
		return nil
	}
	return damaged("%v", err)
}
