//go:build unix

package legacy

import (
	"errors"
	"net"
	"syscall"
)

// maxConnections is how many connections may be open: three quarters of the
// descriptors this process may have. The rest is for those to the daemon, and
// for whatever else runs in the process. The Go runtime has already raised the
// soft limit to the hard one.
func maxConnections() int {
	const most = 1 << 20
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 768
	}
	return max(1, int(min(uint64(limit.Cur), most)*3/4))
}

// passing reports whether Accept can be expected to work again after it
// failed with err: a client that is gone already, or a shortage.
func passing(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.ECONNABORTED, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EPROTO,
		syscall.EPERM, // what a firewall makes of it
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// unread reports whether the connection has input that nobody has read.
func unread(conn net.Conn) bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, _ = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return n > 0
}
