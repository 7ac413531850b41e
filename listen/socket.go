package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Socket says who may connect to a unix:/ address.
type Socket struct {
	Mode  fs.FileMode // permissions: who may connect has that to write
	Group int         // the group that they speak of; -1: the process's own
}

// open listens on a path, in the place of a socket that nobody listens on any
// more. Daemons that open the same take turns.
func (s Socket) open(path string) (net.Listener, error) {
	defer lock(filepath.Dir(path))()
	l, err := s.bind(path)
	if errors.Is(err, syscall.EADDRINUSE) && abandoned(path) {
		// Who may write to the directory can have made it another name by now. What
		// goes is a name, never a directory.
		if err := syscall.Unlink(path); err != nil {
			return nil, &fs.PathError{Op: "remove", Path: path, Err: err}
		}
		return s.bind(path)
	}
	return l, err
}

// bind makes the socket. Nobody can connect to it who may not when all is done:
// until it has its group nobody may at all.
func (s Socket) bind(path string) (net.Listener, error) {
	l, err := bindShut(path)
	if err != nil {
		return nil, err
	}
	is, err := s.settle(path)
	b := &bound{UnixListener: l, path: path, is: is}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// bound is a listener whose name goes with it, unless that is another's by then.
type bound struct {
	*net.UnixListener
	path   string
	is     fs.FileInfo // of the socket; nil: nothing is known of it
	unlink sync.Once
}

// Close takes the name away first, so that nobody finds a socket that is dead.
func (b *bound) Close() error {
	b.unlink.Do(func() {
		if now, err := os.Lstat(b.path); err == nil && os.SameFile(now, b.is) {
			_ = syscall.Unlink(b.path) // else it is abandoned, as after a kill
		}
	})
	return b.UnixListener.Close()
}

// listenUnix leaves the name of a listener to bound.
func listenUnix(l net.Listener, err error) (*net.UnixListener, error) {
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false)
	return u, nil
}

// abandoned reports whether the path is a socket that nobody listens on, as a
// killed daemon leaves behind.
func abandoned(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// lockPatience is how long another process may hold up a start. Any that may
// read the directory can.
const lockPatience = time.Second

// lock keeps other daemons from opening sockets in the directory until the
// function that it returns is called: between its bind and its listen a socket
// looks abandoned, and one that is found so may be another daemon's a moment
// later. Where the directory cannot be locked that has to be borne.
func lock(dir string) (unlock func()) {
	d, err := os.Open(dir)
	if err != nil {
		return func() {}
	}
	for end := time.Now().Add(lockPatience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	return func() { d.Close() }
}

// Replaceable returns a directory above the path in which every user may put
// something else in the place of what is there, and be talked to instead; or "".
func Replaceable(path string) string {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}

// errReplaced is the failure of who finds another's in the place of his socket.
var errReplaced = errors.New("something else was put in the place of the socket: choose a directory that no other user may write to")

func errGroup(group int, err error) error {
	return fmt.Errorf("give it to the group %d, which the process's user must be in: %w", group, err)
}
