package listen

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

var errNotUnix = errors.New("it is no connection of a Unix socket")

// User returns the user (uid) of the process that made a connection to a unix:/
// address, as the kernel noted it when it connected. Where the process is in
// another user namespace, that is how its user is called in this one: all those
// who have no name here are one user, 65534 as a rule.
func User(c net.Conn) (uint32, error) {
	for {
		inner, wrapped := c.(interface{ NetConn() net.Conn })
		if !wrapped {
			break
		}
		c = inner.NetConn()
	}
	unixConn, is := c.(*net.UnixConn)
	if !is {
		return 0, errNotUnix
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return 0, err
	}
	return ask(raw)
}

func ask(raw syscall.RawConn) (uid uint32, err error) {
	var failed error
	if err := raw.Control(func(fd uintptr) { uid, failed = peer(int(fd)) }); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, fmt.Errorf("ask the kernel who connected: %w", failed)
	}
	return uid, nil
}
