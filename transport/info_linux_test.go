package transport

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// connected makes a connection by a Dialer; the other end is closed when the test
// ends.
func connected(t *testing.T, d *Dialer) (near net.Conn, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = d.Dial(t.Context(), "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return near, accepted.(*net.TCPConn)
}

// TestInfo: what is known of a connection, while it is open and once it is not.
func TestInfo(t *testing.T) {
	const size = 1 << 20
	near, far := connected(t, NewDialer(DialConfig{ConnectTimeout: 5 * time.Second, StallTimeout: 10 * time.Second}))
	if cold, ok := infoOf(near); !ok || cold.Acked != 0 || cold.Window == 0 || cold.RTT == 0 || cold.Algorithm == "" || cold.SendBuffer == 0 {
		t.Errorf("of a new one: %v %+v", ok, cold)
	}
	go near.Write(make([]byte, size))
	if _, err := io.CopyN(io.Discard, far, size); err != nil {
		t.Fatal(err)
	}
	far.Write([]byte{1}) // carries the acknowledgement of all
	near.Read(make([]byte, 1))
	warm, ok := infoOf(near)
	if !ok || !warm.Known || warm.Acked != size || warm.Unacked != 0 || warm.Unsent != 0 || warm.Rate == 0 || warm.Delivered == 0 || warm.MinRTT == 0 {
		t.Errorf("after %d bytes: %v %+v", size, ok, warm)
	}
	near.Close()
	if last, ok := infoOf(near); !ok || last.Acked != size {
		t.Errorf("once it is closed: %v %+v", ok, last)
	}
}

// TestInfoOfBroken: a connection that the other end reset still tells how much
// had been acknowledged, and that the rest had not.
func TestInfoOfBroken(t *testing.T) {
	const took = 64 << 10
	near, far := connected(t, NewDialer(DialConfig{ConnectTimeout: 5 * time.Second, StallTimeout: 10 * time.Second}))
	written := make(chan error, 1)
	go func() {
		_, err := near.Write(make([]byte, 64<<20)) // more than fits anywhere
		written <- err
	}()
	if _, err := io.CopyN(io.Discard, far, took); err != nil {
		t.Fatal(err)
	}
	far.SetLinger(0)
	far.Close()
	if err := <-written; err == nil {
		t.Fatal("all was written")
	}
	near.Close()
	if last, ok := infoOf(near); !ok || last.Acked < took || last.Acked >= 64<<20 || last.Unsent == 0 {
		t.Errorf("%v %+v", ok, last)
	}
}

// TestBBRRate: what bbr begins with after a pause.
func TestBBRRate(t *testing.T) {
	for _, tc := range []struct {
		bandwidth uint64
		gain      uint32 // of 256
		want      float64
	}{
		{1000, 256, 1000}, {1000, 320, 1000}, {1000, 192, 1000}, {1000, 512, 1000}, // it has met the limit
		{1000, 739, 1000 * 739 / 256.}, // it has not
		{5 << 32, 256, 5 << 32},
	} {
		of := &unix.TCPBBRInfo{Bw_lo: uint32(tc.bandwidth), Bw_hi: uint32(tc.bandwidth >> 32), Pacing_gain: tc.gain}
		if got, starting := bbrRate(of); got != tc.want || starting != (tc.gain > 512) {
			t.Errorf("%+v: %v, %v, want %v", tc, got, starting, tc.want)
		}
	}
}
