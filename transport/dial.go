package transport

import (
	"cmp"
	"context"
	"net"
	"net/netip"
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
	ConnectTimeout time.Duration // for a TCP connection, looking for its address included
	StallTimeout   time.Duration // how long it may be without a sign of the other end once it is made: whatever it does then, the kernel ends it
	Congestion     string        // Auto or empty, or the name of an algorithm; where the host refuses it, its default is at work
	Bandwidth      *Bandwidth    // of all connections together; nil: no limit
}

// Dialer makes the TCP connections to the store. It spreads them over all the
// addresses that a name has, and lets each have what the host allows: see TCP.
type Dialer struct {
	cfg       DialConfig
	net       net.Dialer
	tcp       TCP
	addresses *addresses
}

// NewDialer makes one.
//
// On Linux the limit for silence (TCP_USER_TIMEOUT) rules over the number of
// keep-alive probes, so several of them must fit in: with one, a single lost
// packet would end a connection that is idle. The probes are also what finds out
// that nobody is there any more while an answer is awaited.
func NewDialer(cfg DialConfig) *Dialer {
	algorithm := cfg.Congestion
	if cmp.Or(algorithm, Auto) == Auto {
		algorithm = bbr
	}
	tcp, buffer := tryOut(algorithm)
	return &Dialer{
		cfg: cfg, tcp: tcp, addresses: newAddresses(net.DefaultResolver.LookupNetIP, cfg.ConnectTimeout),
		net: net.Dialer{
			KeepAliveConfig: net.KeepAliveConfig{
				Enable: true, Idle: min(15*time.Second, cfg.StallTimeout*2/5), Interval: min(5*time.Second, cfg.StallTimeout/5), Count: 4,
			},
			Control: func(_, _ string, raw syscall.RawConn) error {
				prepare(raw, algorithm, buffer)
				return nil
			},
		},
	}
}

// TCP returns what is at work on the connections.
func (d *Dialer) TCP() TCP { return d.tcp }

// Dial makes a connection, as net.Dialer.DialContext does: to the address with
// the fewest that are open, and where that fails to the next, all within
// DialConfig.ConnectTimeout.
func (d *Dialer) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	limited, done := context.WithTimeout(ctx, d.cfg.ConnectTimeout)
	defer done()
	left, err := d.addresses.of(limited, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	var first error
	for len(left) > 0 {
		var to netip.AddrPort
		to, left = d.addresses.take(left)
		made, err := d.connect(limited, network, to, len(left))
		if err == nil {
			known := traits{algorithm: algorithmOf(made), sendBuffer: d.tcp.SendBuffer, restarts: d.tcp.restarts}
			return newConn(made, known, d.cfg.Bandwidth, func() { d.addresses.giveBack(to) }), nil
		}
		d.addresses.giveBack(to)
		first = cmp.Or(first, err)
		if ctx.Err() != nil { // which says nothing about the address
			break
		}
		d.addresses.failed(to)
	}
	return nil, first
}

// connect makes a connection to one address, and leaves time for others.
func (d *Dialer) connect(ctx context.Context, network string, to netip.AddrPort, others int) (net.Conn, error) {
	deadline, _ := ctx.Deadline()
	ctx, done := context.WithTimeout(ctx, share(time.Until(deadline), others))
	defer done()
	made, err := d.net.DialContext(ctx, network, to.String())
	if err != nil {
		return nil, err
	}
	// Not before it is connected, which has a limit of its own.
	limitSilence(made, d.cfg.StallTimeout)
	return made, nil
}

const leastShare = 2 * time.Second // in which a lost packet is sent again

// share is what an address has of the time that is left, where others are still
// to come.
func share(left time.Duration, others int) time.Duration {
	return max(left/time.Duration(others+1), min(left, leastShare))
}

// Current reports whether a connection to the address, which has that other end,
// would still be made to it. It does not wait: it asks the name service now and
// then, in the background, and goes by its last answers.
func (d *Dialer) Current(address string, remote net.Addr) bool {
	return d.addresses.current(address, remote)
}
