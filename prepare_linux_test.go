package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// chownOnly makes this test binary a process that prepares, as root with that
// capability and no other, as the init container of the chart is.
const chownOnly = "S3DAEMON_TEST_CHOWN_ONLY"

// TestPrepareWithChownOnly prepares what was prepared before for others.
func TestPrepareWithChownOnly(t *testing.T) {
	if args := os.Getenv(chownOnly); args != "" {
		keepOnlyChown(t)
		if err := prepareFor(t, strings.Split(args, " ")...); err != nil {
			t.Fatal(err)
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root gives directories away")
	}
	dir := filepath.Join(t.TempDir(), "dir")
	file := filepath.Join(dir, "journal.db")
	for i, p := range []struct{ mode, to, want string }{
		{"0711", "65532:15556", "65532:15556 0711"},
		{"0711", "65532:1001", "65532:1001 0711"}, // another group
		{"0711", "1500:1001", "1500:1001 0711"},   // another user
		{"2710", "1500:1001", "1500:1001 2710"},   // another mode
		{"0700", "1500:1002", "1500:1002 0700"},
		{"0711", "1501:1003", "1501:1003 0711"}, // in which nobody else may look for the mark
	} {
		prepare := exec.Command("/proc/self/exe", "-test.run=^TestPrepareWithChownOnly$")
		prepare.Env = append(os.Environ(), chownOnly+"=-mode "+p.mode+" "+p.to+" "+dir)
		_, group, _ := strings.Cut(p.to, ":")
		var gid uint32
		fmt.Sscan(group, &gid)
		prepare.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 0, Gid: 65532, Groups: []uint32{gid}}}
		out, err := prepare.CombinedOutput()
		if i == 5 {
			if err == nil || !strings.Contains(string(out), "chown 1501:1003") {
				t.Errorf("a directory that is closed to it: %v, %s", err, out)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%v: %v\n%s", p, err, out)
		}
		if got := whose(t, dir); got != p.want {
			t.Errorf("%v: the directory is %s", p, got)
		}
		if i == 0 {
			if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chown(file, 65532, 65532)); err != nil {
				t.Fatal(err)
			}
		}
		user, _, _ := strings.Cut(p.to, ":")
		if got := whose(t, file); got != user+":65532 0600" {
			t.Errorf("%v: the file in it is %s", p, got)
		}
	}
}

// keepOnlyChown gives up the other rights of root.
func keepOnlyChown(t *testing.T) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	data[0].Effective, data[0].Permitted = 1<<unix.CAP_CHOWN, 1<<unix.CAP_CHOWN
	runtime.LockOSThread() // whose rights they are
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
}

// TestPrepareTakesNothingElse: what was not made for a daemon stays as it is, and
// files that may be somebody else's.
func TestPrepareTakesNothingElse(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gives directories away")
	}
	top := t.TempDir()
	dir, file := filepath.Join(top, "dir"), filepath.Join(top, "dir", "file")
	forged := filepath.Join(dir, preparedMark)
	renew := func() {
		t.Helper()
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755), os.WriteFile(file, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		is   func() error
		want string // nothing: it stays as it is
	}{
		"root's, with something in it":  {func() error { return nil }, ""},
		"the owner's before":            {func() error { return os.Chown(dir, 65532, 0) }, "65532:15556 0711"},
		"of its own file system, empty": {func() error { return os.Rename(file, filepath.Join(dir, "lost+found")) }, "65532:15556 0711"},
		"marked by somebody else": {func() error {
			return errors.Join(os.WriteFile(forged, []byte("0\n"), 0o644), os.Chown(forged, 1000, 0), os.Chown(dir, 1000, 0))
		}, ""},
		"marked by a link to what is ours": {func() error { return errors.Join(os.Symlink(file, forged), os.Chown(dir, 1000, 0)) }, ""},
		"marked by another name of what is ours": {func() error {
			return errors.Join(os.Link(file, forged), os.Chown(dir, 1000, 0))
		}, ""},
	} {
		renew()
		if err := c.is(); err != nil {
			t.Fatal(err)
		}
		was := whose(t, dir)
		err := prepareFor(t, "-mode", "0711", "65532:15556", dir)
		switch got := whose(t, dir); {
		case c.want == "" && (err == nil || got != was || !strings.Contains(err.Error(), dir)):
			t.Errorf("%s: it was %s and is %s, %v", name, was, got, err)
		case c.want != "" && (err != nil || got != c.want):
			t.Errorf("%s: it was %s and is %s, %v", name, was, got, err)
		}
	}

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := prepareFor(t, "1000:1000", dir); err != nil {
		t.Fatal(err)
	}
	outside, linked, link := filepath.Join(top, "outside"), filepath.Join(dir, "linked"), filepath.Join(dir, "link")
	others := filepath.Join(dir, "others")
	err := errors.Join(os.WriteFile(outside, nil, 0o600), os.Chown(outside, 1000, 1000), os.Symlink(outside, link), os.WriteFile(others, nil, 0o600),
		os.WriteFile(file, nil, 0o600), os.Link(file, linked), os.Chown(file, 1000, 1000), os.Mkdir(filepath.Join(dir, "below"), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	if err := prepareFor(t, "2000:1000", dir); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{outside: "1000:1000 0600", file: "1000:1000 0600", others: "0:0 0600", dir: "2000:1000 0755"} {
		if got := whose(t, path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}
