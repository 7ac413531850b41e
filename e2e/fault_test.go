package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// faultProxy stands between a daemon and the store, understands what they say,
// and does to each request what its plan decides. What passes, passes as it
// was: host, path, headers and body are what the signature covers. It records
// every request and every connection (faultrecord_test.go), and can be cut off
// altogether (cutoff_test.go).
type faultProxy struct {
	addr   string
	open   func() (net.Listener, error) // the same port each time
	server *http.Server
	store  *http.Transport
	closed chan struct{}
	done   sync.WaitGroup // every goroutine of the proxy but those of server

	mu   sync.Mutex // guards what follows
	plan plan
	// readBuffer is what a connection holds on this side of what nobody has read
	// yet; 0 for what the system does.
	readBuffer int
	listener   net.Listener // nil while the port is closed
	cut        cutKind
	conns      map[*faultConn]struct{}
	connects   []time.Time // of every connection that was made, or that cutReset turned away
	holding    int         // requests that a gate holds up
	record
}

// newFaultProxy starts a proxy without faults before the shared store, which
// ends with the test.
func newFaultProxy(t testing.TB) *faultProxy {
	t.Helper()
	return newFaultProxyTo(t, dialStore)
}

// dialStore connects to the shared store.
func dialStore(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", theStore.socket)
}

// newFaultProxyTo is newFaultProxy before any store that can be dialled.
func newFaultProxyTo(t testing.TB, dial func(context.Context) (net.Conn, error)) *faultProxy {
	t.Helper()
	port, err := holdPort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(port.close)
	return newFaultProxyOn(t, func() (net.Listener, error) { return net.Listen("tcp", port.addr) }, dial)
}

