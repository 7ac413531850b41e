package transport

import (
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deaf opens a port that says nothing to whoever connects: it has as many waiting
// as there may be.
func deaf(t *testing.T, host [4]byte) (port string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: host}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port = strconv.Itoa(bound.(*unix.SockaddrInet4).Port)
	for range 10 {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(net.IP(host[:]).String(), port), 100*time.Millisecond)
		if err != nil {
			return port
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("it takes whoever comes")
	return ""
}

// TestSilentAddress: one that says nothing leaves time for the next, and is not
// waited for again.
func TestSilentAddress(t *testing.T) {
	t.Parallel()
	port := deaf(t, [4]byte{127, 0, 0, 1})
	l, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Skip("the port is taken on another address: ", err)
	}
	defer l.Close()
	d := named(&said{addrs: []string{"127.0.0.1", "127.0.0.2"}})
	d.cfg.ConnectTimeout = 2 * leastShare
	for _, most := range []time.Duration{2 * leastShare, leastShare} {
		begun := time.Now()
		if _, host := dialHost(t, d, "store:"+port); host != "127.0.0.2" || time.Since(begun) >= most {
			t.Errorf("it is to %s, after %v", host, time.Since(begun))
		}
	}
}
