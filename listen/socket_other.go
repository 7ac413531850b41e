//go:build !linux

package listen

import (
	"io/fs"
	"net"
	"os"
	"syscall"
)

// bindShut listens on a path that gives nobody a permission. The mask is the
// process's: a file that something else makes at the same moment has none
// either, so this is for its start only.
func bindShut(path string) (*net.UnixListener, error) {
	before := syscall.Umask(0o777)
	defer syscall.Umask(before)
	return listenUnix(net.Listen("unix", path))
}

// settle gives the socket that was bound to the path its group and mode, and
// returns what it is. Without O_PATH a link that is put in its place after the
// look is followed.
func (s Socket) settle(path string) (fs.FileInfo, error) {
	is, err := os.Lstat(path)
	if err != nil || is.Mode() != fs.ModeSocket {
		return nil, errReplaced
	}
	if s.Group != -1 {
		if err := os.Lchown(path, -1, s.Group); err != nil {
			return is, errGroup(s.Group, err)
		}
	}
	return is, os.Chmod(path, s.Mode)
}
