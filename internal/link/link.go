//go:build linux

package link

import (
	"errors"
	"net/netip"
	"os"
	"runtime"
)

// The addresses of the two sides.
var (
	nearAddr = netip.MustParseAddr("10.99.0.1")
	farAddr  = netip.MustParseAddr("10.99.0.2")
)

// MTU is the size of the largest packet.
const MTU = 1500

// A Link is two sides and the way between them.
type Link struct {
	Near, Far *Side

	stop *os.File   // whose closing ends the forwarder
	done chan error // what the forwarder has ended with
}

// New makes a link that carries packets from now on. Close takes it away.
func New(s Shape) (*Link, error) {
	near, err := newSide(nearAddr)
	if err != nil {
		return nil, err
	}
	far, err := newSide(farAddr)
	if err != nil {
		return nil, errors.Join(err, near.close())
	}
	stopped, stop, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, near.close(), far.close())
	}
	near.out = &way{from: near.tun, to: far.tun, line: newLine(s, 0)}
	far.out = &way{from: far.tun, to: near.tun, line: newLine(s, 1)}
	l := &Link{Near: near, Far: far, stop: stop, done: make(chan error, 1)}
	go func() {
		runtime.LockOSThread() // on which forward sets what a thread has for itself
		defer runtime.UnlockOSThread()
		defer stopped.Close()
		l.done <- forward([]*way{near.out, far.out}, int(stopped.Fd()))
	}()
	return l, nil
}

// Sent returns what became of the packets that both sides have sent so far.
func (l *Link) Sent() Counts {
	near, far := l.Near.Sent(), l.Far.Sent()
	return Counts{
		Packets:   near.Packets + far.Packets,
		Overflows: near.Overflows + far.Overflows,
		Losses:    near.Losses + far.Losses,
		Late:      near.Late + far.Late,
	}
}

// Close takes the link away. Processes on its sides go on, with no way to each
// other; a namespace ends with the last of them. Its error is also the one
// that has made the link stop carrying packets before, if any.
func (l *Link) Close() error {
	l.stop.Close()
	err := <-l.done
	return errors.Join(err, l.Near.close(), l.Far.close())
}
