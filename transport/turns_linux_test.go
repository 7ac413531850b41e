package transport

import (
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// TestDoTakesTurns: on a long way a request waits while another has the link, and each
// leaves it at its end.
func TestDoTakesTurns(t *testing.T) {
	s := newEnding(t, false, func(http.ResponseWriter, *http.Request) {})
	tr := overSockets(t, 10*time.Second, func(cfg *Config) { cfg.Connections = 2 })
	l := tr.traffic
	l.seen = func() seen { return seen{most: 1e9, segment: 1} }
	l.infoOf = func(net.Conn) (Info, bool) {
		return Info{Known: true, Algorithm: bbr, RTT: 10 * time.Minute, MinRTT: 10 * time.Minute, Pacing: 1e12, Unsent: 1}, true
	}
	const size = 1 << 20
	count := func() (sending, waiting int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.sending), len(l.waiting)
	}
	var wg sync.WaitGroup
	push := func(body io.Reader) {
		wg.Go(func() {
			if _, err := put(tr, t.Context(), s.URL, size, body); err != nil {
				t.Error(err)
			}
		})
	}
	held, give := io.Pipe()
	push(held)
	until(t, "the first to send", func() bool { n, _ := count(); return n == 1 })
	push(zeros(size))
	until(t, "the second to wait", func() bool { n, waiting := count(); return n == 1 && waiting == 1 })
	if n := s.requests.Load(); n != 0 {
		t.Errorf("%d requests have arrived meanwhile", n)
	}
	io.CopyN(give, zeros(size), size)
	give.Close()
	wg.Wait()
	if sending, waiting := count(); sending+waiting != 0 || s.requests.Load() != 2 {
		t.Errorf("at the end %d send, %d wait, and %d have arrived", sending, waiting, s.requests.Load())
	}
}
