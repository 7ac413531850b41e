package transport

import (
	"math"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// kernelInfo asks the kernel about a TCP connection.
func kernelInfo(c net.Conn, known traits) (info Info, ok bool) {
	control(c, func(fd int) {
		told, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		info, ok = infoFrom(told), true
		info.Algorithm, info.SendBuffer = known.algorithm, known.sendBuffer
		if known.algorithm != bbr {
			return
		}
		if of, err := unix.GetsockoptTCPCCBBRInfo(fd, unix.IPPROTO_TCP, unix.TCP_CC_INFO); err == nil {
			rate, starting := bbrRate(of)
			if info.Starting = starting; rate > 0 {
				info.Rate = rate
			}
			if known.restarts && info.RTT > 0 {
				info.Anew = float64(info.Window) / info.RTT.Seconds()
			}
		}
	})
	return info, ok
}

// bbrRate is the rate that bbr begins with after a pause, in bytes a second, and
// whether it is starting. As long as it has not seen the path full, which is as long as
// it was given too little to send for that, it sends by its gain faster than it has
// measured; thereafter its gain is about one, and one again after a pause.
func bbrRate(of *unix.TCPBBRInfo) (rate float64, starting bool) {
	const unit = 256 // of the gain
	const starts = 2 * unit
	rate = float64(uint64(of.Bw_hi)<<32 | uint64(of.Bw_lo))
	if of.Pacing_gain > starts {
		return rate * float64(of.Pacing_gain) / unit, true
	}
	return rate, false
}

func infoFrom(told *unix.TCPInfo) Info {
	micros := func(n uint64) time.Duration { return time.Duration(n) * time.Microsecond }
	minRTT := told.Min_rtt
	if minRTT == ^uint32(0) { // none was measured
		minRTT = 0
	}
	pacing := math.Inf(1)
	if told.Pacing_rate != ^uint64(0) {
		pacing = float64(told.Pacing_rate)
	}
	return Info{
		Known: true, Pacing: pacing,
		RTT: micros(uint64(told.Rtt)), MinRTT: micros(uint64(minRTT)),
		Window: int64(told.Snd_cwnd) * int64(told.Snd_mss),
		Rate:   float64(told.Delivery_rate), Delivered: float64(told.Delivery_rate),
		Acked:   max(0, int64(told.Bytes_acked)-1), // which counts the connection's own beginning
		Arrived: int64(told.Delivered), Segment: int64(told.Snd_mss), Recovering: told.Ca_state > 2,
		Unacked: int64(told.Unacked), Unsent: int64(told.Notsent_bytes),
		Retransmits: uint64(told.Total_retrans),
		Busy:        micros(told.Busy_time), BufferLimited: micros(told.Sndbuf_limited), ReceiverLimited: micros(told.Rwnd_limited),
		SinceSent:  time.Duration(told.Last_data_sent) * time.Millisecond,
		SinceHeard: time.Duration(min(told.Last_ack_recv, told.Last_data_recv)) * time.Millisecond,
	}
}
