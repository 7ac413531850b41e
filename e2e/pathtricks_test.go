package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// hidden is what the files hold that no push may get. No object, answer or
// line of a log has it.
const hidden = "e2e-hidden: never to be read"

// scene is a directory whose files may be pushed, one beside it whose files may
// not where the first is the daemon's only root, and all the ways from the first
// to the second that people have thought of.
type scene struct {
	inside, outside string
	good            *randomFile // inside, honestly
	secret          string      // outside
}

// newScene makes one, of small files.
func newScene(t *testing.T) *scene {
	t.Helper()
	// Not t.TempDir(), of which the longest of paths would be too long already.
	dir, err := os.MkdirTemp(tempDir, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &scene{inside: filepath.Join(dir, "in"), outside: filepath.Join(dir, "out")}
	s.secret = filepath.Join(s.outside, "secret")
	in := func(name string) string { return filepath.Join(s.inside, name) }
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(in("dir"), 0o755), os.Mkdir(s.outside, 0o755), os.WriteFile(s.secret, []byte(hidden), 0o644))
	s.good = &randomFile{path: makeFileIn(t, in("dir"), "good", 1000)}
	s.good.sums, err = sumsOf(s.good.path)
	must(err)
	s.good.digest, err = digestFile(s.good.path)
	must(err)
	must(
		os.Link(s.good.path, in("dir/hard")),
		os.Link(s.good.path, in("gr\xf6sse")),
		os.Link(s.good.path, in("..name")),
		os.Symlink(s.good.path, in("absolute")),
		os.Symlink("dir/good", in("relative")),
		os.Symlink("absolute", in("chain")),
		os.Symlink("dir", in("directory")),
		os.Symlink(s.outside, in("away")),
		os.Symlink("../out/secret", in("climbing")),
		os.Symlink(s.secret, in("leaving")),
		os.Symlink("leaving", in("leaving-chain")),
		os.Symlink("away/secret", in("leaving-by-directory")),
		os.Symlink(filepath.Join(s.outside, "nothing"), in("leaving-to-nothing")),
		os.Symlink("nothing", in("dangling")),
		os.Symlink("loop", in("loop")),
		os.Symlink(s.inside, in("again")),
		os.Mkdir(filepath.Join(s.outside, "dir"), 0o755),
		os.WriteFile(filepath.Join(s.outside, "dir", "good"), []byte(hidden), 0o644),
		os.Symlink("/proc/self/environ", in("environ")),
		os.Symlink("environ", in("environ-chain")),
		os.Symlink("/proc", in("proc")),
		os.Symlink("/", in("all")),
		os.Symlink("/dev/zero", in("zero")),
		os.Symlink("/sys/kernel/notes", in("sys")),
		os.Symlink(strings.Repeat("../", 64)+"proc/self/environ", in("environ-climbing")),
		syscall.Mkfifo(in("fifo"), 0o644),
		os.Symlink("fifo", in("fifo-link")),
	)
	l, err := net.Listen("unix", in("socket"))
	must(err)
	t.Cleanup(func() { l.Close() })
	return s
}

// pathTrick is a path that a caller may try.
type pathTrick struct {
	name, path string
	codes      []string // one of them is the problem's; none: it is the good file, and is pushed
}

