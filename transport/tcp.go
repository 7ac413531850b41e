package transport

import (
	"errors"
	"syscall"
)

// TCP is what is at work on all the connections of a Dialer.
type TCP struct {
	Algorithm  string // of congestion control; empty on systems that do not tell
	Hint       string // where another was asked for: what to run on the host, as root, to have that
	SendBuffer int64  // bytes that one connection may have written and not acknowledged
	Forced     bool   // it is larger than the host gives to everybody, by the right to administer its network

	restarts bool // bbr can be begun anew; see restart
}

const (
	// wantedBuffer is the send buffer that suffices for 1 Gbit/s over a third of a
	// second, or for 10 over a thirtieth: two thirds of it, since the kernel wakes a
	// writer when a third is free.
	wantedBuffer = 64 << 20
	// mostUnsent is how much of a buffer that was set may be what has not left yet.
	// On a slow link it would be nearly all of it, for each connection; one that the
	// kernel lets grow follows what is under way by itself.
	mostUnsent = 1 << 20
	// roomy is from what size on that costs no speed: a writer that was held up for
	// the unsent does not fill the buffer beyond two thirds.
	roomy = 16 << 20
)

// buffers are the sizes that a connection's send buffer can have on a host.
type buffers struct {
	grows  int64 // to which the kernel lets it grow by itself
	asked  int64 // that it has when wantedBuffer was asked for
	forced int64 // the same, by the right to administer the network; 0 without it
}

// sendBuffer is how the send buffer is set.
type sendBuffer struct {
	reach int64 // that it has, or grows to
	set   bool  // it does not grow by itself
	force bool
}

// unsent is how much of it may be what has not left yet; 0: all of it.
func (s sendBuffer) unsent() int {
	if s.set && s.reach >= roomy {
		return mostUnsent
	}
	return 0
}

// choose never chooses less than the buffer would grow to: what is set does not
// grow any more.
func (b buffers) choose() sendBuffer {
	switch {
	case b.grows >= wantedBuffer:
	case b.forced > b.grows:
		return sendBuffer{b.forced, true, true}
	case b.asked > b.grows:
		return sendBuffer{b.asked, true, false}
	}
	return sendBuffer{reach: b.grows}
}

// hintFor returns how to have a congestion control that was refused so, on a host
// that lets everybody have those allowed.
func hintFor(algorithm, allowed string, refused error) string {
	allow := `sysctl -w net.ipv4.tcp_allowed_congestion_control="` + allowed + " " + algorithm + `"`
	switch {
	case errors.Is(refused, syscall.EPERM):
		return allow
	case errors.Is(refused, syscall.ENOENT):
		return "modprobe tcp_" + algorithm + " && " + allow
	}
	return ""
}
