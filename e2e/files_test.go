package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// makeFile makes a file in the test's own directory. Its bytes are random to
// look at, and decided by its name and size.
func makeFile(t testing.TB, name string, size int64) string {
	t.Helper()
	return makeFileIn(t, t.TempDir(), name, size)
}

// makeFileIn is makeFile in a directory that the test knows, and may remove.
func makeFileIn(t testing.TB, dir, name string, size int64) string {
	t.Helper()
	path := filepath.Join(dir, name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, randomBytes(name, size), size); err != nil {
		t.Fatal(err)
	}
	return path
}

// sparseFile makes a file that is one hole but for a block of random bytes
// every 100 MB and one at its end, so that parts that change places show.
func sparseFile(t testing.TB, name string, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const block, every = 4096, 100_000_000
	put := func(at int64) {
		if _, err := io.CopyN(io.NewOffsetWriter(f, at), randomBytes(name, at), block); err != nil {
			t.Fatal(err)
		}
	}
	for at := int64(0); at+block < size; at += every {
		put(at)
	}
	put(size - block)
	return path
}

// randomBytes returns an endless stream that its seed decides.
func randomBytes(name string, number int64) io.Reader {
	return rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%s/%d", name, number)))
}

// needDisk skips the test unless the store's disk has that many bytes free.
func needDisk(t testing.TB, bytes int64) {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(tempDir, &fs); err != nil {
		t.Fatal(err)
	}
	if free := int64(fs.Bavail) * int64(fs.Bsize); free < bytes {
		t.Skipf("%s has %d MB free; this needs %d (TMPDIR names another place)", tempDir, free/1e6, bytes/1e6)
	}
}
