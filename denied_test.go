package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// deniedDir is set for a process that starts as a daemon with its journal there.
const deniedDir = "S3DAEMON_TEST_DENIED_DIR"

// TestDenied starts a daemon whose journal is another user's, and reads what is
// to be done from its error.
func TestDenied(t *testing.T) {
	if dir := os.Getenv(deniedDir); dir != "" {
		setEnvironment(t, "S3DAEMON_DATA_DIR="+dir, "S3DAEMON_LISTEN=127.0.0.1:0")
		t.Logf("%v", run(t.Context(), nil, io.Discard, io.Discard))
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can start a daemon as another user")
	}
	top, err := os.MkdirTemp("", "denied")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	shut, others := filepath.Join(top, "shut"), filepath.Join(top, "others")
	journal := filepath.Join(others, "journal.db")
	err = errors.Join(os.Chmod(top, 0o755), os.Mkdir(shut, 0o700), os.Mkdir(others, 0o755), os.Chown(others, 65534, 0),
		os.WriteFile(journal, nil, 0o600), os.Chown(journal, 1000, 1001))
	if err != nil {
		t.Fatal(err)
	}
	for dir, says := range map[string]string{
		shut:                       shut + " is 0:0 with mode drwx------",
		filepath.Join(top, "none"): top + " is 0:0 with mode drwxr-xr-x",
		others:                     others + " is 65534:0 with mode drwxr-xr-x, " + journal + " is 1000:1001 with mode -rw-------",
	} {
		daemon := exec.Command("/proc/self/exe", "-test.run=^TestDenied$", "-test.v")
		daemon.Env = append(os.Environ(), deniedDir+"="+dir)
		daemon.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65533}}
		out, err := daemon.CombinedOutput()
		want := "permission denied: the daemon is the user and group 65534:65533, " + says + ": give"
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%v, no %q in\n%s", err, want, out)
		}
	}
}
