package journal

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestTakenAway removes the journal's file from its place while it is open:
// what would be written to it is lost to the next process, so nothing is
// accepted until it is back.
func TestTakenAway(t *testing.T) {
	dir := t.TempDir()
	path, elsewhere := filepath.Join(dir, "journal.db"), filepath.Join(dir, "elsewhere")
	j := open(t, Config{Dir: dir})
	acceptAll(t, j, example(1))
	if err := os.Rename(path, elsewhere); err != nil {
		t.Fatal(err)
	}
	try := func(n int) error {
		result := make(chan error, 1)
		j.Accept(example(n), func(err error) { result <- err })
		return <-result
	}
	if err := try(2); err == nil {
		t.Error("a push is accepted into a file that is gone")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := try(3); err == nil {
		t.Error("a push is accepted while another file is in the journal's place")
	}
	if err := os.Rename(elsewhere, path); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); ; {
		if err := try(4); err == nil {
			break
		} else if time.Since(begun) > 30*time.Second {
			t.Fatal(err)
		}
	}
	n := 0
	if err := j.Queued(func(*Record) error { n++; return nil }); err != nil || n != 2 {
		t.Errorf("%d pushes are queued, %v, want the two that were accepted", n, err)
	}
}