// tricks are the paths, and what becomes of each: where the scene's first
// directory is the daemon's only root, and where the daemon has none.
func (s *scene) tricks(d *daemon, rooted bool) []pathTrick {
	const never = "file_not_allowed"
	in := func(name string) string { return s.inside + "/" + name }
	pid := fmt.Sprint("/proc/", d.cmd.Process.Pid)
	up := strings.Repeat("/..", 64)
	long := strings.Repeat("n", 255)
	all := []pathTrick{
		{"nothing", "", []string{"missing_field"}},
		{"a relative path", "etc/hosts", []string{"invalid_file"}},
		{"a relative path upwards", "../../../etc/passwd", []string{"invalid_file"}},
		{"a path of this directory", "./good", []string{"invalid_file"}},
		{"a URL", "file://" + s.good.path, []string{"invalid_file"}},
		{"a path of a home", "~/good", []string{"invalid_file"}},
		{"NUL", s.good.path + "\x00.fits", []string{"invalid_file"}},
		{"newline", s.good.path + "\n", []string{"invalid_file"}},
		{"escape", s.good.path + "\x1b[2J", []string{"invalid_file"}},
		{"DEL", s.good.path + "\x7f", []string{"invalid_file"}},
		{"one byte too long", "/" + strings.Repeat("n", 4096), []string{"invalid_file"}},
		{"as long as none can be", s.inside + strings.Repeat("/n", (4096-len(s.inside))/2), []string{"file_not_found", "invalid_file"}},
		{"a name too long", in(long + "n"), []string{"invalid_file"}},
		{"a name as long as can be", in(long), []string{"file_not_found"}},

		{"the file", s.good.path, nil},
		{"slashes and dots", s.inside + "//dir/.///good", nil},
		{"a name that begins with dots", in("..name"), nil},
		{"a name that is not UTF-8", in("gr\xf6sse"), nil},
		{"a hard link", in("dir/hard"), nil},
		{"an absolute link inside", in("absolute"), nil},
		{"a relative link inside", in("relative"), nil},
		{"a link to a link inside", in("chain"), nil},
		{"by a link to a directory inside", in("directory/good"), nil},
		{"by a link to the root itself, again and again", in("again/again/again/dir/good"), nil},
		{"upwards, and not out of it", in("dir/../dir/good"), nil},

		{"no such file", in("nothing"), []string{"file_not_found"}},
		{"a link that leads nowhere", in("dangling"), []string{"file_not_found"}},
		{"a slash behind the file", s.good.path + "/", []string{"file_not_found"}},
		{"a file beneath the file", s.good.path + "/x", []string{"file_not_found"}},
		{"encoded dots are a name", in("dir/%2e%2e/%2e%2e/out/secret"), []string{"file_not_found"}},
		{"encoded slashes are a name", in("dir%2fgood"), []string{"file_not_found"}},
		{"overlong dots are a name", in("dir/\xc0\xae\xc0\xae/\xc0\xae\xc0\xae/out/secret"), []string{"file_not_found"}},
		{"backslashes are a name", in(`dir\..\..\out\secret`), []string{"file_not_found"}},
		{"dots of full width are a name", in("．．/out/secret"), []string{"file_not_found"}},
		{"a link to itself", in("loop"), []string{"invalid_file", never}},

		{"a directory", in("dir"), []string{"file_not_regular"}},
		{"a link to a directory", in("directory"), []string{"file_not_regular"}},
		{"the root itself", s.inside, []string{"file_not_regular"}},
		{"a FIFO that nobody writes to", in("fifo"), []string{"file_not_regular"}},
		{"a link to a FIFO", in("fifo-link"), []string{"file_not_regular"}},
		{"a socket", in("socket"), []string{"file_not_regular"}},

		{"the daemon's environment", "/proc/self/environ", []string{never}},
		{"the daemon's environment, by its number", pid + "/environ", []string{never}},
		{"the daemon's memory", "/proc/self/mem", []string{never}},
		{"with slashes and dots", "//proc/.//self/../self/environ", []string{never}},
		{"upwards and down again", s.inside + up + "/proc/self/environ", []string{never}},
		{"by the root of a process", "/proc/self/root" + s.good.path, []string{never}},
		{"by the directory of a process", "/proc/self/cwd/go.mod", []string{never}},
		{"a descriptor", "/proc/self/fd/3", []string{never}},
		{"a descriptor in /dev", "/dev/fd/3", []string{never}},
		{"a thread's environment", "/proc/thread-self/environ", []string{never}},
		{"standard input", "/dev/stdin", []string{never}},
		{"zeros without end", "/dev/zero", []string{never}},
		{"memory shared by name", "/dev/shm/x", []string{never}},
		{"what the kernel shows", "/sys/kernel/notes", []string{never}},
		{"a link to the environment", in("environ"), []string{never}},
		{"a link to a link to it", in("environ-chain"), []string{never}},
		{"a relative link to it", in("environ-climbing"), []string{never}},
		{"by a link to /proc", in("proc/self/environ"), []string{never}},
		{"by a link to /", in("all/proc/self/environ"), []string{never}},
		{"a link to zeros without end", in("zero"), []string{never}},
		{"a link to what the kernel shows", in("sys"), []string{never}},
	}
	home, token := setting(d.env, "HOME"), setting(d.env, "S3DAEMON_TOKEN_FILE")
	all = append(all,
		pathTrick{"the journal", d.dataDir() + "/journal.db", []string{never}},
		pathTrick{"a link to the journal", s.link(d.dataDir() + "/journal.db"), []string{never}},
		pathTrick{"what is not there beside it", d.dataDir() + "/nothing", []string{never}},
		pathTrick{"by a link to its directory", s.link(d.dataDir()) + "/journal.db", []string{never}},
		pathTrick{"the credentials of the daemon's user", home + "/.aws/credentials", []string{never}},
		pathTrick{"a link to them", s.link(home + "/.aws/credentials"), []string{never}},
		pathTrick{"a hard link to them", s.hardLink(home + "/.aws/credentials"), []string{never}},
		pathTrick{"what a login has left", home + "/.aws/sso/cache/token.json", []string{never}},
		pathTrick{"the token", token, []string{never}},
		pathTrick{"a link to the token", s.link(token), []string{never}},
		pathTrick{"a hard link to the token", s.hardLink(token), []string{never}},
		pathTrick{"the secrets of a pod", "/run/secrets/kubernetes.io/serviceaccount/token", []string{never}},
	)
	away := []pathTrick{
		{"outside", s.secret, nil},
		{"outside, where nothing is", filepath.Join(s.outside, "nothing"), []string{"file_not_found"}},
		{"outside, upwards", s.inside + "/../out/secret", nil},
		{"outside, upwards by what is not there", s.inside + "/nothing/../../out/secret", []string{"file_not_found"}},
		{"a neighbour whose name begins like the root's", s.inside + "side/x", []string{"file_not_found"}},
		{"a link that leaves", in("leaving"), nil},
		{"a relative link that leaves", in("climbing"), nil},
		{"a link to a link that leaves", in("leaving-chain"), nil},
		{"by a link to a directory outside", in("away/secret"), nil},
		{"a link by a link to a directory outside", in("leaving-by-directory"), nil},
		{"a link that leaves to nothing", in("leaving-to-nothing"), []string{"file_not_found"}},
		{"nothing by a link to a directory outside", in("away/nothing"), []string{"file_not_found"}},
		{"a directory outside by a link", in("away"), []string{"file_not_regular"}},
		{"the users of the host", "/etc/passwd", nil},
	}
	if rooted { // none may be told from another: that would show what is there
		for _, trick := range away {
			all = append(all, pathTrick{trick.name, trick.path, []string{never}})
		}
	} else {
		for _, trick := range away {
			if trick.codes != nil { // the others are files like any
				all = append(all, trick)
			}
		}
	}
	return all
}

