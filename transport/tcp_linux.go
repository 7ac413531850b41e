package transport

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limitSilence has the kernel end the connection when what was sent has not
// been acknowledged for that long. A kernel that cannot do so has limits of its
// own, longer ones.
func limitSilence(conn net.Conn, limit time.Duration) {
	control(conn, func(fd int) {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
	})
}

// setCongestion asks for a congestion control. It fails with EPERM where the
// host does not allow it to everybody, and with ENOENT where the kernel has none
// of that name; the connection has the host's default then.
func setCongestion(fd int, algorithm string) error {
	return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, algorithm)
}

// traitsOf asks for what does not change.
func traitsOf(conn net.Conn) (t traits) {
	control(conn, func(fd int) {
		t.algorithm, _ = unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		size, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
		t.sendBuffer = int64(size)
	})
	return t
}

// control calls do with the descriptor of a TCP connection that is open.
func control(c net.Conn, do func(fd int)) {
	if tcp, ok := bare(c).(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			controlRaw(raw, do)
		}
	}
}

func controlRaw(raw syscall.RawConn, do func(fd int)) {
	_ = raw.Control(func(fd uintptr) { do(int(fd)) }) // which fails once it is closed
}
