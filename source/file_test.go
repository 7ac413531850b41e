//go:build linux

package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsst-dm/s3daemon/push"
)

// aged makes a file that was written an hour ago, so that whatever is written
// now has another time however coarse the file system's clock is.
func aged(t *testing.T, content []byte) string {
	t.Helper()
	path := write(t, "a", content)
	then := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, then, then); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustOpen(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// writeAt writes into an existing file in place.
func writeAt(path, text string, off int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(text), off)
	return errors.Join(err, f.Close())
}

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(path string) error
		code push.Code // empty where the file counts as unchanged
		says string
	}{
		{"nothing happens", func(string) error { return nil }, "", ""},
		{"it grows", func(p string) error { return writeAt(p, "more", 10) }, push.FileChanged, "10 bytes before, 14 now"},
		{"it grows and its time is set back", func(p string) error {
			info, err := os.Stat(p)
			if err != nil {
				return err
			}
			return errors.Join(writeAt(p, "more", 10), os.Chtimes(p, info.ModTime(), info.ModTime()))
		}, push.FileChanged, "10 bytes before, 14 now"},
		{"it is cut short", func(p string) error { return os.Truncate(p, 3) }, push.FileChanged, "10 bytes before, 3 now"},
		{"it is emptied", func(p string) error { return os.Truncate(p, 0) }, push.FileChanged, "0 now"},
		{"it is rewritten in place", func(p string) error { return writeAt(p, "9876543210", 0) }, push.FileChanged, "changed while"},
		{"one byte is rewritten", func(p string) error { return writeAt(p, "x", 9) }, push.FileChanged, "changed while"},
		{"it grows and is cut back", func(p string) error {
			return errors.Join(writeAt(p, "more", 10), os.Truncate(p, 10))
		}, push.FileChanged, "10 bytes before, 10 now"},

		// The bytes that are read stay what they were.
		{"it is renamed", func(p string) error { return os.Rename(p, p+".sent") }, "", ""},
		{"it is removed", os.Remove, "", ""},
		{"its permissions change", func(p string) error { return os.Chmod(p, 0) }, "", ""},
		{"its directory is renamed", func(p string) error { return os.Rename(filepath.Dir(p), filepath.Dir(p)+".old") }, "", ""},
		{"its directory becomes a file", func(p string) error {
			return errors.Join(os.Rename(filepath.Dir(p), filepath.Dir(p)+".old"), os.WriteFile(filepath.Dir(p), nil, 0o644))
		}, "", ""},
		{"it gets a second name", func(p string) error { return os.Link(p, p+".too") }, "", ""},
		{"a link leads to it", func(p string) error {
			return errors.Join(os.Rename(p, p+".sent"), os.Symlink(p+".sent", p))
		}, "", ""},

		// What the name leads to now, nobody has sent.
		{"another takes its name", func(p string) error {
			return errors.Join(os.WriteFile(p+".new", []byte("another"), 0o644), os.Rename(p+".new", p))
		}, push.FileChanged, "another file took the name"},
		{"another of the same size and time takes its name", func(p string) error {
			info, err := os.Stat(p)
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(p+".new", []byte("0123456789"), 0o644), os.Chtimes(p+".new", info.ModTime(), info.ModTime()), os.Rename(p+".new", p))
		}, push.FileChanged, "another file took the name"},
		{"it is removed and written anew", func(p string) error {
			return errors.Join(os.Remove(p), os.WriteFile(p, []byte("0123456789"), 0o644))
		}, push.FileChanged, "another file took the name"},
		{"a directory takes its name", func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, push.FileChanged, "another file took the name"},
		{"a FIFO takes its name", func(p string) error { return errors.Join(os.Remove(p), unix.Mkfifo(p, 0o600)) }, push.FileChanged, "another file took the name"},
		{"a link to another takes its name", func(p string) error { return errors.Join(os.Remove(p), os.Symlink("/etc/passwd", p)) }, push.FileChanged, "another file took the name"},
		{"a link to itself takes its name", func(p string) error { return errors.Join(os.Remove(p), os.Symlink(p, p)) }, push.FileChanged, "another file took the name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := aged(t, []byte("0123456789"))
			f := mustOpen(t, path)
			if err := tt.do(path); err != nil {
				t.Fatal(err)
			}
			err := f.Check(t.Context())
			if f.Size() != 10 {
				t.Errorf("Size() = %d, want that of the opening, 10", f.Size())
			}
			if tt.code == "" {
				if err != nil {
					t.Errorf("Check: %v", err)
				}
				got, err := io.ReadAll(io.NewSectionReader(f.Reader(t.Context()), 0, f.Size()))
				if err != nil || string(got) != "0123456789" {
					t.Errorf("read %q, %v", got, err)
				}
				return
			}
			var e *push.Error
			if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Detail, tt.says) || !strings.Contains(e.Detail, push.Quote(path)) {
				t.Errorf("Check() = %v, want %s, %q and the path", err, tt.code, tt.says)
			}
		})
	}
}

