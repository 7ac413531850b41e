//go:build linux

package link

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Side is one end of a link: a network namespace, in which there is the
// link, a loopback device of its own, and nothing else.
type Side struct {
	Addr netip.Addr // of the end of the link

	namespace *os.File
	home      *os.File // the namespace of the process
	tun       int      // the device that is the end of the link; negative before there is one
	out       *way     // of what this side sends
}

// ownNamespace is the network namespace of the thread that opens it.
const ownNamespace = "/proc/thread-self/ns/net"

func newSide(addr netip.Addr) (*Side, error) {
	s := &Side{Addr: addr, tun: -1}
	var err error
	if s.home, err = os.Open(ownNamespace); err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	if s.namespace, err = newNamespace(s.home); err != nil {
		return nil, errors.Join(fmt.Errorf("make a network namespace: %w", err), s.close())
	}
	err = s.Do(func() error {
		// Nothing but what the two sides say to each other is on the link.
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
		if err := setUp("lo", nil, 0); err != nil {
			return err
		}
		s.tun, err = openTUN(addr)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// newNamespace makes a network namespace, which lasts as long as it is open
// or somebody is in it.
func newNamespace(home *os.File) (file *os.File, err error) {
	err = away(home, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		file, err = os.Open(ownNamespace)
		return err
	})
	return file, err
}

// Do runs f on this side: the sockets that it makes are there, whoever uses
// them later, as long as it makes them itself and not by another goroutine.
// The name of a host or a second address makes net.Dial do that.
func (s *Side) Do(f func() error) error {
	return away(s.home, func() error {
		if err := unix.Setns(int(s.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
		return f()
	})
}

// away runs f on a thread that f may take to another network namespace, and
// brings the thread home. It must live on: a process that was started with
// Pdeathsig is killed when the thread ends that has started it, which may be
// any. Only one that does not come home ends with its goroutine.
func away(home *os.File, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := f()
		if homeErr := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); homeErr == nil {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

// Start starts a process on this side. It is killed when the calling process
// dies.
func (s *Side) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return s.Do(cmd.Start)
}

// Sysctl sets a variable of the kernel, such as net.ipv4.tcp_wmem. Those that
// the kernel has once for each namespace are set on this side only.
func (s *Side) Sysctl(name, value string) error {
	return s.Do(func() error {
		path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s to %q: %w", name, value, err)
		}
		return nil
	})
}

// Sent returns what became of the packets that this side has sent so far.
func (s *Side) Sent() Counts { return s.out.counts() }

func (s *Side) close() error {
	var err error
	if s.tun >= 0 {
		err = unix.Close(s.tun)
	}
	for _, f := range []*os.File{s.namespace, s.home} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}
