package listen

import (
	"context"
	"net"
	"syscall"
)

// bindShut listens on a path that gives nobody a permission. Linux takes those
// of the socket, which has no name yet, over to the name that it gets.
func bindShut(path string) (net.Listener, error) {
	shut := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		if err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0) }); err != nil {
			return err
		}
		return failed
	}}
	return shut.Listen(context.Background(), "unix", path)
}
