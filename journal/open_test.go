package journal

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
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

func TestOpenOfALockedJournal(t *testing.T) {
	dir := t.TempDir()
	r := example(1)
	first := open(t, Config{Dir: dir})
	acceptAll(t, first, r)
	var log recorder
	_, err := Open(Config{Dir: dir, Log: slogTo(&log)})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "S3DAEMON_DATA_DIR") || !strings.Contains(err.Error(), dir) {
		t.Errorf("the second Open: %v", err)
	}
	if log.String() != "" {
		t.Errorf("it logged %s", log.String())
	}
	acceptAll(t, first, example(2)) // which is none the worse for it
	wantPush(t, reopen(t, first), r)
}

// TestOpenWaitsForTheLock: a daemon that is just ending does not keep the next
// one from starting.
func TestOpenWaitsForTheLock(t *testing.T) {
	dir := t.TempDir()
	first := open(t, Config{Dir: dir})
	timer := time.AfterFunc(lockWait/10, func() { first.Close() })
	defer timer.Stop()
	open(t, Config{Dir: dir})
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
	_, err = Open(Config{Dir: dir})
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "format is 2") {
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
	tests := map[string]func(path string) error{
		"empty":                  write(nil),
		"a byte":                 write([]byte{1}),
		"text":                   write([]byte(strings.Repeat("not a journal\n", 10_000))),
		"zeros":                  write(make([]byte, len(bytes))),
		"a tenth":                write(bytes[:len(bytes)/10]),
		"two pages":              write(bytes[:8192]),
		"another bbolt file":     func(path string) error { return os.Rename(foreign, path) },
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
					t.Skip(err) // the foreign file is there once
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
	if _, err := Open(Config{Dir: file}); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file as directory: %v", err)
	}
	if _, err := Open(Config{Dir: filepath.Join(file, "dir")}); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a directory in a file: %v", err)
	}
	if os.Getuid() == 0 {
		t.Skip("root may do everything")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, fs.ErrPermission) {
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

// TestManyStartAtOnce: of several processes exactly one gets the journal, be
// it there, missing or damaged.
func TestManyStartAtOnce(t *testing.T) {
	for name, before := range map[string]func(path string) error{
		"missing": func(string) error { return nil },
		"damaged": func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
		"whole": func(path string) error {
			j, err := Open(Config{Dir: filepath.Dir(path)})
			if err != nil {
				return err
			}
			return j.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := before(filepath.Join(dir, fileName)); err != nil {
				t.Fatal(err)
			}
			type result struct {
				j   *Journal
				err error
			}
			results := make(chan result)
			for range 5 {
				go func() {
					j, err := Open(Config{Dir: dir})
					results <- result{j, err}
				}()
			}
			var won *Journal
			for range 5 {
				switch r := <-results; {
				case r.err == nil && won == nil:
					won = r.j
				case r.err == nil:
					t.Error("two have it")
					r.j.Close()
				case !errors.Is(r.err, ErrLocked):
					t.Error(r.err)
				}
			}
			if won == nil {
				t.Fatal("none has it")
			}
			r := example(1)
			acceptAll(t, won, r)
			wantQueued(t, reopen(t, won), r)
			moved, _ := filepath.Glob(filepath.Join(dir, "*unreadable*"))
			if want := name == "damaged"; (len(moved) == 1) != want || len(moved) > 1 {
				t.Errorf("moved aside: %v", moved)
			}
		})
	}
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
	for range 5 {
		j, err := Open(Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Dir: dir}); err == nil {
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

// TestFullDiskAtOpen: a full disk moves nothing either.
func TestFullDiskAtOpen(t *testing.T) {
	dir := smallDisk(t, "1m")
	fillDisk(t, dir)
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Open on a full disk: %v", err)
	}
	freeDisk(t, dir)
	j := open(t, Config{Dir: dir})
	r := example(1)
	acceptAll(t, j, r)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	fillDisk(t, dir)
	j = open(t, Config{Dir: dir})
	wantQueued(t, j, r)
	if j.MovedAside() != "" {
		t.Errorf("it was moved to %s", j.MovedAside())
	}
}

// smallDisk mounts a file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("mount is not permitted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// fillDisk writes until there is no space left.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "filler"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func freeDisk(t *testing.T, dir string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
}
