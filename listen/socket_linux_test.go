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
	"syscall"
	"testing"
)

// nobody is a user and a group that the tests, run by root, are not.
const nobody = 65534

// dialFlag makes this test binary a process that connects to the path that
// follows, and says how that went.
const dialFlag = "dial-as-somebody"

func TestMain(m *testing.M) {
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
