// Package listen opens the addresses that the daemon serves on.
//
//	listeners, err := listen.All([]string{"127.0.0.1:15556", "unix:/run/s3daemon.sock"}, listen.Socket{Mode: 0o660, Group: -1})
//
// An address is host:port or unix:/path.
package listen

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// All listens on every address, or on none and says why.
func All(addrs []string, s Socket) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, a := range addrs {
		l, err := open(a, s)
		if err != nil {
			Close(listeners)
			return nil, fmt.Errorf("cannot listen on %s: %w", a, explain(a, err))
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// Close closes all of them.
func Close(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// Address returns the address of a listener in the form that All takes.
func Address(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix:" + l.Addr().String()
	}
	return l.Addr().String()
}

func open(addr string, s Socket) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(addr, "unix:")
	if !isUnix {
		return net.Listen("tcp", addr)
	}
	return s.open(path)
}

func explain(addr string, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	if strings.HasPrefix(addr, "unix:") {
		return fmt.Errorf("%w: a daemon listens there already, or it is a file and no socket; choose another path", err)
	}
	return fmt.Errorf("%w: another program, perhaps another s3daemon, has it; choose another address", err)
}
