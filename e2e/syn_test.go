package e2e

import (
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// synCounter sees the packets that ask for a connection to a loopback port,
// whether somebody listens there or not.
type synCounter struct {
	fd   int
	done sync.WaitGroup

	mu   sync.Mutex // guards seen
	seen []time.Time
}

// countSYNs counts the attempts to connect to an address until the test's end.
// It returns nil where the process may not look at packets, and says so.
func countSYNs(t testing.TB, addr string) *synCounter {
	t.Helper()
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := openSYNs(uint32(port))
	if err != nil {
		t.Logf("attempts to connect to a closed port cannot be counted here: %v", err)
		return nil
	}
	c := &synCounter{fd: fd}
	stop := make(chan struct{})
	c.done.Go(func() { c.read(stop) })
	t.Cleanup(func() {
		close(stop)
		c.done.Wait()
		unix.Close(fd)
	})
	return c
}

// openSYNs opens a socket that receives the IPv4 packets on loopback that have
// SYN set, ACK not, and the port as their destination.
func openSYNs(port uint32) (int, error) {
	const ipv4 = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, ipv4)
	if err != nil {
		return -1, err
	}
	// Offsets count from the IP header. Its length is in X for TCP's own.
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 9}, // protocol
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_TCP, Jf: 7},
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 0},
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: 2}, // destination port
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: port, Jf: 4},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: 13}, // flags
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x12},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x02, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	lo, err := net.InterfaceByName("lo")
	if err == nil {
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: lo.Index})
	}
	if err == nil {
		// So that read looks up now and then.
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (c *synCounter) read(stop <-chan struct{}) {
	buf := make([]byte, 256)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, from, err := unix.Recvfrom(c.fd, buf, 0)
		if err != nil || n == 0 {
			continue // the time limit
		}
		// Loopback shows each packet as it leaves and as it comes.
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_HOST {
			c.mu.Lock()
			c.seen = append(c.seen, time.Now())
			c.mu.Unlock()
		}
	}
}

// since returns when connections were asked for, from a moment on.
func (c *synCounter) since(begin time.Time) (found []time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.seen {
		if at.After(begin) {
			found = append(found, at)
		}
	}
	return found
}
