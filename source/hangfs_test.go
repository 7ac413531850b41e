//go:build linux

package source

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// hangFSDir has the binary of the file system that hangs. TestMain removes it.
var hangFSDir string

// buildHangFS builds it, once.
var buildHangFS = sync.OnceValues(func() (binary string, err error) {
	if hangFSDir, err = os.MkdirTemp("", "hangfs-"); err != nil {
		return "", err
	}
	binary = filepath.Join(hangFSDir, "hangfs")
	out, err := exec.Command("go", "build", "-o", binary, "../internal/hangfs").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build hangfs: %w\n%s", err, out)
	}
	return binary, err
})

// hangFS is a file system that hangs when it is told to.
type hangFS struct {
	t     *testing.T
	dir   string // what lies here
	at    string // shows here
	in    io.WriteCloser
	lines *bufio.Scanner
}

func startHangFS(t *testing.T) *hangFS {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		t.Skip("a file system of the test's own needs root and /dev/fuse")
	}
	binary, err := buildHangFS()
	if err != nil {
		t.Fatal(err)
	}
	h := &hangFS{t: t, dir: t.TempDir(), at: t.TempDir()}
	cmd := exec.Command(binary, h.dir, h.at)
	cmd.Stderr = os.Stderr
	// Killed with the tests, since these cannot end while their threads hang.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if h.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.lines = bufio.NewScanner(out)
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

// tell gives a command, and returns the answer.
func (h *hangFS) tell(format string, args ...any) string {
	h.t.Helper()
	fmt.Fprintf(h.in, format+"\n", args...)
	if !h.lines.Scan() {
		h.t.Fatalf("hangfs has ended, when told %q", fmt.Sprintf(format, args...))
	}
	return h.lines.Text()
}

// held returns how many requests have no answer.
func (h *hangFS) held() int {
	h.t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(h.tell("held")))
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// write makes a file, and returns the path that it shows at.
func (h *hangFS) write(name string, content []byte) string {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), content, 0o644); err != nil {
		h.t.Fatal(err)
	}
	return filepath.Join(h.at, name)
}
