package transport

import (
	"context"
	"net"
	"syscall"
	"time"
)

// DialFunc makes a connection, as net.Dialer.DialContext does.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// Auto, as the congestion control that is wanted, is bbr: the one that knows
// after a pause what a connection carries.
const Auto = "auto"

const bbr = "bbr"

// DialConfig is what a Dialer needs.
type DialConfig struct {
	ConnectTimeout time.Duration // for the TCP connection
	StallTimeout   time.Duration // how long it may be without a sign of the other end once it is made: whatever it does then, the kernel ends it
	Congestion     string        // Auto, or the name of an algorithm; where the host refuses it, its default is at work
}

// Dialer makes the TCP connections to the store.
type Dialer struct {
	net        net.Dialer
	stall      time.Duration
	congestion string
}

// NewDialer makes one.
//
// On Linux the limit for silence (TCP_USER_TIMEOUT) rules over the number of
// keep-alive probes, so several of them must fit in: with one, a single lost
// packet would end a connection that is idle. The probes are also what finds out
// that nobody is there any more while an answer is awaited.
func NewDialer(cfg DialConfig) *Dialer {
	d := &Dialer{stall: cfg.StallTimeout, congestion: cfg.Congestion}
	if d.congestion == Auto {
		d.congestion = bbr
	}
	d.net = net.Dialer{
		Timeout: cfg.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: min(15*time.Second, d.stall*2/5), Interval: min(5*time.Second, d.stall/5), Count: 4,
		},
		Control: d.prepare,
	}
	return d
}

// Dial makes a connection, as net.Dialer.DialContext does.
func (d *Dialer) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	made, err := d.net.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	// Not before it is connected, which has a limit of its own.
	limitSilence(made, d.stall)
	return newConn(made), nil
}

// prepare sets what must stand before the connection is made.
func (d *Dialer) prepare(_, _ string, raw syscall.RawConn) error {
	controlRaw(raw, func(fd int) { _ = setCongestion(fd, d.congestion) })
	return nil
}
