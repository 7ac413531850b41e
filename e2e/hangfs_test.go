package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// hangFS is a file system that hangs when it is told to: internal/hangfs.
type hangFS struct {
	t   testing.TB
	dir string // what lies here
	at  string // shows here

	mu    sync.Mutex // guards what follows
	in    io.WriteCloser
	lines *bufio.Scanner
}

// mountHangFS mounts one. It wakes up at the test's end, before the daemons of
// the test are stopped that are started later: a process whose thread hangs
// cannot end.
func mountHangFS(t testing.TB) *hangFS {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		t.Skip("a file system of the test's own needs root and /dev/fuse")
	}
	h := &hangFS{t: t, dir: t.TempDir(), at: t.TempDir()}
	cmd := exec.Command(binaryPath(t, "hangfs"), h.dir, h.at)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.in, h.lines = in, bufio.NewScanner(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.in.Close()
		cmd.Wait()
	})
	if !h.lines.Scan() {
		t.Skip("the file system could not be mounted")
	}
	return h
}

// tell gives a command; the package comment of internal/hangfs has them.
func (h *hangFS) tell(format string, args ...any) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	fmt.Fprintf(h.in, format+"\n", args...)
	if !h.lines.Scan() {
		h.t.Fatalf("hangfs has ended, when told %q", fmt.Sprintf(format, args...))
	}
}

// makeFile makes a file on it, and returns where it lies and where it shows.
func (h *hangFS) makeFile(name string, size int64) (lies, shows string) {
	h.t.Helper()
	return makeFileIn(h.t, h.dir, name, size), filepath.Join(h.at, name)
}
