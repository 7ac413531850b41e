package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"
)

func TestOpenMakesTheDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	j := open(t, Config{Dir: dir})
	for path, want := range map[string]fs.FileMode{
		filepath.Dir(dir): fs.ModeDir | 0o700,
		dir:               fs.ModeDir | 0o700,
		j.path():          0o600,
	} {
		info, err := os.Stat(path)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v", entries, err)
	}
	if j.MovedAside() != "" {
		t.Error("something was moved aside where there was nothing")
	}
}

func TestOpenOfANewerJournal(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	acceptAll(t, j, example(1))
	err := j.db.Update(func(tx *bbolt.Tx) error {
		// Whatever else is new in it is no reason to call it damaged.
		_, err := tx.CreateBucket([]byte("something new"))
		return errors.Join(err,
			tx.Bucket(nameQueue).Put([]byte("x"), []byte("y")),
			putNumbers(tx.Bucket(nameMeta), metaVersion, version+1))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(j.path())
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), Config{Dir: dir})
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), fmt.Sprint("format is ", version+1)) {
		t.Errorf("Open: %v", err)
	}
	after, err := os.ReadFile(j.path())
	if err != nil || string(before) != string(after) {
		t.Errorf("the file has changed, %v", err)
	}
}

func TestUnreadableIsMovedAside(t *testing.T) {
	good := t.TempDir()
	sample(t, good)
	bytes, err := os.ReadFile(filepath.Join(good, fileName))
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) func(string) error {
		return func(path string) error { return os.WriteFile(path, b, 0o600) }
	}
	foreign := filepath.Join(t.TempDir(), "foreign")
	db, err := bbolt.Open(foreign, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	other, err := os.ReadFile(foreign)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(path string) error{
		"empty":                  write(nil),
		"a byte":                 write([]byte{1}),
		"text":                   write([]byte(strings.Repeat("not a journal\n", 10_000))),
		"zeros":                  write(make([]byte, len(bytes))),
		"a tenth":                write(bytes[:len(bytes)/10]),
		"two pages":              write(bytes[:8192]),
		"another bbolt file":     write(other),
		"a directory":            func(path string) error { return os.MkdirAll(filepath.Join(path, "garbage"), 0o700) },
		"a FIFO":                 func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a link to garbage":      func(path string) error { return os.Symlink("/dev/null", path) },
		"zeros after the second": write(append(append([]byte(nil), bytes[:8192]...), make([]byte, len(bytes)-8192)...)),
	}
	for name, make := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, fileName)
			at := time.Date(2026, 11, 26, 3, 20, 1, 0, time.FixedZone("", 3600))
			moved := path + ".unreadable-20261126T022001Z"
			for _, to := range []string{moved, moved + "-2"} { // the second in the same second
				if err := make(path); err != nil {
					t.Fatal(err)
				}
				var log recorder
				reg := prometheus.NewRegistry()
				j := open(t, Config{Dir: dir, Log: slogTo(&log), Metrics: reg, now: func() time.Time { return at }})
				if j.MovedAside() != to {
					t.Errorf("moved to %q, want %s", j.MovedAside(), to)
				}
				if _, err := os.Lstat(to); err != nil {
					t.Error(err)
				}
				if !strings.HasPrefix(log.String(), "ERROR the journal cannot be read") || !strings.Contains(log.String(), to) {
					t.Errorf("the log has %q", log.String())
				}
				families, err := reg.Gather()
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range families {
					if f.GetName() == "s3daemon_journal_moved_aside" && f.GetMetric()[0].GetGauge().GetValue() != 1 {
						t.Error("the gauge is not 1")
					}
				}
				r := example(1)
				acceptAll(t, j, r)
				j = reopen(t, j)
				wantQueued(t, j, r)
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestErrorsOfTheSystemMoveNothing: what another start may mend is left alone.
func TestErrorsOfTheSystemMoveNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Dir: file}); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file as directory: %v", err)
	}
	if _, err := Open(t.Context(), Config{Dir: filepath.Join(file, "dir")}); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a directory in a file: %v", err)
	}
	if os.Getuid() == 0 {
		t.Skip("root may do everything")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Dir: dir}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a file that may not be read: %v", err)
	}
}

// TestBegunAndLeft: what an earlier start has left unfinished is no obstacle.
func TestBegunAndLeft(t *testing.T) {
	for name, left := range map[string]string{"nothing": "", "a part": "part", "much": strings.Repeat("x", 100_000)} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, newName), []byte(left), 0o600); err != nil {
				t.Fatal(err)
			}
			j := open(t, Config{Dir: dir})
			r := example(1)
			acceptAll(t, j, r)
			wantQueued(t, reopen(t, j), r)
			if _, err := os.Stat(filepath.Join(dir, newName)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is still there: %v", newName, err)
			}
		})
	}
}

// TestLinkThatLeadsNowhere is replaced as if there were nothing.
func TestLinkThatLeadsNowhere(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("nowhere", filepath.Join(dir, fileName)); err != nil {
		t.Fatal(err)
	}
	j := open(t, Config{Dir: dir})
	r := example(1)
	acceptAll(t, j, r)
	wantQueued(t, reopen(t, j), r)
}

// TestNothingLeaks counts descriptors; the goroutine that writes is waited for
// by Close.
func TestNothingLeaks(t *testing.T) {
	fds := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(entries)
	}
	dir := t.TempDir()
	before := fds()
	for range 2 {
		j, err := Open(t.Context(), Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), Config{Dir: dir}); err == nil {
			t.Fatal("two have it")
		}
		acceptAll(t, j, example(1))
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(j.path(), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if after := fds(); after > before {
		t.Errorf("%d descriptors became %d", before, after)
	}
}
