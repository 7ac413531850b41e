package listen

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// nobody is a user and a group that the tests, run by root, are not.
const nobody = 65534

// dialFlag makes this test binary a process that connects to the path that
// follows, and says how that went.
const dialFlag = "dial-as-somebody"

// swapFlag makes it one that puts a link to the second path in the place of each
// socket that turns up at the first.
const swapFlag = "swap-for-a-link"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == swapFlag {
		swap(os.Args[2], os.Args[3])
	}
	if len(os.Args) == 3 && os.Args[1] == dialFlag {
		c, err := net.Dial("unix", os.Args[2])
		if err != nil {
			os.Stdout.WriteString(err.Error())
			os.Exit(1)
		}
		c.Read(make([]byte, 1)) // until it is closed
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// as returns a process of another user, and one more group, that connects to the path.
func as(t *testing.T, uid, gid uint32, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", dialFlag, path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func swap(path, victim string) {
	os.Stdout.WriteString("ready")
	var is syscall.Stat_t
	for {
		if syscall.Lstat(path, &is) == nil && is.Mode&syscall.S_IFMT == syscall.S_IFSOCK && syscall.Rename(path, path+".away") == nil {
			syscall.Symlink(victim, path)
		}
	}
}

// openDir returns a directory that other users may enter.
func openDir(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can be other users")
	}
	dir, err := os.MkdirTemp("", "listen")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestSocketMode(t *testing.T) {
	before := syscall.Umask(0o027) // which has no say
	defer syscall.Umask(before)
	for _, mode := range []fs.FileMode{0o600, 0o660, 0o666, 0o777, 0o200} {
		path := filepath.Join(t.TempDir(), "socket")
		l, err := All([]string{"unix:" + path}, Socket{Mode: mode, Group: os.Getgid()})
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != mode|fs.ModeSocket || info.Sys().(*syscall.Stat_t).Gid != uint32(os.Getgid()) {
			t.Errorf("mode %v: %v, %v", mode, info.Mode(), err)
		}
		Close(l)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("mode %v: the socket is still there: %v", mode, err)
		}
	}
}