// TestSame has what tells one state of a file from another.
func TestSame(t *testing.T) {
	is := Identity{Size: 1, ModTime: time.Unix(1, 1), Device: 7, Inode: 3}
	for _, tt := range []struct {
		name  string
		other Identity
		want  bool
	}{
		{"itself, in another time zone", Identity{Size: 1, ModTime: is.ModTime.UTC(), Device: 7, Inode: 3}, true},
		{"longer", Identity{Size: 2, ModTime: is.ModTime, Device: 7, Inode: 3}, false},
		{"written later", Identity{Size: 1, ModTime: is.ModTime.Add(1), Device: 7, Inode: 3}, false},
		{"another inode", Identity{Size: 1, ModTime: is.ModTime, Device: 7, Inode: 4}, false},
		{"another inode, of another mount", Identity{Size: 1, ModTime: is.ModTime, Device: 8, Inode: 4}, true},
	} {
		if is.Same(tt.other) != tt.want || tt.other.Same(is) != tt.want {
			t.Errorf("%s: same %v, want %v", tt.name, !tt.want, tt.want)
		}
	}
}

// TestChangesWhileRead changes a file between two reads of it.
func TestChangesWhileRead(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 100_000)
	for _, tt := range []struct {
		name  string
		do    func(path string) error
		code  push.Code
		whole bool // all that was there can be read
	}{
		{"it grows", func(p string) error { return writeAt(p, "more", int64(len(content))) }, push.FileChanged, true},
		{"it is cut short", func(p string) error { return os.Truncate(p, 600_000) }, push.FileChanged, false},
		{"it is rewritten in place", func(p string) error { return writeAt(p, "98765", 900_000) }, push.FileChanged, true},
		{"another takes its name", func(p string) error {
			return errors.Join(os.WriteFile(p+".new", []byte("another"), 0o644), os.Rename(p+".new", p))
		}, push.FileChanged, true},
		{"it is removed", os.Remove, "", true},
		{"it is renamed", func(p string) error { return os.Rename(p, p+".sent") }, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := aged(t, content)
			f := mustOpen(t, path)
			r := io.NewSectionReader(f.Reader(t.Context()), 0, f.Size())
			if _, err := io.CopyN(io.Discard, r, 500_000); err != nil {
				t.Fatal(err)
			}
			if err := f.Check(t.Context()); err != nil {
				t.Fatalf("before anything happens, Check: %v", err)
			}
			if err := tt.do(path); err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, r)
			if err != nil || (n == 500_000) != tt.whole {
				t.Errorf("%d more bytes can be read, %v", n, err)
			}
			if err := f.Check(t.Context()); tt.code != "" {
				wantCode(t, "Check", err, tt.code)
			} else if err != nil {
				t.Errorf("Check: %v", err)
			}
		})
	}
}

