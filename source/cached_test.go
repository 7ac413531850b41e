//go:build linux

package source

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenCached: what is opened without waiting is what is opened else, and
// what is more than a file on a disk that is known is left to the slow way.
func TestOpenCached(t *testing.T) {
	path := write(t, "a", []byte("light"))
	slow := look(path) // which learns what the file is on
	if slow.err != nil {
		t.Fatal(slow.err)
	}
	defer slow.file.Close()
	if slow.on != disk || unix.Major(slow.identity.Device) == 0 {
		t.Skip("the tests' directory is on no disk")
	}
	for _, p := range []string{path, link(t, path), filepath.Dir(path) + "/../" + filepath.Base(filepath.Dir(path)) + "//a"} {
		if fast, ok := openCached(p); ok { // the kernel may have forgotten the path
			if fast.identity != slow.identity && !fast.identity.Same(slow.identity) || fast.on != disk {
				t.Errorf("%s: %+v, want %+v", p, fast, slow)
			}
			if got, err := io.ReadAll(fast.file); string(got) != "light" || err != nil {
				t.Errorf("%s: %q, %v", p, got, err)
			}
			raw, err := fast.file.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			raw.Control(func(fd uintptr) { // not File.Fd, which takes the flag away
				if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
					t.Errorf("%s is open with the flags %#x, %v", p, flags, err)
				}
			})
			fast.file.Close()
		} else {
			t.Logf("%s is not in the kernel's memory", p)
		}
	}
	disks.known.Delete(slow.identity.Device)
	if f, ok := openCached(path); ok {
		f.file.Close()
		t.Error("a file was opened of a device that is not known")
	}
	disks.learn(slow.identity.Device, slow.on)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{fifo, t.TempDir(), path + ".none", "/dev/null", "/proc/self/environ", "/proc/self/exe", link(t, "/proc/self/exe"), sparse(t, MaxSize+1)} {
		if _, err := os.Lstat(p); err == nil || p == path+".none" {
			if f, ok := openCached(p); ok {
				f.file.Close()
				t.Errorf("%s was opened", p)
			}
		}
	}
}

func TestDevices(t *testing.T) {
	var d devices
	block, anonymous := unix.Mkdev(8, 1), unix.Mkdev(0, 57)
	for _, step := range []struct {
		device uint64
		on     kind
		want   bool
	}{
		{block, disk, true},
		{block, remote, false}, // another file system is mounted there now
		{block, disk, true},
		{anonymous, disk, false},
		{unix.Mkdev(8, 2), memory, false},
	} {
		if d.learn(step.device, step.on); d.has(step.device) != step.want {
			t.Errorf("%d, of the kind %d: known %v, want %v", step.device, step.on, !step.want, step.want)
		}
	}
}
