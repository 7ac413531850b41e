package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cutKind is how a fault proxy is cut off.
type cutKind int

const (
	cutNot cutKind = iota
	// cutClosed closes the port: connections are refused. The proxy cannot
	// count what never comes to it; countSYNs can, with privileges.
	cutClosed
	// cutReset makes connections and resets them at once, which counts them.
	cutReset
)

// cutOff cuts every connection, and lets none in until restore.
func (p *faultProxy) cutOff(kind cutKind) {
	p.mu.Lock()
	p.cut = kind
	listener := p.listener
	if kind == cutClosed {
		p.listener = nil
	}
	var open []*faultConn
	for c := range p.conns {
		open = append(open, c)
	}
	p.mu.Unlock()
	if kind == cutClosed && listener != nil {
		listener.Close()
	}
	for _, c := range open {
		c.reset()
	}
}

// restore lets connections in again.
func (p *faultProxy) restore(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	p.cut = cutNot
	closed := p.listener == nil
	p.mu.Unlock()
	if closed {
		if err := p.listen(); err != nil {
			t.Fatal(err)
		}
	}
}

// admit counts a connection, and returns it unless the proxy is cut off.
func (p *faultProxy) admit(conn *net.TCPConn) *faultConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.connects = append(p.connects, time.Now())
	if p.cut != cutNot {
		conn.SetLinger(0)
		conn.Close()
		return nil
	}
	if p.readBuffer > 0 {
		conn.SetReadBuffer(p.readBuffer)
	}
	c := &faultConn{TCPConn: conn, proxy: p, idle: true}
	p.conns[c] = struct{}{}
	return c
}

// connectsSince returns when connections were asked for, from a moment on.
func (p *faultProxy) connectsSince(begin time.Time) (found []time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.connects {
		if at.After(begin) {
			found = append(found, at)
		}
	}
	return found
}

// established reports whether the other side of a connection has neither
// closed nor reset it.
func established(c *faultConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	const tcpEstablished = 1
	state := uint8(0)
	err = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	})
	return err == nil && state == tcpEstablished
}

// daemonHas reports whether a daemon still has its end of a connection. It may
// have died with much in its socket's buffer: then the system goes on sending,
// and on this side the connection is established until all of it is read.
func daemonHas(c *faultConn) bool {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return established(c)
	}
	const loopback, tcpEstablished = "0100007F", "01"
	port := func(a net.Addr) int { return a.(*net.TCPAddr).Port }
	line := fmt.Sprintf(" %s:%04X %s:%04X %s ", loopback, port(c.RemoteAddr()), loopback, port(c.LocalAddr()), tcpEstablished)
	return strings.Contains(string(table), line)
}

// heldPort is a loopback port that nobody else is given, though nobody may be
// listening on it: a socket is bound to it and does not listen.
type heldPort struct {
	addr string
	fd   int
}

func holdPort() (*heldPort, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	// Go sets the same on its listeners: only so can they have the port too.
	if err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("hold a port: %w", err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	return &heldPort{fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port), fd}, nil
}

func (h *heldPort) close() { syscall.Close(h.fd) }
