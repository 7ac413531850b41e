package transport

import (
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tryOut finds out, on a socket that is never connected, what this host lets a
// connection have.
func tryOut(algorithm string) (TCP, sendBuffer) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil { // and so will be all others
		return TCP{}, sendBuffer{}
	}
	defer unix.Close(fd)
	var t TCP
	if refused := setCongestion(fd, algorithm); refused != nil {
		allowed, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
		t.Hint = hintFor(algorithm, strings.TrimSpace(string(allowed)), refused)
	}
	t.Algorithm, _ = unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	t.restarts = t.Algorithm == bbr && restartFD(fd)
	buffer := buffersOf(fd).choose()
	t.SendBuffer, t.Forced = buffer.reach, buffer.force
	return t, buffer
}

// buffersOf asks for the sizes one after another: where a limit of the host's
// cannot be read, as in some namespaces, what comes of it can.
func buffersOf(fd int) buffers {
	size := func(option int) int64 {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, wantedBuffer/2) != nil { // which the kernel doubles
			return 0
		}
		n, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
		return int64(n)
	}
	return buffers{grows: mostGrown(), asked: size(unix.SO_SNDBUF), forced: size(unix.SO_SNDBUFFORCE)}
}

// mostGrown returns the size up to which the kernel lets a send buffer grow.
func mostGrown() int64 {
	const usual = 4 << 20
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_wmem")
	if err != nil {
		return usual
	}
	fields := strings.Fields(string(text)) // least, first, most
	if len(fields) != 3 {
		return usual
	}
	n, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return usual
	}
	return n
}

// prepare sets what must stand before a connection is made. None of it can fail
// that tryOut did not see fail, or that a connection could not do without.
func prepare(raw syscall.RawConn, algorithm string, buffer sendBuffer) {
	controlRaw(raw, func(fd int) {
		_ = setCongestion(fd, algorithm)
		option := unix.SO_SNDBUF
		if buffer.force {
			option = unix.SO_SNDBUFFORCE
		}
		if buffer.set {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, wantedBuffer/2)
		}
		if most := buffer.unsent(); most != 0 {
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, most)
		}
	})
}

// setCongestion asks for a congestion control. It fails with EPERM where the
// host does not allow it to everybody, and with ENOENT where the kernel has none
// of that name; the connection has the host's default then.
func setCongestion(fd int, algorithm string) error {
	return unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, algorithm)
}

// restart has bbr forget what the connection has carried, and not its window, and
// begin anew from that: twice as fast each round trip. It reports false where that
// cannot be.
func restart(conn net.Conn) (done bool) {
	control(conn, func(fd int) { done = restartFD(fd) })
	return done
}

// restartFD takes another congestion control for a moment, which every kernel has,
// though a host may not allow it.
func restartFD(fd int) bool { return setCongestion(fd, "reno") == nil && setCongestion(fd, bbr) == nil }

// limitRate tells the kernel the most that a connection sends, in bytes a second;
// infinite is no limit.
func limitRate(conn net.Conn, limit float64) {
	most := ^uint64(0)
	if limit < 1<<60 {
		most = uint64(limit)
	}
	control(conn, func(fd int) { _ = unix.SetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, most) })
}

// limitSilence has the kernel end the connection when what was sent has not
// been acknowledged for that long. A kernel that cannot do so has limits of its
// own, longer ones.
func limitSilence(conn net.Conn, limit time.Duration) {
	control(conn, func(fd int) {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
	})
}

// algorithmOf returns the congestion control of a connection.
func algorithmOf(conn net.Conn) (name string) {
	control(conn, func(fd int) { name, _ = unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION) })
	return name
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
