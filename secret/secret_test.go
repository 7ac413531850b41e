package secret

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// word is a secret of one word, which must not be empty.
func word(content []byte) (string, error) {
	text := strings.TrimSpace(string(content))
	if text == "" {
		return "", errors.New("is empty")
	}
	return text, nil
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// told collects what a File says.
type told struct {
	mu    sync.Mutex
	lines []string
}

func (l *told) add(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, err.Error())
}

func (l *told) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

// TestGet follows a file through all that may happen to it. The clock is the
// bubble's; the times of the file are the system's, which is years ahead.
func TestGet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, "first\n")
	synctest.Test(t, func(t *testing.T) {
		var log told
		f, err := Open(path, word, log.add)
		if err != nil {
			t.Fatal(err)
		}
		after := func(what, want string, lines int) {
			t.Helper()
			time.Sleep(lookEvery)
			for range 3 { // the second time within the same second
				if got := f.Get(); got != want {
					t.Errorf("%s: %q, want %q", what, got, want)
				}
			}
			got := log.take()
			if len(got) != lines {
				t.Errorf("%s: %q was told, want %d lines", what, got, lines)
			}
			for _, line := range got {
				if !strings.Contains(line, path) || strings.Contains(line, "first") || strings.Contains(line, "second") {
					t.Errorf("%s: %q", what, line)
				}
			}
		}
		write(t, path, "other\n")
		if got := f.Get(); got != "first" {
			t.Errorf("within a second: %q", got)
		}
		after("another of the same length", "other", 0)
		write(t, path, "")
		after("truncated", "other", 1)
		after("still truncated", "other", 0)
		write(t, path, "second")
		after("written", "second", 0)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		after("gone", "second", 1)
		after("still gone", "second", 0)
		next := path + ".next"
		write(t, next, "third")
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
		after("renamed into its place", "third", 0)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		after("a directory", "third", 1)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		write(t, path, strings.Repeat("x", maxBytes+1))
		after("too long", "third", 1)
		write(t, path, "fourth")
		after("back again", "fourth", 0)
	})
}

// TestUnchanged: a file that has settled is not read again, even one that
// nobody may read any more.
func TestUnchanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, "word")
	reads := 0
	f, err := Open(path, func(content []byte) (string, error) {
		reads++
		return word(content)
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		f.looked = time.Time{} // longer than a second ago
		f.Get()
	}
	if reads != 2 { // once for the new time
		t.Errorf("the file was read %d times", reads)
	}
}

// TestLinks has the two links of a directory that Kubernetes switches.
func TestLinks(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"one", "two"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "token"), name)
	}
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, "next")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("one", "..data")
	link("..data/token", "token")
	f, err := Open(filepath.Join(dir, "token"), word, nil)
	if err != nil || f.Get() != "one" {
		t.Fatalf("%v", err)
	}
	link("two", "..data")
	f.looked = time.Time{}
	if got := f.Get(); got != "two" {
		t.Errorf("after the switch: %q", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "empty"), " \n")
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"empty", "fifo", "."} {
		path := filepath.Join(dir, name)
		if _, err := Open(path, word, nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"/none-of-that/Secret", "Secret", "/" + strings.Repeat("Secret", 1000), "/dev/null/Secret"} {
		if _, err := Open(name, word, nil); err == nil || strings.Contains(err.Error(), "Secret") {
			t.Errorf("what may be the secret itself: %v", err)
		}
	}
}

// TestReadSwapped has a FIFO that somebody holds open take the file's place and
// make way again: nothing of it is read, and nobody waits for it.
func TestReadSwapped(t *testing.T) {
	dir := t.TempDir()
	path, fifo, other := filepath.Join(dir, "secret"), filepath.Join(dir, "fifo"), filepath.Join(dir, "other")
	write(t, path, "word")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	held, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var swapper, reader sync.WaitGroup
	swapper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := errors.Join(os.Rename(path, other), os.Rename(fifo, path), os.Rename(path, fifo), os.Rename(other, path)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var words, refused int
	reader.Go(func() {
		for range 50000 {
			switch _, content, err := Read(path, 10); {
			case err == nil && string(content) == "word":
				words++
			case err == nil || len(content) > 0:
				t.Errorf("read %q, %v", content, err)
			default:
				refused++
			}
		}
		close(stop)
	})
	reader.Wait()
	swapper.Wait()
	held.Close()
	if words == 0 || refused == 0 {
		t.Errorf("%d reads found the file, and %d did not", words, refused)
	}
}

func TestExposed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, "word")
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o602: true, 0o601: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		f, err := Open(path, word, nil)
		if err != nil {
			t.Fatal(err)
		}
		if f.Exposed() != want {
			t.Errorf("mode %v: exposed %v", mode, !want)
		}
	}
}

// TestGetAtOnce has many ask while the file changes: each gets a whole value.
func TestGetAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	write(t, path, "0")
	f, err := Open(path, word, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	var askers sync.WaitGroup
	for range 8 {
		askers.Go(func() {
			for range 200 {
				if got := f.Get(); got == "" {
					t.Error("an empty secret")
				}
				if f.looking.TryLock() {
					f.looked = time.Time{}
					f.looking.Unlock()
				}
			}
		})
	}
	for i := range 50 {
		write(t, path, fmt.Sprint(i))
	}
	askers.Wait()
	f.looked = time.Time{}
	if got := f.Get(); got != "49" {
		t.Errorf("in the end: %q", got)
	}
}

// TestChangesThatHardlyShow: another file of one size and time, and one written
// over within a step of the file system's clock, are read all the same; and what
// is missing twice is told twice.
func TestChangesThatHardlyShow(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	write := func(path, content string, at time.Time) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	rename := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-time.Hour)
	write(path, "one", long)
	bad := 0
	f, err := Open(path, func(content []byte) (string, error) { return string(content), nil }, func(error) { bad++ })
	if err != nil {
		t.Fatal(err)
	}
	want := func(content string, told int) {
		t.Helper()
		f.looked = time.Time{} // longer than a second ago
		if got := f.Get(); got != content || bad != told {
			t.Errorf("it is %q, told %d times, want %q and %d", got, bad, content, told)
		}
	}
	write(dir+"/next", "two", long)
	rename(dir+"/next", path)
	want("two", 0)
	now := time.Now()
	write(path, "six", now)
	want("six", 0)
	write(path, "ten", now)
	want("ten", 0)
	for n := range 2 {
		rename(path, dir+"/away")
		want("ten", n+1)
		rename(dir+"/away", path)
		want("ten", n+1)
	}
}