// newFaultProxyOn is newFaultProxyTo on any TCP listener: open opens it, and
// again after each time that the proxy was cut off.
func newFaultProxyOn(t testing.TB, open func() (net.Listener, error), dial func(context.Context) (net.Conn, error)) *faultProxy {
	t.Helper()
	p := &faultProxy{
		open: open, plan: passAll, closed: make(chan struct{}), conns: map[*faultConn]struct{}{},
		store: &http.Transport{
			DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			DisableCompression:  true,
			MaxIdleConnsPerHost: 1000,
			IdleConnTimeout:     time.Second, // before the store ends them, which may be just then
		},
	}
	p.server = &http.Server{
		Handler:     p,
		ErrorLog:    log.New(io.Discard, "", 0),
		ConnState:   p.noteState,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	if err := p.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

type connKey struct{}

// url is the endpoint that a daemon is given.
func (p *faultProxy) url() string { return "http://" + p.addr }

// follow makes the requests that come from now on subject to a plan.
func (p *faultProxy) follow(plan plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = plan
}

// nowHeld returns how many requests a gate holds up.
func (p *faultProxy) nowHeld() int { p.mu.Lock(); defer p.mu.Unlock(); return p.holding }

// close ends everything. What a gate held up never reaches the store.
func (p *faultProxy) close() {
	close(p.closed)
	p.cutOff(cutClosed)
	p.server.Close()
	p.done.Wait()
	p.store.CloseIdleConnections()
}

// listen takes connections, from now on.
func (p *faultProxy) listen() error {
	l, err := p.open()
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.listener, p.addr = l, l.Addr().String()
	p.mu.Unlock()
	p.done.Go(func() { p.server.Serve(&faultListener{l.(*net.TCPListener), p}) })
	return nil
}

// faultListener hands the server the connections that are let in.
type faultListener struct {
	*net.TCPListener
	proxy *faultProxy
}

func (l *faultListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		if c := l.proxy.admit(conn); c != nil {
			return c, nil
		}
	}
}

// faultConn is a connection of a daemon's.
type faultConn struct {
	*net.TCPConn
	proxy *faultProxy
	// What follows is guarded by the proxy's mutex.
	idle   bool // it carries no request
	doomed bool // it is reset once it has been idle for a moment
}

func (c *faultConn) Close() error {
	c.proxy.mu.Lock()
	delete(c.proxy.conns, c)
	c.proxy.mu.Unlock()
	return c.TCPConn.Close()
}

// reset closes the connection so that the other side gets an error at once,
// whatever is still in the kernel's hands.
func (c *faultConn) reset() {
	c.SetLinger(0)
	c.Close()
}

// idleMoment is how long a doomed connection is idle before its reset: for a
// daemon long enough to have put it back into its pool.
const idleMoment = 10 * time.Millisecond

// noteState notes which connections carry no request.
func (p *faultProxy) noteState(conn net.Conn, state http.ConnState) {
	c := conn.(*faultConn)
	p.mu.Lock()
	c.idle = state == http.StateIdle || state == http.StateNew
	resets := c.doomed && state == http.StateIdle
	p.mu.Unlock()
	if !resets {
		return
	}
	p.done.Go(func() {
		select {
		case <-time.After(idleMoment):
			p.resetIdle(func(idle *faultConn) bool { return idle == c })
		case <-p.closed:
		}
	})
}

// resetIdle resets the connections that carry no request just now, all or those
// that the filter has, and returns their number.
func (p *faultProxy) resetIdle(filter func(*faultConn) bool) int {
	p.mu.Lock()
	var idle []*faultConn
	for c := range p.conns {
		if c.idle && (filter == nil || filter(c)) {
			idle = append(idle, c)
		}
	}
	p.mu.Unlock()
	for _, c := range idle {
		c.reset()
	}
	return len(idle)
}

// ServeHTTP does what the plan says.
func (p *faultProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.done.Add(1)
	defer p.done.Done()
	x, f := p.begin(r)
	defer p.end(x)
	// What a daemon had sent before it died could arrive late over a real network
	// too, but no daemon can do anything about that.
	if !p.hold(r, f.before) || !alive(r) {
		p.outcome(x, "gone")
		reset(w)
		return
	}
	if f.early && f.what == answerInstead {
		f.writeError(w, x.n)
		return
	}
	if f.early && f.what == resetFirst {
		reset(w)
		return
	}
	if f.what == stopsReading {
		io.CopyN(io.Discard, r.Body, f.place(x.n, max(r.ContentLength, 1)))
		p.hold(r, make(chan struct{}))
		reset(w)
		return
	}
	if f.what == resetFirst || f.what == answerInstead {
		_, err := io.Copy(io.Discard, r.Body)
		if err != nil || !p.hold(r, f.after) || f.what == resetFirst {
			reset(w)
			return
		}
		f.writeError(w, x.n)
		return
	}
	resp, answer, err := p.forward(x, r, f)
	if err != nil {
		if f.what != resetMidway {
			p.outcome(x, "broken")
		}
		reset(w)
		return
	}
	if !p.hold(r, f.after) {
		reset(w)
		return
	}
	p.reply(w, x, f, resp, answer)
}

// reply answers a request that the store has answered.
func (p *faultProxy) reply(w http.ResponseWriter, x *exchange, f fault, resp *http.Response, answer []byte) {
	answer, did := f.alterAnswer(x, resp, answer)
	if !did {
		p.outcome(x, "nothing to do it to")
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	switch {
	case f.what == cutAfter:
		reset(w)
		return
	case f.what == cutAnswer:
		if whole, err := httputil.DumpResponse(resp, true); err == nil {
			cutIn(w, whole[:f.place(x.n, int64(len(whole)))])
		}
		return
	case f.what == trickles || f.what == tricklesBody:
		p.trickle(w, f, resp)
		return
	case f.what == answerAfter && resp.StatusCode < 300:
		f.writeError(w, x.n)
		return
	}
	for name, values := range resp.Header {
		if name != "Connection" && name != "Transfer-Encoding" {
			w.Header()[name] = values
		}
	}
	switch f.what {
	case closes:
		w.Header().Set("Connection", "close")
	case resetsIdle:
		p.mu.Lock()
		x.conn.doomed = true
		p.mu.Unlock()
	}
	w.WriteHeader(resp.StatusCode)
	w.Write(answer)
}

// hold waits for a gate. It reports whether the daemon is still there
// afterwards, and the proxy too.
func (p *faultProxy) hold(r *http.Request, gate <-chan struct{}) bool {
	if gate == nil {
		return true
	}
	p.mu.Lock()
	p.holding++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.holding--
		p.mu.Unlock()
	}()
	select {
	case <-gate:
	case <-r.Context().Done():
		return false
	case <-p.closed:
		return false
	}
	return alive(r)
}

// alive reports whether whoever sent a request is still there. The server
// itself notices that only once the body is read.
func alive(r *http.Request) bool {
	conn, ok := r.Context().Value(connKey{}).(*faultConn)
	return ok && established(conn)
}

var errMidway = errors.New("the plan has it break off here")

// forward passes a request on and returns the store's answer, whole. It goes
// on when the daemon is gone: what the store does is recorded in any case.
func (p *faultProxy) forward(x *exchange, r *http.Request, f fault) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), answerLimit)
	defer cancel()
	out := r.Clone(ctx)
	out.RequestURI = ""
	path, _, _ := strings.Cut(r.RequestURI, "?")
	out.URL = &url.URL{Scheme: "http", Host: "store", Opaque: path, RawQuery: r.URL.RawQuery}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // else net/http adds one
	}
	switch {
	case f.what == flips && r.ContentLength > 0:
		out.Body = io.NopCloser(&flippingReader{r.Body, f.place(x.n, r.ContentLength), byte(1 << (x.n % 8))})
	case f.what == readsSlowly && r.ContentLength > 0:
		out.Body = io.NopCloser(&slowReader{p, x, r.Body, f.pace})
	case f.what == resetMidway:
		// At least one byte is missing, so the store cannot take it for whole.
		out.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, f.place(x.n, max(r.ContentLength, 1))), brokenReader{}))
		out.ContentLength = max(out.ContentLength, 1)
	case r.ContentLength == 0:
		out.Body = http.NoBody
	}
	if f.what == flips && r.ContentLength <= 0 {
		p.outcome(x, "nothing to do it to")
	}
	if f.unaware {
		if err := forgetChecksums(ctx, out); err != nil {
			return nil, nil, err
		}
	}
	p.toStore(x)
	resp, err := p.store.RoundTrip(out)
	if err != nil {
		return nil, nil, fmt.Errorf("pass on: %w", err)
	}
	defer resp.Body.Close()
	p.fromStore(x, resp.StatusCode)
	answer, err := io.ReadAll(resp.Body)
	return resp, answer, err
}

// brokenReader is where a body breaks off.
type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errMidway }

// reset resets the daemon's connection.
func reset(w http.ResponseWriter) { cutIn(w, nil) }

// cutIn writes the beginning of an answer and ends the connection there.
func cutIn(w http.ResponseWriter, begin []byte) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // ends the connection as well
	}
	if len(begin) > 0 {
		// A reset would overtake what was written.
		conn.Write(begin)
		conn.Close()
		return
	}
	conn.(*faultConn).reset()
}