// TestReadError reads from a descriptor that is open for writing only, which
// the system refuses as it refuses to read a broken disk.
func TestReadError(t *testing.T) {
	path := aged(t, []byte("0123456789"))
	writeOnly, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := writeOnly.Stat()
	if err != nil {
		t.Fatal(err)
	}
	f := newFile(anywhere, found{file: writeOnly, on: disk, identity: identityOf(info)}, all.join(path))
	if err := f.Check(t.Context()); err != nil {
		t.Fatalf("before it is read, Check: %v", err)
	}
	if _, err := f.Reader(t.Context()).ReadAt(make([]byte, 1), 0); !errors.Is(err, unix.EBADF) {
		t.Fatalf("ReadAt: %v, want EBADF", err)
	}
	// A later error, and that the file has changed as well, do not hide the first.
	f.Close()
	if _, err := f.Reader(t.Context()).ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("ReadAt: %v, want ErrClosed", err)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	var e *push.Error
	if err := f.Check(t.Context()); !errors.As(err, &e) || e.Code != push.FileUnreadable || !errors.Is(err, unix.EBADF) || !strings.Contains(e.Detail, "bad file descriptor") {
		t.Errorf("Check() = %v, want %s and the first error", err, push.FileUnreadable)
	}
}

// TestReadAtEnd: the end of the file is no read error.
func TestReadAtEnd(t *testing.T) {
	f := mustOpen(t, aged(t, []byte("0123456789")))
	p := make([]byte, 8)
	if n, err := f.Reader(t.Context()).ReadAt(p, 5); n != 5 || err != io.EOF || string(p[:n]) != "56789" {
		t.Errorf("ReadAt = %d, %v: %q", n, err, p[:n])
	}
	if n, err := f.Reader(t.Context()).ReadAt(p, 100); n != 0 || err != io.EOF {
		t.Errorf("ReadAt beyond the end = %d, %v", n, err)
	}
	if err := f.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

func TestCheckClosed(t *testing.T) {
	f := mustOpen(t, aged(t, nil))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var e *push.Error
	if err := f.Check(t.Context()); !errors.As(err, &e) || e.Code != push.FileUnreadable {
		t.Errorf("Check of a closed file = %v, want %s", err, push.FileUnreadable)
	}
}

func TestConcurrentReadAt(t *testing.T) {
	content := make([]byte, 1<<20)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	f := mustOpen(t, aged(t, content))
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Go(func() {
			// Overlapping parts, each from its own reader.
			off := int64(i) * 100_003
			got, err := io.ReadAll(io.NewSectionReader(f.Reader(t.Context()), off, 300_000))
			if want := content[off:min(off+300_000, int64(len(content)))]; err != nil || !bytes.Equal(got, want) {
				t.Errorf("from %d: %d bytes, %v, want the file's %d", off, len(got), err, len(want))
			}
			if err := f.Check(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	readers.Wait()
}

// descriptors counts what this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(open)
}

func TestNoDescriptorLeaks(t *testing.T) {
	dir := t.TempDir()
	good := write(t, "good", []byte("light"))
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	paths := []string{good, link(t, good), dir, fifo, dir + "/none", "/dev/null", link(t, "/proc/self/environ"), link(t, "/dev/zero"), sparse(t, MaxSize+1), "relative"}
	before := descriptors(t)
	for i := range 1000 {
		if f, err := Open(t.Context(), paths[i%len(paths)]); err == nil {
			f.Close()
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestOpenIsConcurrent(t *testing.T) {
	path := write(t, "a", []byte("light"))
	before := descriptors(t)
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			for i := range 20 {
				f, err := Open(t.Context(), path)
				if err != nil {
					t.Error(err)
					return
				}
				if f.Size() != 5 {
					t.Error(fmt.Sprint("open ", i, " has size ", f.Size()))
				}
				f.Close()
			}
		})
	}
	callers.Wait()
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestCloseTwice: the second time does nothing, so the line is that of who has
// the file open still.
func TestCloseTwice(t *testing.T) {
	path := write(t, "f", []byte("light"))
	first, second := mustOpen(t, path), mustOpen(t, path)
	for range 3 {
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	}
	waitForUsers(t, second.line, 1)
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.byPath[path] != second.line {
		t.Error("another would not be on the line of the file that is open")
	}
}

// waitForUsers returns once no more than that many use the line; what closes a
// file leaves it later.
func waitForUsers(t *testing.T, l *line, most int) {
	t.Helper()
	for {
		l.turn <- struct{}{}
		l.all.mu.Lock()
		users := l.users
		l.all.mu.Unlock()
		<-l.turn
		if users <= most {
			if users < most {
				t.Errorf("%d users, want %d", users, most)
			}
			return
		}
	}
}
