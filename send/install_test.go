package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestInstall has several copies made at once, over one that is there already and
// cannot be written; each that can be seen is whole, and runs.
func TestInstall(t *testing.T) {
	dir := t.TempDir()
	installed := filepath.Join(dir, "send")
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if got := finish(t, command(t, nil, "-install", dir)); got != (outcome{}) {
				t.Error(got)
			}
			cmd := command(t, nil, "-version")
			cmd.Path = installed
			if got := finish(t, cmd); got != (outcome{0, "send dev\n", ""}) {
				t.Error(got)
			}
		})
	}
	all.Wait()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left there: %v, %v", entries, err)
	}
	if is, err := os.Stat(installed); err != nil || is.Mode() != 0o555 {
		t.Errorf("installed as %v, %v", is.Mode(), err)
	}
}

// TestInstallFails leaves what was there.
func TestInstallFails(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	if got := finish(t, command(t, nil, "-install", missing)); got.status != 1 || !strings.Contains(got.stderr, missing) {
		t.Error(got)
	}
	dir := t.TempDir()
	inTheWay := filepath.Join(dir, "send", "a-directory-with-something-in-it")
	if err := os.MkdirAll(inTheWay, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := finish(t, command(t, nil, "-install", dir)); got.status != 1 {
		t.Error(got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left there: %v, %v", entries, err)
	}
	if got := finish(t, command(t, nil, "-install", "")); got != (outcome{1, "", "send: install: DIR is empty: give the directory to copy send into\n"}) {
		t.Error(got)
	}
	for _, args := range [][]string{{"-install"}, {"-install", dir, dir}} {
		if got := finish(t, command(t, nil, args...)); got.status != 1 || !strings.HasPrefix(got.stderr, "usage:") {
			t.Errorf("%q: %v", args, got)
		}
	}
}
