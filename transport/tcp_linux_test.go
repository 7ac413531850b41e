package transport

import (
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onThread runs do on a thread of its own, which ends with it: so that may change
// what the kernel keeps for each thread.
func onThread(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and is never unlocked
		do()
	}()
	<-done
}

// administering is the right to administer the network, in a set of capabilities.
const administering = 1 << unix.CAP_NET_ADMIN

// rights returns those of this thread.
func rights(t *testing.T) (head unix.CapUserHeader, data [2]unix.CapUserData) {
	head.Version = unix.LINUX_CAPABILITY_VERSION_3
	if err := unix.Capget(&head, &data[0]); err != nil {
		t.Error(err)
	}
	return head, data
}

// administers reports whether this thread has the right.
func administers(t *testing.T) bool {
	_, data := rights(t)
	return data[0].Effective&administering != 0
}

// giveUpRight makes this thread one that has not.
func giveUpRight(t *testing.T) {
	head, data := rights(t)
	data[0].Effective &^= administering
	if err := unix.Capset(&head, &data[0]); err != nil {
		t.Error(err)
	}
}

// sysctl returns what the kernel has under a name, in words.
func sysctl(name string) []string {
	text, _ := os.ReadFile("/proc/sys/net/ipv4/" + name)
	return strings.Fields(string(text))
}

// shown are the options of a connection.
type shown struct {
	algorithm string
	buffer    int  // as it is now
	set       bool // it does not grow by itself
	unsent    int
}

// madeBy makes a connection on this thread, and asks for its options.
func madeBy(t *testing.T, d *Dialer) (s shown) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return s
	}
	defer l.Close()
	made, err := d.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Error(err)
		return s
	}
	defer made.Close()
	control(made, func(fd int) {
		s.algorithm, _ = unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		s.buffer, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
		s.unsent, _ = unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
		locked, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
		s.set = locked&unix.SOCK_SNDBUF_LOCK != 0
	})
	if info, _ := infoOf(made); info.Algorithm != s.algorithm || info.SendBuffer != d.TCP().SendBuffer {
		t.Errorf("it says of itself %s, %d", info.Algorithm, info.SendBuffer)
	}
	return s
}

func dialerWith(congestion string) *Dialer {
	return NewDialer(DialConfig{ConnectTimeout: 5 * time.Second, StallTimeout: 10 * time.Second, Congestion: congestion})
}

// TestCongestion: what the kernel allows is had; what it refuses to those without
// the right, or does not have, is replaced by its own choice, and it is said how to
// have it.
func TestCongestion(t *testing.T) {
	usual := sysctl("tcp_congestion_control")[0]
	allowed, available := sysctl("tcp_allowed_congestion_control"), sysctl("tcp_available_congestion_control")
	check := func(name, wanted, algorithm, hint string) {
		t.Helper()
		d := dialerWith(wanted)
		if got := madeBy(t, d); got.algorithm != algorithm || d.TCP().Algorithm != algorithm {
			t.Errorf("%s: a connection has %s, and %s is said", name, got.algorithm, d.TCP().Algorithm)
		}
		if got := d.TCP().Hint; !strings.HasPrefix(got, hint) || hint == "" && got != "" {
			t.Errorf("%s: the hint is %q", name, got)
		}
	}
	onThread(func() {
		giveUpRight(t)
		for _, algorithm := range available {
			if slices.Contains(allowed, algorithm) {
				check("allowed "+algorithm, algorithm, algorithm, "")
			} else {
				check("refused "+algorithm, algorithm, usual, `sysctl -w net.ipv4.tcp_allowed_congestion_control="`+strings.Join(append(allowed, algorithm), " ")+`"`)
			}
		}
		check("unknown", "none_such", usual, "modprobe tcp_none_such && sysctl -w ")
		if slices.Contains(allowed, bbr) {
			check("auto", Auto, bbr, "")
			check("nothing said", "", bbr, "")
		}
	})
	onThread(func() {
		for _, algorithm := range available {
			if administers(t) {
				check("with the right", algorithm, algorithm, "")
			}
		}
	})
}

// TestSendBufferIsSet reads back what connections have, with and without the right
// to administer the network, in a network namespace where the kernel lets a buffer
// grow up to each of some sizes.
func TestSendBufferIsSet(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may make a network namespace")
	}
	for _, grows := range []string{"262144", "4194304", "16777216", "67108864", "134217728"} {
		for _, right := range []bool{true, false} {
			onThread(func() {
				if err := ownNetwork(grows); err != nil {
					t.Errorf("make a network namespace: %v", err)
					return
				}
				if !right {
					giveUpRight(t)
				}
				d := dialerWith(Auto)
				got, tcp := madeBy(t, d), d.TCP()
				if most := mostGrown(); tcp.SendBuffer < most || got.set && int64(got.buffer) != tcp.SendBuffer || !got.set && tcp.SendBuffer != most {
					t.Errorf("it may grow to %s, right %v: it has %+v, and %+v is said", grows, right, got, tcp)
				}
				if forced := right && mostGrown() < wantedBuffer; tcp.Forced != forced || forced && tcp.SendBuffer < wantedBuffer {
					t.Errorf("it may grow to %s, right %v: %+v", grows, right, tcp)
				}
				if unsent := (sendBuffer{reach: tcp.SendBuffer, set: got.set}).unsent(); got.unsent != unsent {
					t.Errorf("it may grow to %s, right %v: %d bytes may be unsent, want %d", grows, right, got.unsent, unsent)
				}
			})
		}
	}
}

// ownNetwork gives this thread a network of its own, with a loopback, where send
// buffers grow up to that size.
func ownNetwork(grows string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	loopback.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, loopback); err != nil {
		return err
	}
	return os.WriteFile("/proc/sys/net/ipv4/tcp_wmem", []byte("4096 16384 "+grows), 0)
}
