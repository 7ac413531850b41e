package transport

import (
	"context"
	"net"
	"time"
)

// DialFunc makes a connection, as net.Dialer.DialContext does.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// NewDialer makes the dialer for connections to the store. The first limit is
// for the TCP connection; the second for how long it may be without a sign of
// the other end once it is made: whatever the connection does then, the kernel
// ends it.
//
// On Linux that limit (TCP_USER_TIMEOUT) rules over the number of keep-alive
// probes, so several of them must fit in: with one, a single lost packet would
// end a connection that is idle. The probes are also what finds out that nobody
// is there any more while an answer is awaited.
func NewDialer(connect, stall time.Duration) DialFunc {
	dialer := &net.Dialer{Timeout: connect, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: min(15*time.Second, stall*2/5), Interval: min(5*time.Second, stall/5), Count: 4,
	}}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		// Not before it is connected, which has a limit of its own.
		limitSilence(conn, stall)
		return conn, nil
	}
}
