package transport

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// kernelProgress asks the kernel about a TCP connection.
func kernelProgress(conn net.Conn) (p progress, ok bool) {
	control(conn, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
		if err == nil {
			p, ok = progress{acked: int64(info.Bytes_acked), waiting: info.Unacked > 0 || info.Notsent_bytes > 0}, true
		}
	})
	return p, ok
}

// limitSilence has the kernel end the connection when what was sent has not
// been acknowledged for that long. A kernel that cannot do so has limits of its
// own, longer ones.
func limitSilence(conn net.Conn, limit time.Duration) {
	control(conn, func(fd int) {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
	})
}

// control calls do with the descriptor of a TCP connection that is open.
func control(conn net.Conn, do func(fd int)) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { do(int(fd)) }) // which fails once it is closed
	}
}