// link makes a link inside to a place, and returns its path.
func (s *scene) link(to string) string {
	path := filepath.Join(s.inside, fmt.Sprintf("link-%x", sha256.Sum256([]byte(to))))
	if err := os.Symlink(to, path); err != nil && !errors.Is(err, fs.ErrExist) {
		panic(err)
	}
	return path
}

// hardLink gives a file another name inside, and returns that.
func (s *scene) hardLink(to string) string {
	path := filepath.Join(s.inside, fmt.Sprintf("hard-%x", sha256.Sum256([]byte(to))))
	if err := os.Link(to, path); err != nil && !errors.Is(err, fs.ErrExist) {
		panic(err)
	}
	return path
}

// guardedHome makes a home with credentials, and a token, and returns the
// settings of a daemon that has them. They are where the scene is, so that hard
// links can be made.
func (s *scene) guardedHome(t *testing.T) []string {
	t.Helper()
	home := filepath.Join(filepath.Dir(s.inside), "home")
	aws, token := filepath.Join(home, ".aws"), filepath.Join(home, "token")
	err := errors.Join(os.MkdirAll(filepath.Join(aws, "sso/cache"), 0o700),
		os.WriteFile(filepath.Join(aws, "credentials"), []byte("# "+hidden+"\n"), 0o600),
		os.WriteFile(filepath.Join(aws, "sso/cache/token.json"), []byte(hidden), 0o600),
		os.WriteFile(token, []byte(attackToken+"\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return []string{"HOME=" + home, "S3DAEMON_TOKEN_FILE=" + token}
}

// attackToken is what the API wants over TCP in these tests.
const attackToken = "e2e-token-that-nobody-guesses"

// Every path trick is answered at once with a problem that says what is wrong,
// or is honest. Of the others no byte reaches the store, and nothing is left of
// them: not a descriptor, not a goroutine.
func TestPathTricks(t *testing.T) {
	s := newScene(t)
	for _, tt := range []struct {
		name   string
		rooted bool
		env    []string
	}{
		{"without roots", false, nil},
		{"with a root", true, []string{"S3DAEMON_ROOTS=" + s.inside}},
		{"with two roots, one of them a link in the other", true, []string{"S3DAEMON_ROOTS=" + s.inside + "," + s.link(s.inside+"/dir")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newFaultProxy(t)
			bucket := newBucket(t)
			settings := append(s.guardedHome(t), "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_LISTEN=unix:"+socketPath(t))
			d := startDaemon(t, append(settings, tt.env...)...)
			d.push(t, s.good.path, "s3://"+bucket+"/first").done(t)
			before, made := d.openLoad(), 1
			for i, trick := range s.tricks(d, tt.rooted) {
				key := fmt.Sprint("trick-", i)
				asked := len(p.requests(""))
				a := s.try(t, d, trick, "s3://"+bucket+"/"+key)
				if len(trick.codes) == 0 {
					a.done(t)
					s.good.takeObject(t, bucket, key)
					made++
					continue
				}
				checkTrick(t, trick, a)
				if now := p.requests("")[asked:]; slices.ContainsFunc(now, func(x exchange) bool { return x.bucket != "" }) {
					t.Errorf("%s: the store was asked for %+v", trick.name, now)
				}
			}
			if n := len(p.requests("PutObject")); n != made {
				t.Errorf("the store was sent %d objects, want %d", n, made)
			}
			if open := d.openFiles(filepath.Dir(s.inside)); len(open) > 0 {
				t.Errorf("the daemon still has open: %v", open)
			}
			checkReturns(t, d, before)
			if strings.Contains(string(d.out.bytes()), hidden) {
				t.Error("the log has what is in a file")
			}
		})
	}
}

// try pushes a path as a form, which carries any bytes.
func (s *scene) try(t *testing.T, d *daemon, trick pathTrick, destination string) answer {
	t.Helper()
	const soon = 20 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	form := url.Values{"file": {trick.path}, "destination": {destination}}.Encode()
	a, err := d.send(d.client, d.request(ctx, "POST", "/push", "application/x-www-form-urlencoded", form))
	if err != nil {
		t.Fatalf("%s: %v", trick.name, err)
	}
	return a
}

// checkTrick fails the test unless the answer is a clear refusal, for one of the
// reasons that it may have.
func checkTrick(t *testing.T, trick pathTrick, a answer) {
	t.Helper()
	got, err := a.problem()
	switch {
	case err != nil:
		t.Errorf("%s (%.100q): %v", trick.name, trick.path, err)
	case !slices.Contains(trick.codes, got.Code):
		t.Errorf("%s (%.100q): %d %s, want %s: %s", trick.name, trick.path, a.status, got.Code, strings.Join(trick.codes, " or "), got.Detail)
	case got.ID != "":
		t.Errorf("%s: a push was accepted: %+v", trick.name, got)
	case strings.Contains(string(a.body), hidden):
		t.Errorf("%s: the answer has what is in the file: %s", trick.name, a.body)
	}
}

// A link that is turned to a forbidden file and back as quickly as can be gets
// no byte of it out, whenever it is turned: what was checked is what is read.
func TestSwappedLink(t *testing.T) {
	s := newScene(t)
	for _, tt := range []struct {
		name, allowed, forbidden string
		beneath                  string // of both, what is pushed
		env                      []string
	}{
		{"without roots", s.good.path, "/proc/self/environ", "", nil},
		{"with a root", s.good.path, s.secret, "", []string{"S3DAEMON_ROOTS=" + s.inside}},
		{"a directory", filepath.Dir(s.good.path), filepath.Join(s.outside, "dir"), "/good", []string{"S3DAEMON_ROOTS=" + s.inside}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bucket := newBucket(t)
			d := startDaemon(t, tt.env...)
			before := d.openLoad()
			path := filepath.Join(s.inside, "swapped")
			stop := swapLinks(t, path, tt.allowed, tt.forbidden)
			ends := s.pushSwapped(t, d, bucket, path+tt.beneath, 500)
			stop()
			t.Logf("500 pushes of a link that is swapped ended so: %v", ends)
			if ends["done"] == 0 || ends["file_not_allowed"] == 0 {
				t.Error("the link was never swapped at the right moment: this shows nothing")
			}
			for key := range listObjects(t, bucket) { // of pushes that failed too
				s.good.takeObject(t, bucket, key)
			}
			checkReturns(t, d, before)
			if strings.Contains(string(d.out.bytes()), hidden) {
				t.Error("the log has what is in a file")
			}
		})
	}
}

// pushSwapped pushes a path whose end changes, and returns how many pushes ended
// how. None may end in a way that somebody would have to look into.
func (s *scene) pushSwapped(t *testing.T, d *daemon, bucket, path string, n int) map[string]int {
	t.Helper()
	ends := map[string]int{}
	var mu sync.Mutex // guards ends
	var callers sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		callers.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				a, err := d.tryPush(context.Background(), path, fmt.Sprintf("s3://%s/%d", bucket, i))
				if err != nil {
					t.Error(err)
					return
				}
				end := "done"
				if a.status != 200 {
					p, err := a.problem()
					if end = p.Code; err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				ends[end]++
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	for end := range ends {
		if !slices.Contains([]string{"done", "file_not_allowed", "file_changed"}, end) {
			t.Errorf("%d pushes ended as %s", ends[end], end)
		}
	}
	return ends
}

// swapLinks makes path a link to each of the targets in turn, without a moment
// in which it is none, until the function that it returns is called.
func swapLinks(t *testing.T, path string, targets ...string) (stop func()) {
	t.Helper()
	turn := func(i int) error {
		next := path + ".next"
		if err := os.Symlink(targets[i%len(targets)], next); err != nil {
			return err
		}
		return os.Rename(next, path)
	}
	if err := turn(0); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-over:
				return
			default:
			}
			if err := turn(i); err != nil {
				t.Errorf("swap the link: %v", err)
				return
			}
		}
	})
	stop = sync.OnceFunc(func() { close(over); swapper.Wait() })
	t.Cleanup(stop)
	return stop
}
