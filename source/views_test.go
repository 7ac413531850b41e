//go:build linux

package source

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lsst-dm/s3daemon/push"
)

// TestOpenThroughMagicLinks has links that lead through a process: what stands
// at their end is an ordinary file, but the daemon's, not the caller's.
func TestOpenThroughMagicLinks(t *testing.T) {
	own, err := os.Open(write(t, "a", []byte("light")))
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	for _, target := range []string{"/proc/self/exe", "/proc/self/root/etc/passwd", "/proc/self/cwd/source.go", "/proc/self/fd/0", "/dev/fd/0", "/dev/stdin"} {
		_, err := Open(t.Context(), link(t, target))
		var e *push.Error
		if !errors.As(err, &e) || e.Code != push.FileNotAllowed {
			t.Errorf("a link to %s: %v", target, err)
		}
	}
}

// inMounts runs f in a mount namespace of its own, where it may mount.
func inMounts(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread and its namespace end with the goroutine.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Skipf("a mount namespace: %v", err)
	}
}

// TestOpenMountedElsewhere mounts proc and sysfs as containers do under /host.
func TestOpenMountedElsewhere(t *testing.T) {
	dir := t.TempDir()
	inMounts(t, func() {
		for kind, file := range map[string]string{"proc": "self/environ", "sysfs": "kernel/mm/transparent_hugepage/enabled"} {
			at := filepath.Join(dir, kind)
			if err := errors.Join(os.Mkdir(at, 0o755), unix.Mount("none", at, kind, 0, "")); err != nil {
				t.Errorf("mount %s: %v", kind, err)
				continue
			}
			err := look(filepath.Join(at, file)).err // not Open, which would do so in another thread
			var e *push.Error
			if !errors.As(err, &e) || e.Code != push.FileNotAllowed && e.Code != push.FileNotFound || e.Code == push.FileNotFound && kind == "proc" {
				t.Errorf("%s mounted elsewhere: %v", kind, err)
			}
		}
	})
}

// TestOpenWithoutProc takes /proc away, as a bare chroot has none.
func TestOpenWithoutProc(t *testing.T) {
	path := write(t, "a", []byte("light"))
	inMounts(t, func() {
		if err := unix.Mount("none", "/proc", "tmpfs", 0, ""); err != nil {
			t.Error(err)
			return
		}
		err := look(path).err
		var e *push.Error
		if !errors.As(err, &e) || e.Code != push.Internal || !strings.Contains(e.Detail, "/proc") {
			t.Errorf("without /proc: %v", err)
		}
	})
}
