package listen

import (
	"context"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// bindShut listens on a path that gives nobody a permission. Linux takes those
// of the socket, which has no name yet, over to the name that it gets.
func bindShut(path string) (*net.UnixListener, error) {
	shut := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		if err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0) }); err != nil {
			return err
		}
		return failed
	}}
	return listenUnix(shut.Listen(context.Background(), "unix", path))
}

// settle gives the socket that was bound to the path its group and mode, and
// returns what it is. Who may write to its directory can put a link in its
// place at any moment. So it is taken hold of, by its name and no link, and is
// known by what no other has: it is ours, and shut.
func (s Socket) settle(path string) (fs.FileInfo, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, errReplaced
	}
	held := os.NewFile(uintptr(fd), path)
	defer held.Close()
	is, err := held.Stat()
	if err != nil {
		return nil, err
	}
	if is.Mode() != fs.ModeSocket || is.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
		return nil, errReplaced
	}
	if s.Group != -1 {
		if err := unix.Fchownat(fd, "", -1, s.Group, unix.AT_EMPTY_PATH); err != nil {
			return is, errGroup(s.Group, err)
		}
	}
	return is, os.Chmod("/proc/self/fd/"+strconv.Itoa(fd), s.Mode)
}
