//go:build linux

package source

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsst-dm/s3daemon/push"
)

func TestGuarded(t *testing.T) {
	dir := tree(t, "home/.aws/credentials", "home/.aws/sso/cache/x", "home/a", "home/credentials", "home/.awsome", "vault/key",
		"etc/key -> ../vault/key", "tokens/..2026_1/token", "tokens/..data -> ..2026_1", "tokens/token -> ..data/token", "tokens/..2026_0/token",
		"data/tocredentials -> DIR/home/.aws/credentials", "data/tohome -> ../home", "data/todata -> DIR/tokens/..data")
	for name, of := range map[string]string{"data/hard": "home/.aws/credentials", "data/hardkey": "vault/key", "data/hardcache": "home/.aws/sso/cache/x", "data/hardtoken": "tokens/..2026_0/token", "data/other": "home/a"} {
		if err := os.Link(filepath.Join(dir, of), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	guarded := []string{dir + "/home/.aws", dir + "/home/.aws/credentials", dir + "/etc/key", dir + "/tokens/token", dir + "/absent"}
	for name, roots := range map[string][]string{"anywhere": nil, "roots": {dir}, "deep roots": {dir + "/data", dir + "/home", dir + "/etc", dir + "/vault", dir + "/tokens"}} {
		o := New(Rules{Roots: roots, Guarded: guarded})
		for path, want := range map[string]string{
			"home/a": "home/a", "data/other": "home/a", "home/credentials": "home/credentials", "home/.awsome": "home/.awsome",
			"home/.aws/credentials": refused, "home/.aws/sso/cache/x": refused, "home/.aws/none": refused, "home/.aws": refused, "home/.aws/../.aws/credentials": refused,
			"data/tocredentials": refused, "data/tohome/.aws/sso/cache/x": refused, "data/tohome/a": "home/a", "data/hard": refused,
			"etc/key": refused, "vault/key": refused, "data/hardkey": refused, "data/hardcache": refused, "data/hardtoken": refused,
			"tokens/token": refused, "tokens/..data/token": refused, "tokens/..2026_1/token": refused, "tokens/..2026_0/token": refused, "data/todata/token": refused,
		} {
			if got := opens(t, o, dir+"/"+path); got != want {
				t.Errorf("%s: %s is %q, want %q", name, path, got, want)
			}
		}
		_, err := o.Open(t.Context(), dir+"/data/hard")
		if !strings.Contains(err.Error(), dir+"/home/.aws") {
			t.Errorf("%s: the error does not name what is guarded: %v", name, err)
		}
	}
}

// TestGuardedComesAndGoes: what a guarded path leads to is known a second later.
func TestGuardedComesAndGoes(t *testing.T) {
	dir := tree(t, "a/key", "b/key", "c", "key -> a/key")
	o := New(Rules{Guarded: []string{dir + "/key", dir + "/later"}})
	if got := opens(t, o, dir+"/a/key") + opens(t, o, dir+"/b/key"); got != refused+"b/key" {
		t.Fatal(got)
	}
	if err := errors.Join(os.Remove(dir+"/key"), os.Symlink("b/key", dir+"/key"), os.Symlink("c", dir+"/later")); err != nil {
		t.Fatal(err)
	}
	for _, p := range o.guarded { // as if a second had passed
		old := *p.last.Load()
		old.at = old.at.Add(-freshFor)
		p.last.Store(&old)
	}
	if got := opens(t, o, dir+"/a/key") + opens(t, o, dir+"/b/key") + opens(t, o, dir+"/c"); got != "a/key"+refused+refused {
		t.Error(got)
	}
}

// TestGuardedMounted mounts what is guarded elsewhere: the directory, one in it,
// one above it, and a file.
func TestGuardedMounted(t *testing.T) {
	dir := tree(t, "key", "home/.aws/credentials", "home/.aws/sso/cache/x", "home/a", "data/key", "data/aws/", "data/cache/", "data/home/", "data/a")
	o := New(Rules{Guarded: []string{dir + "/key", dir + "/home/.aws"}})
	inMounts(t, func() {
		for from, to := range map[string]string{"key": "key", "home/.aws": "aws", "home/.aws/sso/cache": "cache", "home": "home"} {
			if err := unix.Mount(dir+"/"+from, dir+"/data/"+to, "", unix.MS_BIND, ""); err != nil {
				t.Error(err)
				return
			}
		}
		for name, ok := range map[string]bool{
			"key": false, "aws/credentials": false, "aws/sso/cache/x": false, "cache/x": false, "home/.aws/sso/cache/x": false, "home/a": true, "a": true,
		} {
			got := o.look(dir + "/data/" + name) // not Open, which would do so in another thread
			if (got.err == nil) != ok {
				t.Errorf("%s: %v", name, got.err)
			}
			got.close()
		}
	})
}

// TestGuardedMany: of a directory with very many files all are guarded by where
// they are, and so many under other names that it takes no time to know them.
func TestGuardedMany(t *testing.T) {
	dir := tree(t, "many/", "a")
	for i := range mostKnown + 100 {
		if err := os.WriteFile(filepath.Join(dir, "many", strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := findSpot(dir + "/many")
	if err != nil || len(s.files) != mostKnown-1 { // the directory is one too
		t.Errorf("%d files are known, %v", len(s.files), err)
	}
	o := New(Rules{Guarded: []string{dir + "/many"}})
	for i := range mostKnown + 100 {
		if got := opens(t, o, filepath.Join(dir, "many", strconv.Itoa(i))); got != refused {
			t.Fatalf("file %d is %q", i, got)
		}
	}
	if got := opens(t, o, dir+"/a"); got != "a" {
		t.Error(got)
	}
}

// TestGuardedNumber: a file that has got the number of a guarded one that is gone
// is none.
func TestGuardedNumber(t *testing.T) {
	path := write(t, "a", []byte("light"))
	f := mustOpen(t, path)
	was := spot{files: map[fileID]bool{{f.identity.Device, f.identity.Inode}: true}}
	p := &place{path: "/home/key", find: func(string) (spot, error) { return was, nil }}
	o := &Opener{guarded: guard{p}}
	if got := opens(t, o, path); got != refused {
		t.Errorf("what is guarded is %q", got)
	}
	p.find = func(string) (spot, error) { return spot{}, nil }
	if got := opens(t, o, path); got != "light" {
		t.Errorf("another file of its number is %q", got)
	}
}

// TestGuardedReplaced replaces a guarded file, as rotated credentials are, while
// it is asked for: neither state of it may be read.
func TestGuardedReplaced(t *testing.T) {
	dir := tree(t, "key", "next", "link -> key")
	o := New(Rules{Guarded: []string{dir + "/key"}})
	stop := make(chan struct{})
	done := make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := errors.Join(os.WriteFile(dir+"/next", []byte("secret"), 0o600), os.Rename(dir+"/next", dir+"/key")); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 3000 {
		if f, err := o.Open(t.Context(), dir+"/link"); err == nil {
			got, _ := io.ReadAll(io.NewSectionReader(f.Reader(t.Context()), 0, f.Size()))
			f.Close()
			t.Fatalf("read %q", got)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestGuardedHangs: a guarded path on a file system that hangs holds up one push
// for a moment, and what was known of it counts until it answers.
func TestGuardedHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		hang := make(chan struct{})
		p := &place{path: "/home/key", find: func(string) (spot, error) {
			if asked.Add(1) == 2 {
				<-hang
				return spot{}, unix.EIO
			}
			return spot{dirs: []string{"/server/key"}, files: map[fileID]bool{{1, 2}: true}}, nil
		}}
		g := guard{p}
		took := func() time.Duration {
			begin := time.Now()
			g.refresh()
			return time.Since(begin)
		}
		guarded := func(when string, file *place) {
			t.Helper()
			if g.named("/server/key") != p.path || g.named("/home/key") != p.path || g.named("/server/key2") != "" {
				t.Errorf("%s it is not guarded", when)
			}
			if got := g.of(fileID{1, 2}); got != file {
				t.Errorf("%s its file is of %v", when, got)
			}
		}
		if g.isFresh() || took() != 0 || !g.isFresh() {
			t.Error("the first answer was not waited for, or took its time")
		}
		guarded("at first", p)
		if took(); asked.Load() != 1 {
			t.Error("what was fresh was asked for")
		}
		time.Sleep(freshFor)
		if took() != askPatience || took() != 0 || g.isFresh() {
			t.Error("a question that hangs was not waited for once")
		}
		guarded("while it hangs", p)
		close(hang)
		synctest.Wait()
		guarded("after an error", nil) // whose file is gone, and its number another's
		time.Sleep(freshFor)
		if took(); asked.Load() != 3 || !g.isFresh() {
			t.Errorf("asked %d times", asked.Load())
		}
		guarded("at last", p)
	})
}

// TestGuardLater: what is guarded later is so at once, and by its links and other
// names too; and what was before still is.
func TestGuardLater(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"early", "late", "free"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("late", dir+"/link"), os.Link(dir+"/late", dir+"/hard")); err != nil {
		t.Fatal(err)
	}
	o := New(Rules{Guarded: []string{dir + "/early"}})
	check := func(name string, guarded bool) {
		t.Helper()
		f, err := o.Open(t.Context(), filepath.Join(dir, name))
		if err == nil {
			f.Close()
		}
		var known *push.Error
		if is := errors.As(err, &known) && known.Code == push.FileNotAllowed; is != guarded {
			t.Errorf("%s: %v", name, err)
		}
	}
	check("late", false)
	for range 2 {
		o.Guard(dir+"/late", dir+"/early")
	}
	if len(o.guards()) != 2 {
		t.Errorf("%d places", len(o.guards()))
	}
	for _, name := range []string{"early", "late", "link", "hard"} {
		check(name, true)
	}
	check("free", false)
}
