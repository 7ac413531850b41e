//go:build linux

package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsst-dm/s3daemon/push"
)

// The test binary is its own helper: with these set it opens one file and
// reports, instead of testing.
const (
	openVariable  = "SOURCE_TEST_OPEN"  // the path to open
	rootsVariable = "SOURCE_TEST_ROOTS" // the roots, separated by commas; empty: none
	limitVariable = "SOURCE_TEST_LIMIT" // how many descriptors may still be opened; empty for the usual limit
)

// anywhere has no rules; these are its methods.
var (
	anywhere   = New(Rules{})
	Open       = anywhere.Open
	look       = anywhere.look
	openCached = anywhere.openCached
)

func TestMain(m *testing.M) {
	path, helping := os.LookupEnv(openVariable)
	if !helping {
		code := m.Run()
		os.RemoveAll(hangFSDir)
		os.Exit(code)
	}
	if more := os.Getenv(limitVariable); more != "" {
		if err := limitDescriptors(more); err != nil {
			fmt.Println("limit:", err)
			os.Exit(1)
		}
	}
	rules := Rules{}
	if roots := os.Getenv(rootsVariable); roots != "" {
		rules.Roots = strings.Split(roots, ",")
	}
	f, err := New(rules).Open(context.Background(), path)
	var e *push.Error
	switch {
	case err == nil:
		fmt.Println("opened", f.Size())
	case errors.As(err, &e):
		fmt.Println(e.Code, e.Detail)
	default:
		fmt.Printf("%T %v\n", err, err)
	}
}

// limitDescriptors lets the process open that many more.
func limitDescriptors(more string) error {
	time.Sleep(time.Nanosecond) // the runtime opens what it needs for its first timer, as a daemon's has long since
	n, err := strconv.Atoi(more)
	if err != nil {
		return err
	}
	// The lowest free descriptor: those below it are taken.
	free, err := unix.Dup(0)
	if err != nil {
		return err
	}
	unix.Close(free)
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free + n), Max: uint64(free + n)})
}

// nobody is a user without privileges.
const nobody = 65534

// helper runs the helper, as nobody if this process is root, and returns what
// it prints.
func helper(t *testing.T, path string, env ...string) string {
	t.Helper()
	// /proc/self/exe leads there even where nobody may not look into the
	// directory that the binary was built in.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), append(env, openVariable+"="+path, "GORACE=atexit_sleep_ms=0")...)
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helper: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestOpenUnprivileged opens files as a user who may not read everything.
func TestOpenUnprivileged(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	create := func(name string, mode, dirMode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("light"), 0o600),
			os.Chmod(path, mode), os.Chmod(filepath.Dir(path), dirMode)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(filepath.Dir(path), 0o700) }) // to be removed
		return path
	}
	uid := os.Geteuid()
	if uid == 0 {
		uid = nobody
	}
	refusal := func(path string) string {
		return fmt.Sprintf("%s the daemon, which runs as user %d, may not read the file %s", push.FileUnreadable, uid, push.Quote(path))
	}
	readable := create("a/readable", 0o444, 0o755)
	unreadable := create("b/unreadable", 0o222, 0o755)
	hidden := create("c/hidden", 0o444, 0o600)
	unlisted := create("d/unlisted", 0o444, 0o311)
	for _, tt := range []struct{ name, path, want string }{
		{"readable", readable, "opened 5"},
		{"unreadable file", unreadable, refusal(unreadable)},
		{"directory that may not be entered", hidden, refusal(hidden)},
		{"directory that may be entered but not listed", unlisted, "opened 5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := helper(t, tt.path); !strings.HasPrefix(got, tt.want) {
				t.Errorf("Open(%q) says %q, want %q", tt.path, got, tt.want)
			}
		})
	}
}

// TestOpenOutOfDescriptors: that the daemon has none left is not the caller's
// fault. Open needs two for a moment.
func TestOpenOutOfDescriptors(t *testing.T) {
	path := write(t, "a", []byte("light"))
	for _, d := range []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ left, want string }{
		{"0", string(push.Internal) + " the daemon has too many files open"},
		{"1", string(push.Internal) + " the daemon has too many files open"},
		{"2", "opened 5"},
	} {
		if got := helper(t, path, limitVariable+"="+tt.left); !strings.HasPrefix(got, tt.want) {
			t.Errorf("with %s descriptors left Open says %q, want %q", tt.left, got, tt.want)
		}
	}
}
