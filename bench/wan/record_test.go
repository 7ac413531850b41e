//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRecord checks that a run undoes what it has changed, and, where it was
// killed, the next one does.
func TestRecord(t *testing.T) {
	dir := t.TempDir()
	path, variable := filepath.Join(dir, "record"), filepath.Join(dir, "variable")
	if err := os.WriteFile(variable, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, killed := range []bool{false, true} {
		r := open(t, path, io.Discard)
		made, err := r.makeDir(dir)
		if err := errors.Join(err, r.set(variable, "2"), r.set(variable, "3")); err != nil {
			t.Fatal(err)
		}
		if got := read(t, variable); got != "3" {
			t.Errorf("it was set to %q", got)
		}
		var told bytes.Buffer
		if killed {
			r.file.Close() // as the kernel does it
			r = open(t, path, &told)
		}
		if err := r.close(); err != nil {
			t.Error(err)
		}
		if strings.Contains(told.String(), "was killed") != killed {
			t.Errorf("killed %v: %q", killed, &told)
		}
		if got := read(t, variable); got != "1\n" {
			t.Errorf("killed %v: it was set back to %q", killed, got)
		}
		if _, err := os.Stat(made); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("killed %v: the directory is there: %v", killed, err)
		}
		if left := read(t, path); left != "" {
			t.Errorf("killed %v: the record has %q", killed, left)
		}
	}
}

func TestOneRunAtATime(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "record")
	r := open(t, path, io.Discard)
	made, err := r.makeDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openRecord(path, io.Discard); err == nil || !strings.Contains(err.Error(), "another run") {
		t.Errorf("the second: %v", err)
	}
	if _, err := os.Stat(made); err != nil {
		t.Errorf("what the first has made: %v", err)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
	if err := open(t, path, io.Discard).close(); err != nil {
		t.Error(err)
	}
}

// TestWhatCannotBeUndone checks that the record keeps it.
func TestWhatCannotBeUndone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record")
	const line = `{"variable":"/proc/no/such","before":"1"}` + "\n"
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openRecord(path, io.Discard); err == nil || !strings.Contains(err.Error(), path) || read(t, path) != line {
		t.Errorf("%v, and it has %q", err, read(t, path))
	}
}

func open(t *testing.T, path string, progress io.Writer) *record {
	t.Helper()
	r, err := openRecord(path, progress)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
