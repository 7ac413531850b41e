package e2e

import (
	"io"
	"net"
	"sync"
	"time"
)

// proxy stands between a daemon and the store and passes on what they say. It
// counts the daemon's connections, and can hold or slow down what the daemon
// sends.
type proxy struct {
	network, target string
	listener        net.Listener
	done            sync.WaitGroup // every goroutine of the proxy

	mu       sync.Mutex // guards what follows
	pairs    map[*pair]struct{}
	closed   bool
	most     int             // connections that were open at once
	accepted int             // connections altogether
	sent     int64           // bytes passed on to the store
	free     int64           // with a gate: how far sent may go before it holds
	gate     chan struct{}   // while not nil, bytes for the store wait for its closing
	stuck    []chan struct{} // gates of what holdThese left behind
	held     int             // connections with bytes that wait there
	rate     int64           // bytes a second that are passed on at most; 0: as many as there are
	due      time.Time       // with a rate: when the next may be
}

// pair is a connection of the daemon's and the one to the store that serves it.
type pair struct{ daemon, store net.Conn }

func (p *pair) close() {
	p.daemon.Close()
	p.store.Close()
}

// newProxy starts a proxy to the address given, on a loopback port of its own.
func newProxy(network, target string) (*proxy, error) {
	return newProxyAt("127.0.0.1:0", network, target)
}

// newProxyAt is newProxy on an address that was some proxy's before: to the
// daemon, the store is back.
func newProxyAt(addr, network, target string) (*proxy, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &proxy{network: network, target: target, listener: listener, pairs: map[*pair]struct{}{}}
	p.done.Go(p.accept)
	return p, nil
}

// url is the endpoint that a daemon is given.
func (p *proxy) url() string { return "http://" + p.listener.Addr().String() }

// open returns how many connections are open.
func (p *proxy) open() int { p.mu.Lock(); defer p.mu.Unlock(); return len(p.pairs) }

// mostOpen returns the most that were open at once.
func (p *proxy) mostOpen() int { p.mu.Lock(); defer p.mu.Unlock(); return p.most }

// allAccepted returns how many there ever were.
func (p *proxy) allAccepted() int { p.mu.Lock(); defer p.mu.Unlock(); return p.accepted }

// bytesSent returns how many bytes went on to the store.
func (p *proxy) bytesSent() int64 { p.mu.Lock(); defer p.mu.Unlock(); return p.sent }

// nowHeld returns how many connections have bytes that a hold keeps back.
func (p *proxy) nowHeld() int { p.mu.Lock(); defer p.mu.Unlock(); return p.held }

// limit makes it a link that carries so many bytes a second, and that holds little
// of what it has not carried yet.
func (p *proxy) limit(rate int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = rate
}

// hold keeps every further byte from the store until release: a request that
// begins now has begun for the daemon, and cannot end.
func (p *proxy) hold() { p.holdAfter(0) }

// holdAfter is a hold that begins when n more bytes, or somewhat more, have
// passed.
func (p *proxy) holdAfter(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = p.sent + n
	if p.gate == nil {
		p.gate = make(chan struct{})
	}
}

// holdThese keeps back what is held now, until release, and lets all else pass.
func (p *proxy) holdThese() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate != nil {
		p.stuck = append(p.stuck, p.gate)
		p.gate = nil
	}
}

// release ends every hold.
func (p *proxy) release() {
	p.holdThese()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, gate := range p.stuck {
		close(gate)
	}
	p.stuck = nil
}

// close refuses new connections, cuts the open ones and waits for the end of
// both. What a hold kept back until then never reaches the store. It may be
// called twice.
func (p *proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for pair := range p.pairs {
		pair.close()
	}
	p.mu.Unlock()
	p.release()
	p.done.Wait()
}

func (p *proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.done.Go(func() { p.serve(conn) })
	}
}

func (p *proxy) serve(daemon net.Conn) {
	defer daemon.Close()
	// The store's side is dialled after the connection counts, so that none is
	// ever open and not counted.
	pair := &pair{daemon: daemon, store: daemon}
	p.mu.Lock()
	p.accepted++
	if p.closed {
		p.mu.Unlock()
		return
	}
	if p.rate > 0 {
		daemon.(*net.TCPConn).SetReadBuffer(64 << 10)
	}
	p.pairs[pair] = struct{}{}
	p.most = max(p.most, len(p.pairs))
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.pairs, pair)
		p.mu.Unlock()
	}()

	store, err := net.Dial(p.network, p.target)
	if err != nil {
		return
	}
	defer store.Close()
	p.mu.Lock()
	pair.store = store
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		io.Copy(daemon, store)
		closeWrite(daemon)
	})
	p.forward(store, daemon)
	closeWrite(store)
	back.Wait()
}

// forward passes on what the daemon sends until it stops, or the store does.
func (p *proxy) forward(store io.Writer, daemon io.Reader) {
	buf := make([]byte, 128<<10)
	for {
		n, err := daemon.Read(buf)
		if n > 0 {
			p.pass(int64(n))
			if _, err := store.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pass returns once nothing is held any more and the link has room, and counts n
// bytes that go on.
func (p *proxy) pass(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.gate != nil && p.sent >= p.free {
		gate := p.gate
		p.held++
		p.mu.Unlock()
		<-gate
		p.mu.Lock()
		p.held--
	}
	if p.rate > 0 {
		if now := time.Now(); p.due.Before(now) {
			p.due = now
		}
		p.due = p.due.Add(time.Duration(n) * time.Second / time.Duration(p.rate))
		wait := time.Until(p.due)
		p.mu.Unlock()
		<-time.After(wait)
		p.mu.Lock()
	}
	p.sent += n
}

// closeWrite tells the other side that no more will come.
func closeWrite(c net.Conn) {
	if c, ok := c.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
}
