package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// link is a network of a test's own: two namespaces, and a cable between them
// that can be pulled out.
type link struct {
	near, far     string // namespaces: the daemon's and the store's
	nearIf, farIf string // the two ends of the cable
	farIP         string
}

var linkNumber atomic.Int64

// newLink makes a link, which is gone with the test. It needs root, and iproute2.
func newLink(t testing.TB) *link {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can make network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("the command ip (iproute2) is not there")
	}
	n := linkNumber.Add(1)
	name := fmt.Sprintf("s3d%d-%d", os.Getpid(), n)
	l := &link{near: name + "-near", far: name + "-far", nearIf: "s3d-near", farIf: "s3d-far", farIP: "192.0.2.2"}
	for _, ns := range []string{l.near, l.far} {
		if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
			t.Skipf("network namespaces cannot be made here: %v: %s", err, out)
		}
		t.Cleanup(func() {
			if out, err := exec.Command("ip", "netns", "del", ns).CombinedOutput(); err != nil {
				t.Errorf("remove the namespace %s: %v: %s", ns, err, out)
			}
		})
	}
	for _, args := range []string{
		"-n NEAR link add s3d-near type veth peer name s3d-far netns FAR",
		"-n NEAR link set lo up",
		"-n NEAR addr add 192.0.2.1/24 dev s3d-near",
		"-n FAR addr add 192.0.2.2/24 dev s3d-far",
		"-n NEAR link set s3d-near up",
		"-n FAR link set s3d-far up",
	} {
		l.ip(t, args)
	}
	// As if the two were far from each other: that the cable is out is then
	// nothing that the near side could notice but by waiting.
	address := l.inside(t, l.far, func() (string, error) {
		i, err := net.InterfaceByName(l.farIf)
		if err != nil {
			return "", err
		}
		return i.HardwareAddr.String(), nil
	})
	l.ip(t, "-n NEAR neigh replace 192.0.2.2 dev s3d-near nud permanent lladdr "+address)
	return l
}

// ip runs the command ip.
func (l *link) ip(t testing.TB, args string) {
	t.Helper()
	args = strings.NewReplacer("NEAR", l.near, "FAR", l.far).Replace(args)
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// down pulls the cable out: no packet arrives any more, and nobody is told.
func (l *link) down(t testing.TB) { t.Helper(); l.ip(t, "-n FAR link set s3d-far down") }

// up puts it back in.
func (l *link) up(t testing.TB) { t.Helper(); l.ip(t, "-n FAR link set s3d-far up") }

// unsent returns how many TCP connections at the near side have something that
// the far side has not acknowledged.
func (l *link) unsent(t testing.TB) (n int) {
	t.Helper()
	table := l.inside(t, l.near, func() (string, error) {
		text, err := os.ReadFile("/proc/thread-self/net/tcp")
		return string(text), err
	})
	for line := range strings.Lines(table) {
		// Number, two addresses, state, and the queue to be sent, before a colon.
		if f := strings.Fields(line); len(f) > 4 && f[0] != "sl" && !strings.HasPrefix(f[4], "00000000:") {
			n++
		}
	}
	return n
}

// inside calls f in a namespace: the sockets that it makes, and the processes
// that it starts, are there, and stay.
func (l *link) inside(t testing.TB, ns string, f func() (string, error)) string {
	t.Helper()
	text, err := inNamespace(ns, f)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func inNamespace(ns string, f func() (string, error)) (text string, err error) {
	// A namespace is the thread's.
	runtime.LockOSThread()
	back, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(back)
	there, err := unix.Open("/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(there)
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		return "", err
	}
	defer func() {
		if unix.Setns(back, unix.CLONE_NEWNET) == nil { // else the thread is of no more use, and ends with its goroutine
			runtime.UnlockOSThread()
		}
	}()
	return f()
}
