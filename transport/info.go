package transport

import (
	"net"
	"time"
)

// Info is what the kernel here knows of a TCP connection.
type Info struct {
	Known bool // false, and all else 0, on systems that do not tell

	RTT    time.Duration // smoothed
	MinRTT time.Duration // the least of late
	Window int64         // congestion window, in bytes

	// Rate is what the connection would begin to send at, in bytes a second: with
	// bbr the most that it carried within its last ten round trips of sending, which
	// it keeps while it is idle, or a multiple of it as long as it has not met the
	// path's limit; else the rate that was measured last.
	Rate      float64
	Anew      float64 // what it would send in its first round trip if bbr were begun anew, in bytes a second; 0 where it cannot be
	Starting  bool    // bbr is twice as fast each round trip, until it meets a limit
	Pacing    float64 // the most that it sends at now, in bytes a second; infinite where nothing holds it to a rate
	Delivered float64 // rate that was measured last, in bytes a second

	Acked   int64 // bytes that the other end has acknowledged since the connection was made
	Arrived int64 // packets that it has got, those too that came before others that were lost
	Segment int64 // bytes of payload in one
	Unacked int64 // packets that it has not acknowledged yet
	Unsent  int64 // bytes that were written and have not left yet

	Recovering      bool          // packets were lost, and are sent again
	Retransmits     uint64        // packets that were sent again
	Busy            time.Duration // it had something to send
	BufferLimited   time.Duration // of that, it was held up by the send buffer
	ReceiverLimited time.Duration // and by the other end's window

	SinceSent  time.Duration // since a byte of data was sent last
	SinceHeard time.Duration // since anything came from the other end
	SendBuffer int64         // bytes that may be queued, once the buffer has grown
	Algorithm  string        // the congestion control
}

// infoOf asks about a connection, whatever is wrapped around it; of one that a
// Dialer made it tells the last that was known once it is closed. It reports
// false where nobody can say.
func infoOf(c net.Conn) (Info, bool) {
	if made, ok := withoutTLS(c).(*conn); ok {
		return made.info()
	}
	return kernelInfo(bare(c), traits{})
}

// traits are what stays as it is for as long as a connection lives, so that it
// is asked for once.
type traits struct {
	algorithm  string // its congestion control; empty where it was not asked for
	sendBuffer int64  // bytes that it has, or may grow to
	restarts   bool   // its congestion control can be begun anew
}
