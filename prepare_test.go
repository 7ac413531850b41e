package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// whose returns a directory's owner and mode.
func whose(t *testing.T, path string) string {
	t.Helper()
	var is syscall.Stat_t
	if err := syscall.Lstat(path, &is); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d %04o", is.Uid, is.Gid, is.Mode&0o7777)
}

// anOwner returns somebody to whom this process may give a directory, and who is
// not itself where it may.
func anOwner() string {
	if os.Getuid() == 0 {
		return "65532:65533"
	}
	return fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
}

func prepareFor(t *testing.T, args ...string) error {
	t.Helper()
	return run(t.Context(), append([]string{"prepare"}, args...), io.Discard, io.Discard)
}

func TestPrepare(t *testing.T) {
	top := t.TempDir()
	own := whose(t, top)
	to := anOwner()
	a, b := filepath.Join(top, "above", "a"), filepath.Join(top, "b")
	for range 2 { // the second time all is done
		if err := prepareFor(t, to, a, b+"/"); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{a, b} {
		if got := whose(t, dir); got != to+" 0755" {
			t.Errorf("%s is %s", dir, got)
		}
	}
	if got := whose(t, filepath.Dir(a)); !strings.HasPrefix(got, fmt.Sprintf("%d:", os.Getuid())) {
		t.Errorf("the directory above is %s", got)
	}
	if got := whose(t, top); got != own {
		t.Errorf("the directory that was there is %s, and was %s", got, own)
	}
}

// TestPrepareWhatIsThere: an empty directory keeps its mode unless one is named,
// and what others put into it its owner.
func TestPrepareWhatIsThere(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := prepareFor(t, anOwner(), dir); err != nil {
		t.Fatal(err)
	}
	if got := whose(t, dir); got != anOwner()+" 0750" {
		t.Errorf("without a mode it is %s", got)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	owned := whose(t, file)
	if err := prepareFor(t, "-mode", "2775", anOwner(), dir); err != nil {
		t.Fatal(err)
	}
	if got := whose(t, dir); got != anOwner()+" 2775" {
		t.Errorf("with a mode it is %s", got)
	}
	if got := whose(t, file); got != owned {
		t.Errorf("what is in it is %s, and was %s", got, owned)
	}
}

// TestPrepareNoLink: a link, with a slash behind it too, and a file give nothing
// away, and do not keep other directories from being prepared.
func TestPrepareNoLink(t *testing.T) {
	top := t.TempDir()
	target, link, file, other := filepath.Join(top, "target"), filepath.Join(top, "link"), filepath.Join(top, "file"), filepath.Join(top, "other")
	if err := errors.Join(os.Mkdir(target, 0o700), os.Symlink(target, link), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	was := whose(t, target)
	for _, bad := range []string{link, link + "/", file, file + "/below"} {
		err := prepareFor(t, "-mode", "0777", anOwner(), bad, other)
		if err == nil || exitStatus(err) != 1 || !strings.Contains(err.Error(), top) {
			t.Errorf("%s: %v", bad, err)
		}
		if isLink := strings.HasPrefix(bad, link); err != nil && isLink != strings.Contains(err.Error(), link+" is a link") {
			t.Errorf("%s: %v", bad, err)
		}
		if got := whose(t, target); got != was {
			t.Errorf("by %s the target is %s, and was %s", bad, got, was)
		}
		if got := whose(t, other); got != anOwner()+" 0777" {
			t.Errorf("beside %s the other directory is %s", bad, got)
		}
		if err := os.RemoveAll(other); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPrepareMistakes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	for _, args := range [][]string{
		{}, {"1:1"}, {"1", dir}, {"1:", dir}, {":1", dir}, {"root:root", dir}, {"-1:1", dir}, {"4294967295:1", dir}, {"1:1:1", dir},
		{"-mode", "0888", "1:1", dir}, {"-mode", "17777", "1:1", dir}, {"-mode", "u+w", "1:1", dir}, {"-recursive", "1:1", dir},
		{dir}, {dir, dir}, {"1:1", "-mode", "0755", dir}, {"1:1", dir, "-mode", "0755"}, {"-mode", "0755", "--", "1:1", dir, "--"},
	} {
		if err := prepareFor(t, args...); exitStatus(err) != 2 {
			t.Errorf("%q: %v", args, err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a mistake left a directory: %v", err)
	}
	if err := prepareFor(t, anOwner(), ""); err == nil {
		t.Error("a DIR without a name was prepared")
	}
}
