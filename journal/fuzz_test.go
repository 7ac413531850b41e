package journal

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// FuzzCheck: a file that has been written over is found to be damaged, or bbolt
// can read all of it, and finds in it what check has counted.
func FuzzCheck(f *testing.F) {
	dir := f.TempDir()
	j := open(f, Config{Dir: dir})
	for i := range 40 {
		r := example(i)
		acceptAll(f, j, r)
		u := exampleUpload(r.ID, 1)
		j.PutUpload(u, nil)
		j.PutPart(u, examplePart(1), nil)
		if i%2 == 0 {
			endAll(j, ended(*r))
		}
	}
	if err := j.Close(); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		f.Fatal(err)
	}
	const page = 4096
	used := len(bytes.TrimRight(good, "\x00"))/page*page + page
	good = good[:min(used, len(good))]

	f.Add(uint32(0), []byte{}, uint32(0), []byte{}, false)
	f.Add(uint32(16), []byte{0xff}, uint32(page+16), []byte{0}, true)
	f.Add(uint32(25), []byte("d"), uint32(page+115), []byte{2}, true) // another size of pages
	f.Add(uint32(32), []byte{3, 0, 0, 0, 0, 0, 0, 0}, uint32(page+32), []byte{3}, true)
	f.Add(uint32(56), []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, uint32(3*page+10), []byte{0xff, 0xff}, true)
	f.Add(uint32(2*page), []byte{9}, uint32(2*page+8), []byte{1, 0, 0xff, 0xff, 0xff, 0xff}, false)
	f.Add(uint32(4*page+16), bytes.Repeat([]byte{0xff}, 16), uint32(5*page+24), []byte{0, 0, 0, 0}, false)
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, at2 uint32, patch2 []byte, sum bool) {
		bad := bytes.Clone(good)
		copy(bad[int(at)%len(bad):], patch)
		copy(bad[int(at2)%len(bad):], patch2)
		if sum { // as only somebody can who knows how
			for n := range 2 {
				meta := bad[n*page+headerSize:][:metaSize]
				hash := fnv.New64a()
				hash.Write(meta[:metaSize-8])
				binary.NativeEndian.PutUint64(meta[metaSize-8:], hash.Sum64())
			}
		}
		file, err := os.OpenFile(filepath.Join(t.TempDir(), fileName), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.Write(bad); err != nil {
			t.Fatal(err)
		}
		found, err := check(file)
		if err != nil {
			return
		}
		db, err := openDatabase(file)
		if err != nil {
			t.Fatalf("check found %s, and bbolt cannot open it: %v", &found.totals, err)
		}
		defer db.Close()
		if err := db.View(func(tx *bbolt.Tx) error { return counts(t, tx, found) }); err != nil {
			t.Error(err)
		}
	})
}

// counts compares what bbolt reads with what was found.
func counts(t *testing.T, tx *bbolt.Tx, found contents) error {
	for _, b := range found.buckets() {
		bucket := tx.Bucket(b.name)
		if bucket == nil {
			t.Errorf("bbolt finds no bucket %s", b.name)
			continue
		}
		n := uint64(0)
		if err := bucket.ForEach(func(_, _ []byte) error { n++; return nil }); err != nil {
			return err
		}
		if n != *b.count {
			t.Errorf("the bucket %s has %d, and check has counted %d", b.name, n, *b.count)
		}
	}
	return nil
}
