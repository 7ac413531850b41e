package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"os"
)

// A tree is a bbolt file as it lies on disk, read page by page. It looks at all
// that bbolt will rely on, and at more: bbolt lays out a page without gaps, and
// one that is laid out otherwise was not written by it.
//
// The layout, in the byte order of the machine (bbolt: internal/common):
//
//	page     id 8, flags 2, count 2, overflow 4; then count elements; then their data
//	meta     magic 4, version 4, page size 4, flags 4, root 8, sequence 8, free list 8, pages 8, transaction 8, FNV-1a 8
//	branch   position 4, key size 4, page 8
//	leaf     flags 4, position 4, key size 4, value size 4
//	bucket   root 8, sequence 8; where root is 0, its only page follows
//
// Positions count from the element. overflow is how many pages more belong to
// this one.
type tree struct {
	file     io.ReaderAt
	pageSize int
	root     uint64 // the page of the list of buckets
	pages    uint64 // how many there are, used or free
	oneMeta  bool

	seen    []uint64 // a bit for each page that was come upon
	buffers [][]byte // one for each level of a tree
}

const (
	headerSize  = 16
	elementSize = 16
	metaSize    = 64
	bucketSize  = 16

	branchPage = 1
	leafPage   = 2
	metaPage   = 4

	bucketElement = 1

	smallestPage = 1 << 10
	largestPage  = 1 << 24

	boltMagic   = 0xED0CDAED
	boltVersion = 2
	noFreeList  = 1<<64 - 1

	// maxDepth is far more than any file needs: even with two elements a page,
	// 32 levels hold billions of pushes.
	maxDepth = 32
)

var order64, order32, order16 = binary.NativeEndian.Uint64, binary.NativeEndian.Uint32, binary.NativeEndian.Uint16

// meta is what of a meta page is of interest.
type meta struct {
	pageSize                           int
	root, freeList, pages, transaction uint64
}

// parseMeta reads a meta page, and reports whether it is one.
func parseMeta(page []byte) (meta, bool) {
	if len(page) < headerSize+metaSize {
		return meta{}, false
	}
	b := page[headerSize:]
	hash := fnv.New64a()
	hash.Write(b[:metaSize-8])
	if order32(b) != boltMagic || order32(b[4:]) != boltVersion || order64(b[56:]) != hash.Sum64() {
		return meta{}, false
	}
	return meta{pageSize: int(order32(b[8:])), root: order64(b[16:]), freeList: order64(b[32:]), pages: order64(b[40:]), transaction: order64(b[48:])}, true
}

// openTree finds the meta page that bbolt will go by.
func openTree(file *os.File) (*tree, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	m, both, err := findMeta(file)
	if err != nil {
		return nil, err
	}
	switch {
	case m.freeList != noFreeList:
		return nil, damaged("it has a list of free pages, which is never written here")
	case m.pages < 4 || m.pages > uint64(info.Size())/uint64(m.pageSize):
		return nil, damaged("it should have %d pages of %d bytes, and is %d bytes long", m.pages, m.pageSize, info.Size())
	}
	t := &tree{file: file, pageSize: m.pageSize, root: m.root, pages: m.pages, oneMeta: !both}
	t.seen = make([]uint64, m.pages/64+1)
	return t, nil
}

// findMeta returns the newer of the two meta pages, if both are whole, or else
// the other one. The second is one page into the file, and the size of a page
// is in them. bbolt believes each that is whole: so they have to agree, with each
// other and with where they are.
func findMeta(file io.ReaderAt) (m meta, both bool, err error) {
	first, ok, err := readMeta(file, 0)
	if err != nil {
		return meta{}, false, err
	}
	if ok {
		if size := first.pageSize; size < smallestPage || size > largestPage || size&(size-1) != 0 {
			return meta{}, false, damaged("it has pages of %d bytes", size)
		}
		second, both, err := readMeta(file, int64(first.pageSize))
		if both && second.pageSize != first.pageSize {
			return meta{}, false, damaged("it has pages of %d bytes and of %d", first.pageSize, second.pageSize)
		}
		if both && second.transaction > first.transaction {
			first = second
		}
		return first, both, err
	}
	for size := smallestPage; size <= largestPage; size <<= 1 {
		second, ok, err := readMeta(file, int64(size))
		if err != nil {
			return meta{}, false, err
		}
		if ok && second.pageSize != size {
			return meta{}, false, damaged("it has pages of %d bytes, one of them after %d", second.pageSize, size)
		}
		if ok {
			return second, false, nil
		}
	}
	return meta{}, false, damaged("it does not begin as a journal does")
}

func readMeta(file io.ReaderAt, at int64) (meta, bool, error) {
	var page [headerSize + metaSize]byte
	if _, err := file.ReadAt(page[:], at); errors.Is(err, io.EOF) {
		return meta{}, false, nil
	} else if err != nil {
		return meta{}, false, err
	}
	m, ok := parseMeta(page[:])
	return m, ok, nil
}

// buckets returns the value that each bucket has in the list of them.
func (t *tree) buckets() (map[string][]byte, error) {
	roots := make(map[string][]byte)
	err := t.walk(t.root, 0, span{}, bucketElement, func(k, v []byte) error {
		roots[string(k)] = bytes.Clone(v)
		return nil
	})
	return roots, err
}

// walkBucket calls visit for each pair of the bucket with this value, in order.
func (t *tree) walkBucket(value []byte, visit func(key, value []byte) error) error {
	if len(value) < bucketSize {
		return damaged("the root of a bucket has %d bytes", len(value))
	}
	root := order64(value)
	if root != 0 {
		if len(value) != bucketSize {
			return damaged("the root of a bucket has %d bytes", len(value))
		}
		return t.walk(root, 0, span{}, 0, visit)
	}
	page := value[bucketSize:]
	if len(page) < headerSize || order16(page[8:]) != leafPage {
		return damaged("a small bucket has no page")
	}
	end, err := t.leaf(0, page, span{}, 0, visit)
	if err == nil && end != len(page) {
		err = damaged("a small bucket has %d bytes and uses %d", len(page), end)
	}
	return err
}

