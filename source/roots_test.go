//go:build linux

package source

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lsst-dm/s3daemon/push"
)

// tree makes directories, whose names end in /, files that have their names in
// them, and links, written link -> target, below a new directory. DIR stands for
// that directory in a target. What exists is used.
func tree(t *testing.T, entries ...string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name, target, isLink := strings.Cut(entry, " -> ")
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case err != nil:
		case isLink:
			err = os.Symlink(strings.ReplaceAll(target, "DIR", dir), path)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		default:
			err = os.WriteFile(path, []byte(name), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// opens opens the path and returns what the file has in it, or the code of the
// error.
func opens(t *testing.T, o *Opener, path string) string {
	t.Helper()
	f, err := o.Open(t.Context(), path)
	if err != nil {
		var e *push.Error
		if !errors.As(err, &e) {
			t.Errorf("Open(%q): %v is no *push.Error", path, err)
			return err.Error()
		}
		return string(e.Code)
	}
	defer f.Close()
	got, err := io.ReadAll(io.NewSectionReader(f.Reader(t.Context()), 0, f.Size()))
	if err != nil {
		t.Errorf("read %q: %v", path, err)
	}
	if err := f.Check(t.Context()); err != nil {
		t.Errorf("check %q: %v", path, err)
	}
	return string(got)
}

const (
	refused = string(push.FileNotAllowed)
	missing = string(push.FileNotFound)
)

func TestRoots(t *testing.T) {
	long := strings.Repeat("n", 255)
	dir := tree(t,
		"root/a", "root/sub/b", "root/sub/deep/c", "root/%2e%2e", "root/gr\xf6sse", "root/..a", "root/"+long,
		"secret/s", "rootless/s", "other/o", "vault/v",
		"root/up -> ../secret/s", "root/out -> DIR/secret/s", "root/gone -> DIR/secret/none", "root/dirout -> DIR/secret",
		"root/dirup -> ../secret", "root/etc -> /etc", "root/in -> sub/b", "root/sub/in -> ../a", "root/absin -> DIR/root/sub/b",
		"root/dirin -> DIR/root/sub", "root/chain -> chain2", "root/chain2 -> DIR/root/sub/chain3", "root/sub/chain3 -> deep/../in",
		"root/chainout -> chainout2", "root/chainout2 -> sub/chainout3", "root/sub/chainout3 -> ../../secret/s",
		"root/loop -> loop2", "root/loop2 -> DIR/root/loop", "root/dangling -> none", "root/absdangling -> DIR/root/none",
		"root/around -> ../secret/../root/a", "root/back -> ../root/a", "root/absback -> DIR/secret/../root/a",
		"root/goneback -> DIR/none/../root/a", "root/alias -> DIR/name/a", "name -> DIR/root", "root/slash -> sub/b/", "root/slashdir -> sub/",
		"root/toother -> DIR/other/o", "root/relother -> ../other/o", "root/proc -> /proc/self/environ", "root/null -> /dev/null",
		"root/exe -> /proc/self/exe", "root/procroot -> /proc/self/root/etc/passwd", "root/self -> .", "root/tovault -> DIR/vault/v", "root/dots -> ../../../../../../../../../../etc/passwd",
	)
	if err := errors.Join(os.Link(dir+"/secret/s", dir+"/root/hard"), unix.Mkfifo(dir+"/root/fifo", 0o600)); err != nil {
		t.Fatal(err)
	}
	o := New(Rules{Roots: []string{dir + "/other", dir + "/root", dir + "/absent"}, Guarded: []string{dir + "/vault"}})
	for _, tt := range []struct{ path, want string }{
		{"root/a", "root/a"},
		{"root/sub/deep/c", "root/sub/deep/c"},
		{"root//a", "root/a"},
		{"./root/./a", "root/a"},
		{"root/sub/../a", "root/a"},
		{"root/sub/deep/../../a", "root/a"},
		{"root/%2e%2e", "root/%2e%2e"},
		{"root/%2e%2e/secret/s", missing},
		{"root/..a", "root/..a"},
		{"root/gr\xf6sse", "root/gr\xf6sse"},
		{"root/" + long, "root/" + long},
		{"root/" + long + "n", string(push.InvalidFile)},
		{"other/o", "other/o"},
		{"root/hard", "secret/s"}, // a file like any other

		{"root/in", "root/sub/b"},
		{"root/sub/in", "root/a"},
		{"root/absin", "root/sub/b"},
		{"root/dirin/b", "root/sub/b"},
		{"root/dirin/../a", "root/a"},
		{"root/dirin/in", "root/a"},
		{"root/chain", "root/a"},
		{"root/self/self/self/self/self/self/self/self/self/self/a", "root/a"}, // more than os.Root follows
		{"root/alias", "root/a"},
		{"root/back", "root/a"},
		{"root/toother", "other/o"},
		{"root/relother", "other/o"},

		{"secret/s", refused},
		{"secret/none", refused},
		{"", refused},
		{"rootless/s", refused}, // its name only begins like a root's
		{"root/../secret/s", refused},
		{"root/../secret/none", refused},
		{"root/../root/a", refused},
		{"secret/../root/a", refused},
		{"none/../root/a", refused},
		{"root/sub/../../secret/s", refused},
		{"root/sub/../../root/a", refused},
		{"root/none/../../secret/s", refused},
		{"root/up", refused},
		{"root/out", refused},
		{"root/gone", refused},
		{"root/out/none", refused},
		{"root/dirout", refused},
		{"root/dirout/", refused},
		{"root/dirout/s", refused},
		{"root/dirout/none", refused},
		{"root/dirout/none/none", refused},
		{"root/dirout/s/none", refused},
		{"root/dirup/s", refused},
		{"root/dirup/none", refused},
		{"root/dirout/../a", refused},
		{"root/etc/passwd", refused},
		{"root/etc/none", refused},
		{"root/etc/shadow/none", refused},
		{"root/chainout", refused},
		{"root/around", refused},
		{"root/absback", refused},
		{"root/goneback", refused},
		{"root/dots", refused},
		{"root/proc", refused},
		{"root/null", refused},
		{"root/exe", refused},
		{"root/procroot", refused},
		{"root/tovault", refused},

		{"root/none", missing},
		{"root/none/none", missing},
		{"root/a/", missing},
		{"root/a/.", missing},
		{"root/a/b", missing},
		{"root/a/../a", missing},
		{"root/in/none", missing},
		{"root/absin/none", missing},
		{"root/slash", missing},
		{"root/dangling", missing},
		{"root/absdangling", missing},
		{"root/dirin/none", missing},
		{"absent/a", missing},
		{"root/loop", string(push.InvalidFile)},
		{"root/sub", string(push.FileNotRegular)},
		{"root", string(push.FileNotRegular)},
		{"root/slashdir", string(push.FileNotRegular)},
		{"root/fifo", string(push.FileNotRegular)},
		{"root/a\x00", string(push.InvalidFile)},
		{"root/a\n", string(push.InvalidFile)},
		{"root" + strings.Repeat("/self", 50) + "/a", string(push.InvalidFile)},
		{"root" + strings.Repeat("/.", 2000) + "/a", string(push.InvalidFile)},
	} {
		t.Run(tt.path[:min(len(tt.path), 50)], func(t *testing.T) {
			if got := opens(t, o, dir+"/"+tt.path); got != tt.want {
				t.Errorf("%q is %q, want %q", tt.path, got, tt.want)
			}
		})
	}
}

// TestRootsHideWhatIsElsewhere: the error of a path that leads out is the same to
// the letter, whatever is there.
func TestRootsHideWhatIsElsewhere(t *testing.T) {
	dir := tree(t, "root/l -> DIR/x", "x/file", "x/dir/", "x/loop -> loop", "x/closed/in")
	if err := errors.Join(unix.Mkfifo(dir+"/x/fifo", 0o600), os.Chmod(dir+"/x/closed", 0)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(dir+"/x/closed", 0o700) })
	o := New(Rules{Roots: []string{dir + "/root"}})
	for _, base := range []string{"/root/l/", "/x/", "/root/../x/"} {
		says := make(map[string]bool)
		for _, name := range []string{"file", "file/", "none", "none/none", "dir", "dir/..", "loop", "closed/in", "closed/none", "fifo", "file/none", strings.Repeat("n", 256)} {
			_, err := o.Open(t.Context(), dir+base+name)
			if err == nil {
				t.Fatalf("%s%s was opened", base, name)
			}
			says[strings.Replace(err.Error(), push.Quote(dir+base+name), "F", 1)] = true
		}
		if len(says) != 1 {
			t.Errorf("%s: there are %d different errors: %v", base, len(says), says)
		}
	}
}

// TestRootsUnprivileged: a user who may not look everywhere learns no more of what
// is elsewhere, and of what is inside that he may not.
func TestRootsUnprivileged(t *testing.T) {
	dir := tree(t, "root/a", "root/closed/in", "root/searchable/in", "root/l -> DIR/x", "x/file", "x/closed/in")
	for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o755, dir + "/root/closed": 0o700, dir + "/root/searchable": 0o711, dir + "/x/closed": 0o700} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	for path, want := range map[string]string{
		"root/a": "opened 6", "root/closed/in": string(push.FileUnreadable), "root/closed/none": string(push.FileUnreadable), "root/searchable/in": string(push.FileUnreadable),
		"root/l/file": refused, "root/l/none": refused, "root/l/closed": refused, "root/l/closed/in": refused, "root/l/closed/none": refused, "x/closed/in": refused,
	} {
		if got := helper(t, dir+"/"+path, rootsVariable+"="+dir+"/root"); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// TestRootsAfterwards: nor does what is said once a file was read tell what there is
// elsewhere.
func TestRootsAfterwards(t *testing.T) {
	dir := tree(t, "root/", "x/file")
	o := New(Rules{Roots: []string{dir + "/root"}})
	name := dir + "/root/a"
	for _, target := range []string{dir + "/x/file", dir + "/x/none", dir + "/none/../root/b", dir + "/x/../root/b", "/proc/self/environ"} {
		os.Remove(name)
		if err := errors.Join(os.WriteFile(name, []byte("light"), 0o644), os.WriteFile(dir+"/root/b", nil, 0o644)); err != nil {
			t.Fatal(err)
		}
		f, err := o.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(dir + "/root/b")
		if err := errors.Join(os.Rename(name, dir+"/root/b"), os.Symlink(target, name)); err != nil { // the file, by another way
			t.Fatal(err)
		}
		wantCode(t, "a name that leads to "+target, f.Check(t.Context()), push.FileChanged)
		f.Close()
	}
}

// TestRootsThemselves has roots that are links, lie in each other, or are all
// there is.
func TestRootsThemselves(t *testing.T) {
	dir := tree(t, "disk/data/a", "disk/data/sub/b", "disk/elsewhere/e", "disk/ext/x",
		"data -> disk/data", "disk/data/abs -> DIR/disk/data/a", "disk/data/named -> DIR/data/a", "disk/data/e -> DIR/disk/elsewhere/e", "disk/data/up -> ../elsewhere/e",
		"disk/data/ext -> DIR/disk/ext", "disk/data/sub/up -> ../a", "disk/data/toext -> ext/x", "later -> DIR/mounted")
	for _, tt := range []struct {
		roots, path, want string
	}{
		{"data", "data/a", "disk/data/a"},
		{"data", "data/abs", "disk/data/a"},
		{"data", "data/named", "disk/data/a"},
		{"data", "data/sub/up", "disk/data/a"},
		{"data", "data/e", refused},
		{"data", "data/up", refused},
		{"data", "disk/data/a", refused}, // not by the name of the root
		{"disk/data", "data/a", refused},
		{"disk/data", "disk/data/named", "disk/data/a"},
		{"data", "data/ext/x", refused},
		{"data data/ext", "data/ext/x", "disk/ext/x"},
		{"data/ext data", "data/toext", "disk/ext/x"},
		{"data/sub", "data/sub/up", refused},
		{"data/sub data", "data/sub/up", "disk/data/a"},
		{"disk disk/data", "disk/data/e", "disk/elsewhere/e"},
		{"later", "later/m", missing},
	} {
		var roots []string
		for root := range strings.FieldsSeq(tt.roots) {
			roots = append(roots, filepath.Join(dir, root))
		}
		if got := opens(t, New(Rules{Roots: roots}), dir+"/"+tt.path); got != tt.want {
			t.Errorf("%s with the roots %s is %q, want %q", tt.path, tt.roots, got, tt.want)
		}
	}
	o := New(Rules{Roots: []string{dir + "/later"}})
	if got := opens(t, o, dir+"/later/m"); got != missing {
		t.Errorf("before there is a root: %s", got)
	}
	if err := errors.Join(os.Mkdir(dir+"/mounted", 0o755), os.WriteFile(dir+"/mounted/m", []byte("m"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := opens(t, o, dir+"/later/m"); got != "m" {
		t.Errorf("once there is: %s", got)
	}
}

// TestRootOfAll: with / as a root, what is never read is not all the same.
func TestRootOfAll(t *testing.T) {
	dir := tree(t, "a", "kept/k", "tokept -> kept/k", "environ -> /proc/self/environ", "none -> /proc/none", "keptnone -> DIR/kept/none",
		"abs -> DIR/a", "relproc -> "+strings.Repeat("../", 50)+"proc/self/environ", "exe -> /proc/self/exe", "cwd -> /proc/self/cwd/roots.go", "stdin -> /dev/stdin", "zero -> /dev/zero")
	o := New(Rules{Roots: []string{"/"}, Guarded: []string{dir + "/kept"}})
	for path, want := range map[string]string{
		dir + "/a": "a", dir + "/abs": "a", "/.." + dir + "/a": "a", dir + "/../../../../../../../../.." + dir + "/a": "a",
		dir + "/kept/k": refused, dir + "/kept/none": refused, dir + "/tokept": refused, dir + "/keptnone": refused, dir + "/kept": refused,
		"/proc/self/environ": refused, "/proc/self/root" + dir + "/a": refused, "/proc/self/fd/0": refused, "/proc/self/cwd/roots.go": refused,
		"/dev/fd/0": refused, "/dev/zero": refused, "/dev/stdin": refused, "/sys/kernel/notes": refused, "/.//proc/../proc/self/environ": refused,
		dir + "/environ": refused, dir + "/none": refused, dir + "/relproc": refused, dir + "/exe": refused, dir + "/cwd": refused, dir + "/stdin": refused, dir + "/zero": refused,
		dir + "/missing": missing,
	} {
		if got := opens(t, o, path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
}

// TestRootsMounted: what is mounted in a root is in it.
func TestRootsMounted(t *testing.T) {
	dir := tree(t, "root/m/", "x/file", "root/l -> DIR/root/m/file", "root/out -> DIR/x/file")
	o := New(Rules{Roots: []string{dir + "/root"}})
	inMounts(t, func() {
		if err := unix.Mount(dir+"/x", dir+"/root/m", "", unix.MS_BIND, ""); err != nil {
			t.Error(err)
			return
		}
		for name, ok := range map[string]bool{"m/file": true, "l": true, "out": false} {
			got := o.look(dir + "/root/" + name) // not Open, which would do so in another thread
			if (got.err == nil) != ok {
				t.Errorf("%s: %v", name, got.err)
			}
			got.close()
		}
	})
}

// TestRootsSwapped swaps what leads to a file for links to a secret as fast as
// that can be done: the file, its directory, and by moving the directory out of
// the root. No byte of the secret may be read.
func TestRootsSwapped(t *testing.T) {
	for _, tt := range []struct {
		name string
		swap func(dir string) error // makes one change and takes it back
	}{
		{"file for a link", func(dir string) error {
			return exchange(dir+"/root/sub/f", dir+"/root/sub/link")
		}},
		{"file for an absolute link", func(dir string) error {
			return exchange(dir+"/root/sub/f", dir+"/root/sub/abslink")
		}},
		{"directory for a link", func(dir string) error {
			return exchange(dir+"/root/sub", dir+"/root/link")
		}},
		{"directory for an absolute link", func(dir string) error {
			return exchange(dir+"/root/sub", dir+"/root/abslink")
		}},
		{"directory moved out", func(dir string) error {
			err := os.Rename(dir+"/root/sub", dir+"/secret/sub")
			return errors.Join(err, os.Rename(dir+"/secret/sub", dir+"/root/sub"))
		}},
		{"link inside for a link outside", func(dir string) error {
			return exchange(dir+"/root/f", dir+"/root/outside")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t, "root/sub/f", "secret/f", "root/sub/link -> ../../secret/f", "root/sub/abslink -> DIR/secret/f",
				"root/link -> ../secret", "root/abslink -> DIR/secret", "root/outside -> DIR/secret/f", "root/f -> DIR/root/sub/f")
			path := dir + "/root/sub/f"
			if strings.HasPrefix(tt.name, "link inside") {
				path = dir + "/root/f"
			}
			o := New(Rules{Roots: []string{dir + "/root"}})
			before := descriptors(t)
			ctx, stop := context.WithCancel(t.Context())
			var swapping sync.WaitGroup
			swapping.Go(func() {
				for ctx.Err() == nil {
					if err := tt.swap(dir); err != nil {
						t.Error(err)
						return
					}
				}
			})
			opened, not := 0, 0
			for i := 0; i < 3000 || i < 30000 && (opened == 0 || not == 0); i++ {
				f, err := o.Open(t.Context(), path)
				if err != nil {
					// Nor is there an error that only the swapping explains.
					var e *push.Error
					if not++; !errors.As(err, &e) || e.Code != push.FileNotAllowed && e.Code != push.FileNotFound && !errors.Is(err, errMoved) {
						t.Errorf("%v", err)
					}
					continue
				}
				opened++
				got, err := io.ReadAll(io.NewSectionReader(f.Reader(t.Context()), 0, f.Size()))
				if string(got) != "root/sub/f" || err != nil {
					t.Errorf("read %q, %v", got, err)
				}
				f.Close()
			}
			stop()
			swapping.Wait()
			waitUntilIdle(t, path)
			t.Logf("%d opened, %d not", opened, not)
			if opened == 0 || not == 0 {
				t.Errorf("%d were opened and %d not: nothing was tested", opened, not)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
}

// exchange exchanges what two names lead to, at once.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// TestRootsLeaveNoDescriptor counts those of all ways to fail and to succeed.
func TestRootsLeaveNoDescriptor(t *testing.T) {
	dir := tree(t, "root/a", "other/o", "root/in -> DIR/root/a", "root/out -> DIR/x", "root/loop -> loop", "root/o -> ../other/o", "root/sub/")
	o := New(Rules{Roots: []string{dir + "/root", dir + "/other", dir + "/none"}})
	before := descriptors(t)
	for range 100 {
		for _, name := range []string{"a", "in", "out", "loop", "o", "none", "sub", "", "../x"} {
			if f, err := o.Open(t.Context(), dir+"/root/"+name); err == nil {
				f.Close()
			}
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// FuzzBeneath compares beneath with a model that cleans each beginning of the
// path: the first ones are those of the directory, and none after it leaves it.
func FuzzBeneath(f *testing.F) {
	for _, path := range []string{"/data/a", "/data/../data/a", "/data/a/../b", "//data//./a", "/data/a/../../data", "/dat/a", "/database", "/../data/a", "/", "/data/night/..", "/data/..a/%2e%2e"} {
		for _, dir := range []string{"/data", "/data/night", "/"} {
			f.Add(dir, path)
		}
	}
	f.Fuzz(func(t *testing.T, dir, path string) {
		if !strings.HasPrefix(dir, "/") || filepath.Clean(dir) != dir || !strings.HasPrefix(path, "/") {
			t.Skip()
		}
		names, ok := beneath(dir, path)
		want, inside := true, dir == "/"
		for i := 1; i <= len(path); i++ {
			if i < len(path) && path[i] != '/' {
				continue
			}
			switch at := filepath.Clean(path[:i]); {
			case at == dir || strings.HasPrefix(at, strings.TrimSuffix(dir, "/")+"/"):
				inside = true
			case inside, !strings.HasPrefix(dir, strings.TrimSuffix(at, "/")+"/"), strings.HasSuffix(path[:i], "/.."):
				want = false
			}
		}
		if want = want && inside; ok != want {
			t.Fatalf("beneath(%q, %q) is %v, want %v", dir, path, ok, want)
		}
		if ok && filepath.Clean(path) != filepath.Clean(dir+"/"+strings.Join(names, "/")) {
			t.Fatalf("of %q %q are left below %q", path, names, dir)
		}
	})
}