// TestSocketGroup has processes of other users connect, and asks who they are.
func TestSocketGroup(t *testing.T) {
	path := filepath.Join(openDir(t), "socket")
	const group, stranger = 54321, 54322
	listeners, err := All([]string{"unix:" + path}, Socket{Mode: 0o660, Group: group})
	if err != nil {
		t.Fatal(err)
	}
	defer Close(listeners)
	for _, p := range []struct {
		uid, gid uint32
		may      bool
	}{{nobody, group, true}, {stranger, group, true}, {nobody, nobody, false}, {0, 0, true}} {
		cmd := as(t, p.uid, p.gid, path)
		if !p.may {
			if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "permission denied") {
				t.Errorf("%d:%d: %s, %v", p.uid, p.gid, out, err)
			}
			continue
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c, err := listeners[0].Accept()
		if err != nil {
			t.Fatal(err)
		}
		if uid, err := User(struct{ net.Conn }{c}); err == nil {
			t.Errorf("something around the connection that does not show it: user %d", uid)
		}
		for _, c := range []net.Conn{c, wrapped{c}, wrapped{wrapped{c}}} {
			if uid, err := User(c); err != nil || uid != p.uid {
				t.Errorf("user %d, %v, want %d", uid, err, p.uid)
			}
		}
		c.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// wrapped is a connection with something around it, as tls.Conn is.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// TestSocketIsNeverWider: what is bound lets nobody in before it has its group,
// though the process would have it otherwise.
func TestSocketIsNeverWider(t *testing.T) {
	dir := openDir(t)
	before := syscall.Umask(0)
	defer syscall.Umask(before)
	path := filepath.Join(dir, "socket")
	l, err := bindShut(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0 {
		t.Errorf("before it has its group the mode is %v, %v", info.Mode(), err)
	}
	if out, err := as(t, nobody, nobody, path).CombinedOutput(); err == nil || !strings.Contains(string(out), "permission denied") {
		t.Errorf("before it has its group a stranger gets %s, %v", out, err)
	}
}

// TestSocketSwapped has another user, who may write to the directory, put a link
// to a file of ours in the place of the socket at any moment: the file keeps its
// mode and its group.
func TestSocketSwapped(t *testing.T) {
	dir := openDir(t)
	shared, victim := filepath.Join(dir, "shared"), filepath.Join(dir, "victim")
	if err := errors.Join(os.WriteFile(victim, nil, 0o600), os.Mkdir(shared, 0), os.Chmod(shared, 0o777)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(shared, "socket")
	swapper := exec.Command("/proc/self/exe", swapFlag, path, victim)
	swapper.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	said, err := swapper.StdoutPipe()
	if err == nil {
		err = swapper.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer swapper.Wait()
	defer swapper.Process.Kill()
	if _, err := said.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	noticed, linked := 0, 0
	for range 3000 {
		l, err := All([]string{"unix:" + path}, Socket{Mode: 0o666, Group: nobody})
		if errors.Is(err, errReplaced) {
			noticed++
		} else if err != nil && !errors.Is(err, syscall.EADDRINUSE) { // by a link of the round before
			t.Fatal(err)
		}
		Close(l)
		if now, err := os.Lstat(path); err == nil && now.Mode().Type() == fs.ModeSymlink {
			linked++
		}
		os.Remove(path)
		os.Remove(path + ".away")
		info, err := os.Stat(victim)
		if err != nil || info.Mode() != 0o600 || info.Sys().(*syscall.Stat_t).Gid != 0 {
			t.Fatalf("the file is %v, of the group %d: %v", info.Mode(), info.Sys().(*syscall.Stat_t).Gid, err)
		}
	}
	t.Logf("of 3000 sockets %d were found to be swapped before they had their mode, and %d links were left", noticed, linked)
}

// TestSocketAbandonedToMany has several find the same dead socket at the same
// moment: one of them gets the path, and nobody takes it away from that one.
func TestSocketAbandonedToMany(t *testing.T) {
	for range 100 {
		path := filepath.Join(t.TempDir(), "socket")
		dead, err := bindShut(path)
		if err != nil {
			t.Fatal(err)
		}
		dead.Close()
		var won atomic.Int32
		var daemons sync.WaitGroup
		var mu sync.Mutex
		var all []net.Listener
		for range 4 {
			daemons.Go(func() {
				l, err := All([]string{"unix:" + path}, own)
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, syscall.EADDRINUSE) {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, l...)
			})
		}
		daemons.Wait()
		c, err := net.Dial("unix", path)
		if err != nil || won.Load() != 1 {
			t.Errorf("%d daemons have the path: %v", won.Load(), err)
		} else {
			c.Close()
		}
		Close(all)
	}
}

// TestSocketOfAnother: who has lost his name to another leaves it to him.
func TestSocketOfAnother(t *testing.T) {
	address := "unix:" + filepath.Join(t.TempDir(), "socket")
	open := func() []net.Listener {
		t.Helper()
		l, err := All([]string{address}, own)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	first := open()
	if err := os.Remove(first[0].Addr().String()); err != nil { // as what cleans /tmp does
		t.Fatal(err)
	}
	second := open()
	Close(first)
	Close(first) // a second time, when its number is free
	c, err := net.Dial("unix", second[0].Addr().String())
	if err != nil {
		t.Fatalf("the second is gone with the first: %v", err)
	}
	c.Close()
	Close(second)
}

func TestReplaceable(t *testing.T) {
	dir := t.TempDir()
	inner := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		outer, inner fs.FileMode
		want         string
	}{
		{0o755, 0o755, ""}, {0o775, 0o770, ""}, {0o755, 0o777, inner}, {0o777, 0o755, filepath.Dir(inner)}, {0o702, 0o755, filepath.Dir(inner)},
		{0o777 | fs.ModeSticky, 0o755, ""}, {0o755, 0o777 | fs.ModeSticky, ""},
	} {
		if err := errors.Join(os.Chmod(filepath.Dir(inner), tc.outer), os.Chmod(inner, tc.inner)); err != nil {
			t.Fatal(err)
		}
		if got := Replaceable(filepath.Join(inner, "socket")); got != tc.want {
			t.Errorf("%v, %v: %q, want %q", tc.outer, tc.inner, got, tc.want)
		}
	}
}

// TestSocketMaskOfOthers: what else the process makes meanwhile has the
// permissions that it is given.
func TestSocketMaskOfOthers(t *testing.T) {
	before := syscall.Umask(0o022)
	defer syscall.Umask(before)
	dir := t.TempDir()
	stop := make(chan struct{})
	var maker sync.WaitGroup
	maker.Go(func() {
		for range 2000 {
			f, err := os.OpenFile(filepath.Join(dir, "f"), os.O_CREATE|os.O_EXCL, 0o666)
			if err != nil {
				t.Error(err)
				break
			}
			if info, err := f.Stat(); err != nil || info.Mode() != 0o644 {
				t.Errorf("a file was made with mode %v, %v", info.Mode(), err)
			}
			f.Close()
			os.Remove(f.Name())
		}
		close(stop)
	})
	for path := filepath.Join(dir, "socket"); !closed(stop); {
		l, err := All([]string{"unix:" + path}, own)
		if err != nil {
			t.Fatal(err)
		}
		Close(l)
	}
	maker.Wait()
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestSocketOfAForeignGroup: a group that cannot be had is said, and leaves
// nothing behind.
func TestSocketOfAForeignGroup(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may give files to any group")
	}
	path := filepath.Join(t.TempDir(), "socket")
	_, err := All([]string{"unix:" + path}, Socket{Mode: 0o660, Group: 0})
	if err == nil || !strings.Contains(err.Error(), "the group 0") {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestUserOfTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if uid, err := User(c); !errors.Is(err, errNotUnix) {
		t.Errorf("user %d, %v", uid, err)
	}
}
