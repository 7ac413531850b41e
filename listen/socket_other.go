//go:build !linux

package listen

import (
	"net"
	"syscall"
)

// bindShut listens on a path that gives nobody a permission. The mask is the
// process's: a file that something else makes at the same moment has none
// either, so this is for its start only.
func bindShut(path string) (net.Listener, error) {
	before := syscall.Umask(0o777)
	defer syscall.Umask(before)
	return net.Listen("unix", path)
}
