//go:build linux

package link

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newLink makes a link, which is gone with the test.
func newLink(t *testing.T, s Shape) *Link {
	t.Helper()
	before := descriptors(t)
	l, err := New(s)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		t.Skipf("no link can be made here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the link: %v", err)
		}
		if after := descriptors(t); after > before {
			t.Errorf("%d descriptors are left open", after-before)
		}
	})
	return l
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// connect makes a connection over the link, and returns its near end, its far
// end, and how long that has taken.
func connect(t *testing.T, l *Link) (near, far *net.TCPConn, took time.Duration) {
	t.Helper()
	var listener *net.TCPListener
	err := l.Far.Do(func() (err error) {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.Far.Addr, 0)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	start := time.Now()
	err = l.Near.Do(func() (err error) {
		near, err = net.DialTCP("tcp", nil, listener.Addr().(*net.TCPAddr))
		return err
	})
	took = time.Since(start)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	if far, err = listener.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far, took
}

// transfer sends content from one end to the other, and has it read in pieces
// as they come.
func transfer(t *testing.T, from, to *net.TCPConn, content []byte, each func(got int)) {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(content)
		sent <- errors.Join(err, from.CloseWrite())
	}()
	got := make([]byte, 0, len(content)+1)
	for {
		n, err := to.Read(got[len(got):cap(got)])
		got = got[:len(got)+n]
		if each != nil {
			each(len(got))
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, content) {
		t.Error("other bytes arrived than were sent")
	}
}

func TestDelay(t *testing.T) {
	const rtt = 60 * time.Millisecond
	l := newLink(t, Shape{RTT: rtt})
	near, far, took := connect(t, l)
	if took < rtt {
		t.Errorf("a connection was made in %v", took)
	}
	transfer(t, near, far, randomBytes(1<<20), nil)
	var info *unix.TCPInfo
	raw, err := near.SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	}
	if err != nil {
		t.Fatal(err)
	}
	// The least of all round trips is free of what else the machine does.
	if least := time.Duration(info.Min_rtt) * time.Microsecond; least < rtt || least > rtt+rtt/4 {
		t.Errorf("the least round trip took %v, not %v", least, rtt)
	}
}

func TestRate(t *testing.T) {
	const rate, size, first, attempts = 50e6, 4 << 20, 2 << 20, 10
	l := newLink(t, Shape{RTT: 10 * time.Millisecond, Rate: rate, Queue: 200 * time.Millisecond})
	// Where the queue is many times what is on the way, reno always has some in it.
	if err := l.Near.Sysctl("net.ipv4.tcp_congestion_control", "reno"); err != nil {
		t.Fatal(err)
	}
	// When this test itself is kept waiting at the first look at the clock or
	// at the last, it errs; but not each time.
	var measured []float64
	for range attempts {
		near, far, _ := connect(t, l)
		var start time.Time
		var from, got int
		transfer(t, near, far, randomBytes(size), func(n int) {
			if got = n; start.IsZero() && n >= first { // by then TCP fills the link
				start, from = time.Now(), n
			}
		})
		r := float64(got-from) * MTU / (MTU - 52) * 8 / time.Since(start).Seconds()
		if measured = append(measured, r/1e6); r > 0.95*rate && r < 1.05*rate {
			return
		}
	}
	t.Errorf("%.1f Mbit/s, not %.1f", measured, rate/1e6)
}

func TestDrops(t *testing.T) {
	for _, test := range []struct {
		name  string
		shape Shape
		seen  func(Counts) bool
	}{
		{"the queue is full", Shape{RTT: 4 * time.Millisecond, Rate: 200e6, Queue: time.Millisecond},
			func(c Counts) bool { return c.Overflows > 0 && c.Losses == 0 }},
		{"packets are lost", Shape{RTT: 2 * time.Millisecond, Loss: 0.01, Seed: 7},
			func(c Counts) bool { return c.Overflows == 0 && c.Losses > 0 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLink(t, test.shape)
			near, far, _ := connect(t, l)
			content := randomBytes(8 << 20)
			transfer(t, near, far, content, nil)
			if c := l.Near.Sent(); c.Packets < int64(len(content)/MTU) || !test.seen(c) {
				t.Errorf("near sent %+v", c)
			}
			transfer(t, far, near, content, nil)
			if c := l.Far.Sent(); c.Packets < int64(len(content)/MTU) || !test.seen(c) {
				t.Errorf("far sent %+v", c)
			}
		})
	}
}

// TestStart checks where a process is, and that variables of the kernel are
// those of its side.
func TestStart(t *testing.T) {
	l := newLink(t, Shape{})
	if err := l.Near.Sysctl("net.ipv4.tcp_wmem", "4096 16384 1234567"); err != nil {
		t.Fatal(err)
	}
	out := func(s *Side) string {
		t.Helper()
		var b bytes.Buffer
		cmd := exec.Command("cat", "/proc/net/dev", "/proc/sys/net/ipv4/tcp_wmem")
		cmd.Stdout, cmd.Stderr = &b, &b
		if err := s.Start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, b.String())
		}
		return b.String()
	}
	near, far := out(l.Near), out(l.Far)
	for _, text := range []string{near, far} {
		if strings.Count(text, ":") != 2 || !strings.Contains(text, " lo:") || !strings.Contains(text, " link:") {
			t.Errorf("other devices than lo and link: %s", text)
		}
	}
	if !strings.Contains(near, "1234567") || strings.Contains(far, "1234567") {
		t.Errorf("tcp_wmem was to be set on the near side alone: %s%s", near, far)
	}
	if err := l.Near.Sysctl("net.ipv4.no_such_variable", "1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a variable that does not exist: %v", err)
	}
}

// TestProcessesOutliveLinks checks that a process is not killed when other
// links come and go, as it was when they ended the thread that had started it.
func TestProcessesOutliveLinks(t *testing.T) {
	l := newLink(t, Shape{})
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Near.Start(cmd); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		other, err := New(Shape{})
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the process: %v", err)
	}
}
