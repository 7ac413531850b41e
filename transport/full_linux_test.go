package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// TestSilentToOne: where nothing comes back to a request for a connection, that says
// nothing of the store if another connection has heard of it meanwhile.
func TestSilentToOne(t *testing.T) {
	for _, heard := range []bool{true, false} {
		s := serve(t, func(_ http.ResponseWriter, req *http.Request) { io.Copy(io.Discard, req.Body) })
		waits, late := make(chan bool, 100), make(chan bool)
		var first atomic.Bool
		tr := overSockets(t, 10*time.Second, func(cfg *Config) {
			cfg.Connections = 2
			dial := cfg.Dial
			cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if !first.Swap(true) {
					return dial(ctx, network, address)
				}
				waits <- true
				<-late
				return nil, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
			}
		})
		body, more := io.Pipe()
		begin := func(body io.Reader, size int64) <-chan error {
			ended := make(chan error, 1)
			go func() {
				_, err := put(tr, t.Context(), s.URL, size, body)
				ended <- err
			}()
			return ended
		}
		const much = 256 << 10 // more than is held back here
		upload := begin(body, 2*much)
		more.Write(make([]byte, much))
		now := func() (info Info) {
			if all := tr.Connections(); len(all) > 0 {
				info = all[0].Info
			}
			return info
		}
		until(t, "the first half to arrive", func() bool { return now().Acked > much/2 && now().SinceHeard > 50*time.Millisecond })
		before := now().Acked
		other := begin(zeros(100), 100)
		<-waits
		if heard {
			more.Write(make([]byte, much/2))
			until(t, "more to arrive", func() bool { return now().Acked > before })
		}
		close(late)
		if !heard {
			if err := <-other; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("where nothing was heard: %v", err)
			}
			more.Write(make([]byte, much/2))
		}
		more.Write(make([]byte, much/2))
		more.Close()
		if err := <-upload; err != nil {
			t.Error(err)
		}
		if heard {
			if err := <-other; err != nil {
				t.Errorf("where something was heard: %v", err)
			}
		}
	}
}