// span is where the keys of a page must lie: from least on, and below below.
// nil is no limit.
type span struct{ least, below []byte }

func (s span) has(key []byte) bool {
	return bytes.Compare(key, s.least) >= 0 && (s.below == nil || bytes.Compare(key, s.below) < 0)
}

// walk goes through the page with this number, and all below it. All elements
// must have these flags.
func (t *tree) walk(number uint64, depth int, in span, flags uint32, visit func(key, value []byte) error) error {
	page, err := t.page(number, depth)
	if err != nil {
		return err
	}
	switch order16(page[8:]) {
	case leafPage:
		if order16(page[10:]) == 0 && (depth > 0 || flags == 0) {
			return damaged("page %d is empty", number) // such a page is removed, or its bucket is a small one
		}
		_, err := t.leaf(number, page, in, flags, visit)
		return err
	case branchPage:
		return t.branch(number, page, depth, in, flags, visit)
	}
	return damaged("page %d is neither a branch nor a leaf", number)
}

// page reads a page with its overflow. The bytes are valid until the next page
// of the same depth is read.
func (t *tree) page(number uint64, depth int) ([]byte, error) {
	if depth >= maxDepth {
		return nil, damaged("page %d is too deep", number)
	}
	for depth >= len(t.buffers) {
		t.buffers = append(t.buffers, make([]byte, t.pageSize))
	}
	if err := t.mark(number, 1); err != nil {
		return nil, err
	}
	page := t.buffers[depth][:t.pageSize]
	if err := t.read(page, number); err != nil {
		return nil, err
	}
	if order64(page) != number {
		return nil, damaged("page %d says that it is page %d", number, order64(page))
	}
	more := uint64(order32(page[12:]))
	if more == 0 {
		return page, nil
	}
	if err := t.mark(number+1, more); err != nil {
		return nil, err
	}
	size := int(more+1) * t.pageSize
	if size > cap(page) {
		page = append(page, make([]byte, size-len(page))...)
		t.buffers[depth] = page
	}
	page = page[:size]
	return page, t.read(page[t.pageSize:], number+1)
}

// mark notes that n pages are in use, each of which must be so only once.
// Without that a branch could lead back up.
func (t *tree) mark(number, n uint64) error {
	if number < 2 || number >= t.pages || n > t.pages-number {
		return damaged("page %d is none of %d", number, t.pages)
	}
	for i := number; i < number+n; i++ {
		if t.seen[i/64]&(1<<(i%64)) != 0 {
			return damaged("page %d is used twice", i)
		}
		t.seen[i/64] |= 1 << (i % 64)
	}
	return nil
}

func (t *tree) read(b []byte, number uint64) error {
	_, err := t.file.ReadAt(b, int64(number)*int64(t.pageSize))
	if errors.Is(err, io.EOF) {
		return damaged("it ends within page %d", number)
	}
	return err
}

// leaf goes through the elements of a leaf page, and returns where the last of
// them ends.
func (t *tree) leaf(number uint64, page []byte, in span, flags uint32, visit func(key, value []byte) error) (end int, err error) {
	count := int(order16(page[10:]))
	end = headerSize + count*elementSize
	var previous []byte
	for i := range count {
		at := headerSize + i*elementSize
		if end > len(page) {
			return 0, damaged("page %d is too small for its elements", number)
		}
		element := page[at:]
		keySize, valueSize := uint64(order32(element[8:])), uint64(order32(element[12:]))
		if order32(element) != flags || uint64(at)+uint64(order32(element[4:])) != uint64(end) || uint64(end)+keySize+valueSize > uint64(len(page)) {
			return 0, damaged("element %d of page %d is not as it should be", i, number)
		}
		key := page[end:][:keySize:keySize]
		end += int(keySize)
		value := page[end:][:valueSize:valueSize]
		end += int(valueSize)
		if len(key) == 0 || i > 0 && bytes.Compare(previous, key) >= 0 || !in.has(key) {
			return 0, damaged("the keys of page %d are out of order", number)
		}
		previous = key
		if err := visit(key, value); err != nil {
			return 0, err
		}
	}
	return end, nil
}

// branch goes through the pages below a branch page.
func (t *tree) branch(number uint64, page []byte, depth int, in span, flags uint32, visit func(key, value []byte) error) error {
	count := int(order16(page[10:]))
	end := headerSize + count*elementSize
	if count == 0 || end > len(page) {
		return damaged("page %d has %d elements", number, count)
	}
	keys := make([][]byte, count)
	for i := range count {
		at := headerSize + i*elementSize
		keySize := uint64(order32(page[at+4:]))
		if uint64(at)+uint64(order32(page[at:])) != uint64(end) || uint64(end)+keySize > uint64(len(page)) {
			return damaged("element %d of page %d is not as it should be", i, number)
		}
		keys[i] = page[end:][:keySize:keySize]
		end += int(keySize)
		if keySize == 0 || i > 0 && bytes.Compare(keys[i-1], keys[i]) >= 0 || !in.has(keys[i]) {
			return damaged("the keys of page %d are out of order", number)
		}
	}
	for i := range count {
		below := in.below
		if i+1 < count {
			below = keys[i+1]
		}
		child := order64(page[headerSize+i*elementSize+8:])
		if err := t.walk(child, depth+1, span{least: keys[i], below: below}, flags, visit); err != nil {
			return err
		}
	}
	return nil
}
