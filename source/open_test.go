//go:build linux

package source

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/lsst-dm/s3daemon/push"
)

// write makes a file and returns its path.
func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// link makes a symbolic link and returns its path.
func link(t *testing.T, target string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// node makes a node of the kind, a device's with its number. Where that is not
// allowed the test is skipped.
func node(t *testing.T, kind uint32, device uint64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "node")
	if err := unix.Mknod(path, kind|0o600, int(device)); err != nil {
		t.Skipf("mknod: %v", err)
	}
	return path
}

func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s3d") // a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// sysFile returns a regular file of /sys.
func sysFile(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/sys/kernel/*")
	for _, path := range found {
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	t.Skip("this system has no file in /sys/kernel")
	return ""
}

func sparse(t *testing.T, size int64) string {
	t.Helper()
	path := write(t, "sparse", nil)
	if err := os.Truncate(path, size); err != nil {
		t.Skipf("this file system has no files of %d bytes: %v", size, err)
	}
	return path
}

// openSoon opens the path and fails the test if that blocks.
func openSoon(t *testing.T, path string) (*File, error) {
	t.Helper()
	type result struct {
		file *File
		err  error
	}
	opened := make(chan result, 1)
	go func() {
		f, err := Open(t.Context(), path)
		opened <- result{f, err}
	}()
	select {
	case r := <-opened:
		return r.file, r.err
	case <-time.After(10 * time.Second):
		t.Fatalf("Open(%q) blocks", path)
		return nil, nil
	}
}

func TestOpen(t *testing.T) {
	for _, tt := range []struct {
		name string
		path func(*testing.T) string
		size int64
	}{
		{"regular file", func(t *testing.T) string { return write(t, "a.fits", []byte("light")) }, 5},
		{"empty file", func(t *testing.T) string { return write(t, "empty", nil) }, 0},
		{"spaces", func(t *testing.T) string { return write(t, " first  light ", []byte("light")) }, 5},
		{"UTF-8", func(t *testing.T) string { return write(t, "Größe🔭", []byte("light")) }, 5},
		{"not UTF-8", func(t *testing.T) string { return write(t, "gr\xf6sse", []byte("light")) }, 5},
		{"longest name", func(t *testing.T) string { return write(t, strings.Repeat("n", 255), []byte("light")) }, 5},
		{"link", func(t *testing.T) string { return link(t, write(t, "a", []byte("light"))) }, 5},
		{"link to a link", func(t *testing.T) string { return link(t, link(t, write(t, "a", []byte("light")))) }, 5},
		{"link to its directory", func(t *testing.T) string {
			path := write(t, "a", []byte("light"))
			return link(t, filepath.Dir(path)) + "/a"
		}, 5},
		{"path with .. and //", func(t *testing.T) string {
			path := write(t, "a", []byte("light"))
			dir, base := filepath.Split(path)
			return dir + "/.//../" + filepath.Base(dir) + "/" + base
		}, 5},
		{"names that only begin like forbidden ones", func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "proc", "self", "environ")
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("light"), 0o644); err != nil {
				t.Fatal(err)
			}
			return path
		}, 5},
		{"5 TiB", func(t *testing.T) string { return sparse(t, MaxSize) }, MaxSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := tt.path(t)
			f, err := openSoon(t, path)
			if err != nil {
				t.Fatalf("Open(%q): %v", path, err)
			}
			defer f.Close()
			if f.Size() != tt.size {
				t.Errorf("Size() = %d, want %d", f.Size(), tt.size)
			}
			if tt.size == 5 {
				var got [5]byte
				if n, err := f.Reader(t.Context()).ReadAt(got[:], 0); n != 5 || string(got[:]) != "light" {
					t.Errorf("ReadAt = %d, %v: %q", n, err, got)
				}
			}
			if err := f.Check(t.Context()); err != nil {
				t.Errorf("Check: %v", err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	is := func(path string) func(*testing.T) string { return func(*testing.T) string { return path } }
	for _, tt := range []struct {
		name string
		path func(*testing.T) string
		code push.Code
		says string
	}{
		{"no such file", func(t *testing.T) string { return t.TempDir() + "/none" }, push.FileNotFound, "no file"},
		{"no such directory", func(t *testing.T) string { return t.TempDir() + "/none/a" }, push.FileNotFound, "no file"},
		{"beneath a file", func(t *testing.T) string { return write(t, "a", nil) + "/b" }, push.FileNotFound, "no file"},
		{"file with a slash after it", func(t *testing.T) string { return write(t, "a", nil) + "/" }, push.FileNotFound, "no file"},
		{"dangling link", func(t *testing.T) string { return link(t, t.TempDir()+"/none") }, push.FileNotFound, "leads nowhere"},
		{"link loop", func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "loop")
			if err := os.Symlink(path, path); err != nil {
				t.Fatal(err)
			}
			return path
		}, push.InvalidFile, "symbolic links"},

		{"directory", func(t *testing.T) string { return t.TempDir() }, push.FileNotRegular, "is a directory"},
		{"root", is("/"), push.FileNotRegular, "is a directory"},
		{"link to a directory", func(t *testing.T) string { return link(t, t.TempDir()) }, push.FileNotRegular, "is a directory"},
		{"FIFO", func(t *testing.T) string { return node(t, unix.S_IFIFO, 0) }, push.FileNotRegular, "is a FIFO"},
		{"link to a FIFO", func(t *testing.T) string { return link(t, node(t, unix.S_IFIFO, 0)) }, push.FileNotRegular, "is a FIFO"},
		{"socket", socket, push.FileNotRegular, "is a socket"},
		{"character device", func(t *testing.T) string { return node(t, unix.S_IFCHR, unix.Mkdev(1, 3)) }, push.FileNotRegular, "is a device"},
		{"block device", func(t *testing.T) string { return node(t, unix.S_IFBLK, unix.Mkdev(7, 0)) }, push.FileNotRegular, "is a device"},
		{"device that is not there", func(t *testing.T) string { return node(t, unix.S_IFCHR, unix.Mkdev(240, 77)) }, push.FileNotRegular, "is a device"},

		{"/dev", is("/dev"), push.FileNotAllowed, "in /dev"},
		{"/dev/null", is("/dev/null"), push.FileNotAllowed, "in /dev"},
		{"/dev/zero", is("/dev/zero"), push.FileNotAllowed, "in /dev"},
		{"/dev/stdin", is("/dev/stdin"), push.FileNotAllowed, "in /dev"},
		{"link to /dev/zero", func(t *testing.T) string { return link(t, "/dev/zero") }, push.FileNotAllowed, "in /dev"},
		{"/proc", is("/proc/"), push.FileNotAllowed, "in /proc"},
		{"/proc/self/environ", is("/proc/self/environ"), push.FileNotAllowed, "in /proc"},
		{"/proc with slashes", is("//proc///self/environ"), push.FileNotAllowed, "in /proc"},
		{"no such file in /proc", is("/proc/none"), push.FileNotAllowed, "in /proc"},
		{"descriptor", is("/proc/self/fd/0"), push.FileNotAllowed, "in /proc"},
		{"link to /proc/self/environ", func(t *testing.T) string { return link(t, "/proc/self/environ") }, push.FileNotAllowed, "in /proc"},
		{"link to a link to it", func(t *testing.T) string { return link(t, link(t, "/proc/self/environ")) }, push.FileNotAllowed, "in /proc"},
		{"link to /proc and on", func(t *testing.T) string { return link(t, "/proc") + "/self/environ" }, push.FileNotAllowed, "in /proc"},
		{"link to / and on", func(t *testing.T) string { return link(t, "/") + "/proc/self/environ" }, push.FileNotAllowed, "in /proc"},
		{".. into /proc", func(t *testing.T) string {
			dir := t.TempDir()
			return dir + strings.Repeat("/..", strings.Count(dir, "/")) + "/proc/self/environ"
		}, push.FileNotAllowed, "in /proc"},
		{".. beyond the root into /proc", func(t *testing.T) string {
			return t.TempDir() + strings.Repeat("/..", 100) + "/proc/self/environ"
		}, push.FileNotAllowed, "in /proc"},
		{"relative link into /proc", func(t *testing.T) string {
			return link(t, strings.Repeat("../", 100)+"proc/self/environ")
		}, push.FileNotAllowed, "in /proc"},
		{"/sys", is("/sys/kernel/notes"), push.FileNotAllowed, "in /sys"},
		{"link into /sys", func(t *testing.T) string { return link(t, sysFile(t)) }, push.FileNotAllowed, "in /sys"},

		{"over 5 TiB", func(t *testing.T) string { return sparse(t, MaxSize+1) }, push.FileTooLarge, "5497558138881 bytes"},
		{"name too long", func(t *testing.T) string { return t.TempDir() + "/" + strings.Repeat("n", 256) }, push.InvalidFile, "too long"},
		{"path as long as none can be", is(strings.Repeat("/n", push.MaxPathBytes/2)), push.InvalidFile, "too long"},
		{"path that is longer still", is("/" + strings.Repeat("n", push.MaxPathBytes)), push.InvalidFile, "4097 bytes"},
		{"empty path", is(""), push.InvalidFile, "absolute"},
		{"relative path", is("open_test.go"), push.InvalidFile, "absolute"},
		{"NUL", is("/etc/hosts\x00.fits"), push.InvalidFile, "control character"},
		{"newline", is("/etc/hosts\n"), push.InvalidFile, "control character"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := tt.path(t)
			f, err := openSoon(t, path)
			if err == nil {
				f.Close()
				t.Fatalf("Open(%q) opened it", path)
			}
			var e *push.Error
			if !errors.As(err, &e) || e.Code != tt.code {
				t.Fatalf("Open(%q) = %#v, want the code %s", path, err, tt.code)
			}
			if !strings.Contains(e.Detail, tt.says) || !strings.Contains(e.Detail, push.Quote(path)) {
				t.Errorf("the detail is %q, want %q and the path in it", e.Detail, tt.says)
			}
			if strings.ContainsFunc(e.Detail, unicode.IsControl) {
				t.Errorf("the detail %q is not one line", e.Detail)
			}
		})
	}
}

// TestExplain has errors of file systems that a test has no way to make.
func TestExplain(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code push.Code
		says string
	}{
		{unix.EIO, push.FileUnreadable, "input/output error"},
		{unix.ESTALE, push.FileUnreadable, "stale"},
		{unix.EPERM, push.FileUnreadable, "may not read"},
		{unix.ENFILE, push.Internal, "too many files"},
		{errors.New("odd"), push.FileUnreadable, "odd"},
	} {
		for _, err := range []error{tt.err, &os.PathError{Op: "read", Path: "/elsewhere", Err: tt.err}} {
			var e *push.Error
			if got := explain("/data/a", err); !errors.As(got, &e) || e.Code != tt.code || !strings.Contains(e.Detail, tt.says) {
				t.Errorf("explain(%v) = %q, want %s and %q", err, got, tt.code, tt.says)
			} else if !errors.Is(e, tt.err) {
				t.Errorf("explain(%v) lost its cause", err)
			}
		}
	}
	known := push.Errorf(push.FileTooLarge, "large")
	if got := explain("/data/a", known); got != error(known) {
		t.Errorf("explain changed an explained error to %v", got)
	}
}

// TestUntouched: whoever sets the modification time back is noticed, whichever
// way the file was opened; that somebody reads it is not.
func TestUntouched(t *testing.T) {
	path := write(t, "a", []byte("light"))
	identity := func() Identity {
		f, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if is := look(path); is.err != nil || is.identity != f.identity {
			t.Errorf("looked at it is %+v, %v; opened it was %+v", is.identity, is.err, f.identity)
		} else {
			is.close()
		}
		return f.identity
	}
	before := identity()
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if is := identity(); before.ChangedAt.IsZero() || !is.Untouched(before) {
		t.Errorf("once read it is %+v, was %+v", is, before)
	}
	after := before
	for after.ChangedAt.Equal(before.ChangedAt) { // until the kernel's clock has ticked
		if err := errors.Join(writeAt(path, "night", 0), os.Chtimes(path, time.Time{}, before.ModTime)); err != nil {
			t.Fatal(err)
		}
		after = identity()
	}
	if !after.Same(before) || after.Untouched(before) || before.Untouched(after) {
		t.Errorf("rewritten it is %+v, was %+v", after, before)
	}
	after.ChangedAt = time.Time{}
	if !after.Untouched(before) || !before.Untouched(after) {
		t.Error("a time that is not known counts")
	}
}
