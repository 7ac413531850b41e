package transport

import (
	"fmt"
	"syscall"
	"testing"
)

// TestSendBuffer: what is chosen is never smaller than what the buffer would grow
// to by itself, and the right to administer the network is used only where it
// gains something.
func TestSendBuffer(t *testing.T) {
	const (
		kb, mb = int64(1) << 10, int64(1) << 20
		wanted = int64(wantedBuffer)
	)
	for _, tc := range []struct {
		name   string
		host   buffers
		want   sendBuffer
		unsent int
	}{
		{"as most hosts are", buffers{grows: 4 * mb, asked: 416 * kb}, sendBuffer{reach: 4 * mb}, 0},
		{"the same, with the right", buffers{grows: 4 * mb, asked: 416 * kb, forced: wanted}, sendBuffer{wanted, true, true}, mostUnsent},
		{"wmem_max 4 MB", buffers{grows: 4 * mb, asked: 8 * mb}, sendBuffer{8 * mb, true, false}, 0},
		{"wmem_max 2 MB", buffers{grows: 4 * mb, asked: 4 * mb}, sendBuffer{reach: 4 * mb}, 0},
		{"wmem_max 8 MB", buffers{grows: 4 * mb, asked: 16 * mb}, sendBuffer{16 * mb, true, false}, mostUnsent},
		{"wmem_max 64 MB", buffers{grows: 4 * mb, asked: wanted}, sendBuffer{wanted, true, false}, mostUnsent},
		{"wmem_max 64 MB, with the right", buffers{grows: 4 * mb, asked: wanted, forced: wanted}, sendBuffer{wanted, true, true}, mostUnsent},
		{"tcp_wmem 64 MB", buffers{grows: 64 * mb, asked: 416 * kb, forced: wanted}, sendBuffer{reach: 64 * mb}, 0},
		{"tcp_wmem 128 MB", buffers{grows: 128 * mb, asked: wanted, forced: wanted}, sendBuffer{reach: 128 * mb}, 0},
		{"tcp_wmem 16 MB", buffers{grows: 16 * mb, asked: 8 * mb}, sendBuffer{reach: 16 * mb}, 0},
		{"tcp_wmem 256 KB", buffers{grows: 256 * kb, asked: 416 * kb}, sendBuffer{416 * kb, true, false}, 0},
		{"nothing is known", buffers{}, sendBuffer{}, 0},
	} {
		if got := tc.host.choose(); got != tc.want || got.reach < tc.host.grows || got.unsent() != tc.unsent {
			t.Errorf("%s: %+v, want %+v; %d may be unsent", tc.name, got, tc.want, got.unsent())
		}
	}
}

// TestHint: what is said to whoever lacks a congestion control is a line that he
// can run.
func TestHint(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{syscall.EPERM, `sysctl -w net.ipv4.tcp_allowed_congestion_control="reno cubic bbr"`},
		{fmt.Errorf("wrapped: %w", syscall.ENOENT), `modprobe tcp_bbr && sysctl -w net.ipv4.tcp_allowed_congestion_control="reno cubic bbr"`},
		{syscall.ENOTSUP, ""},
		{nil, ""},
	} {
		if got := hintFor("bbr", "reno cubic", tc.err); got != tc.want {
			t.Errorf("%v: %s", tc.err, got)
		}
	}
}
