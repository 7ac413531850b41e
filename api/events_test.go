package api

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

// fakeEvents says one thing, and no more unless it is told to go on.
type fakeEvents struct {
	goOn     bool          // until nobody listens
	next     chan struct{} // each has it say that once more
	watchers atomic.Int64
	ever     atomic.Int64
}

const oneEvent = "id: 1\nevent: status\ndata: {}\n\n"

func (f *fakeEvents) Watch(ctx context.Context, emit func([]byte) error) error {
	f.ever.Add(1)
	f.watchers.Add(1)
	defer f.watchers.Add(-1)
	err := emit([]byte(oneEvent))
	for f.goOn && err == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.next:
			err = emit([]byte(oneEvent))
		}
	}
	return err
}

func TestEvents(t *testing.T) {
	r := newRig(t)
	resp, body := r.do(t, "GET", "/events", "", "")
	if resp.StatusCode != http.StatusOK || body != oneEvent {
		t.Errorf("%s\n%s", resp.Status, body)
	}
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	resp, body = r.do(t, "GET", "/events?wait=1s", "", "")
	wantProblem(t, resp, body, http.StatusBadRequest, push.InvalidParameter)
	resp, body = r.do(t, "POST", "/events", "", "")
	wantProblem(t, resp, body, http.StatusMethodNotAllowed, push.MethodNotAllowed)
}

// TestHeadOfEvents: it has the headers, and is no watcher.
func TestHeadOfEvents(t *testing.T) {
	r := newRig(t)
	r.events.goOn = true
	resp, body := r.do(t, "HEAD", "/events", "", "")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || body != "" {
		t.Errorf("%s, %v", resp.Status, resp.Header)
	}
	if n := r.events.ever.Load(); n != 0 {
		t.Errorf("%d watched", n)
	}
}

// watch opens a stream and reads what comes at once.
func (r *rig) watch(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	first := make([]byte, len(oneEvent))
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != oneEvent {
		t.Fatalf("%v: %q", err, first)
	}
	return conn
}

// TestWatchersKeepNobodyOut fills all places of those who ask and wait with
// watchers: one more is told to come again, others are served, and who hangs up
// makes room.
func TestWatchersKeepNobodyOut(t *testing.T) {
	r := newRigWith(t, func(c *Config) { c.Callers = 5 })
	r.events.goOn = true
	r.receipt = receiptOf(push.Done)
	var all []net.Conn
	for range 3 {
		conn := r.watch(t)
		defer conn.Close()
		all = append(all, conn)
	}
	resp, body := r.do(t, "GET", "/events", "", "")
	wantProblem(t, resp, body, http.StatusServiceUnavailable, push.TooManyCallers)
	if resp.Header.Get("Content-Type") == "text/event-stream" || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("%v", resp.Header)
	}
	if resp, body := r.do(t, "POST", "/push", formType, somePush); resp.StatusCode != http.StatusOK {
		t.Errorf("a push: %s\n%s", resp.Status, body)
	}
	for _, path := range []string{"/", "/pushes", "/pushes?wait=1h", "/healthz"} {
		if resp, body := r.do(t, "GET", path, "", ""); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s\n%s", path, resp.Status, body)
		}
	}
	all[0].Close()
	for r.events.watchers.Load() == 3 { // until the server has noticed
		runtime.Gosched()
	}
	r.watch(t).Close()
}

// deaf is a writer whose caller has gone.
type deaf struct{ header http.Header }

func (d deaf) Header() http.Header       { return d.header }
func (d deaf) WriteHeader(int)           {}
func (d deaf) Write([]byte) (int, error) { return 0, net.ErrClosed }

// TestEventsEnd: an answer that cannot be written is over.
func TestEventsEnd(t *testing.T) {
	r := newRig(t)
	r.events.goOn = true
	r.handler.ServeHTTP(deaf{http.Header{}}, requestTo(t, r.server, "GET", "/events"))
	if n := r.events.watchers.Load(); n != 0 {
		t.Errorf("%d watch", n)
	}
}

// TestWatcherWhoseTokenWasReplaced hears nothing more from then on: his stream ends, and
// he is told why when he comes again.
func TestWatcherWhoseTokenWasReplaced(t *testing.T) {
	var replaced atomic.Bool
	r := newRigWith(t, func(c *Config) {
		c.Tokens = func(token string) bool { return token == goodToken && !replaced.Load() }
	})
	r.events.goOn, r.events.next = true, make(chan struct{})
	req := requestTo(t, r.server, "GET", "/events")
	req.Header.Set("Authorization", "Bearer "+goodToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	defer resp.Body.Close()
	r.events.next <- struct{}{}
	if _, err := io.ReadFull(resp.Body, make([]byte, 2*len(oneEvent))); err != nil {
		t.Fatal(err)
	}
	replaced.Store(true)
	r.events.next <- struct{}{}
	if n, err := io.ReadFull(resp.Body, make([]byte, len(oneEvent))); err != io.EOF {
		t.Errorf("%v, after %d bytes more", err, n)
	}
	again, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	again.Body.Close()
	if again.StatusCode != http.StatusUnauthorized {
		t.Errorf("%s", again.Status)
	}
}
