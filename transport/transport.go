// Package transport has the connections to the store, and what becomes of one
// request on them.
//
// A Transport has a pool of connections. Do makes one request on one of them, and
// believes no success that was said before the whole request had been sent.
//
// A connection is kept for as long as it lives: nothing makes it as quick as
// having sent much on it. To a host that Keep names all are opened before they are
// needed. One that the other end closes while it is idle is replaced, and how long
// it had been idle is learned: from then on idle ones are refreshed before, by a
// small question. Where a host takes no more than there are requests wait for those,
// and now and then one more is tried. A request with much to send takes the connection
// that remembers the highest rate, or the lowest that will do (Exchange.Enough), any
// other the one that remembers the lowest.
//
// On a long way those with much to send take turns: as many as fill the link send at a
// time, each no faster than its share of it; see traffic.
//
// A request may take as long as it likes while it gets on; one that stands
// still is ended, by a StallError:
//
//	connecting   no connection is had within four times Config.ConnectTimeout: once
//	             for the wait for whoever connects just now, once for connecting,
//	             once for a proxy's part, once for TLS. The wait for one that another
//	             request has is no part of that
//	sending      bytes are under way, and the store acknowledged none of them for
//	             Config.StallTimeout. Where none are under way it is our own disk
//	             that is slow, which is no stall
//	awaiting     the store has everything, and has not said the head of an answer
//	             within Config.Answer, or Exchange.Answer
//	reading      the rest of the answer has not come within Config.Rest, or
//	             Exchange.Answer
//
// Acknowledged is what the kernel says that the other end has got; that the
// kernel here took a byte says nothing. The limits of an answer are for all of
// it, however it trickles.
//
// What the package does not do is decide: whether to try again, and whether the
// store can be reached, is its caller's matter, and Config.Dial where he can
// refuse a connection.
package transport

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Config is what a Transport needs.
type Config struct {
	Connections    int            // that may be open in all, at least 1
	ConnectTimeout time.Duration  // what Dial may take, and again the TLS handshake
	StallTimeout   time.Duration  // how long the store may acknowledge nothing
	Answer         time.Duration  // for the head of an answer, once the request has been acknowledged
	Rest           time.Duration  // for the rest of it
	Roots          *x509.CertPool // that the store's certificate may come from; nil for the system's
	Dial           DialFunc       // Dialer.Dial, or what stands before it; it ends with its context
	Once           bool           // each connection is for one request

	// Refresh makes a small question to a host, whose answer does not matter, that
	// keeps a connection from being closed. Where it is nil none is asked.
	Refresh func(ctx context.Context, host *url.URL) (*http.Request, error)
	// Current reports whether a connection to the address, which has that other end,
	// would still be made to it, without waiting: Dialer.Current. One that would not
	// is replaced while it is idle. Where it is nil none is.
	Current func(address string, remote net.Addr) bool
}

// Transport is the HTTP client that the SDK asks for, without the redirects
// and cookies of http.Client: a redirect is an answer that the caller sees.
type Transport struct {
	maker   *maker
	pool    *pool
	traffic *traffic
	limits  limits
}

// New makes a Transport, which opens no connection yet.
func New(cfg Config) *Transport {
	t := &Transport{maker: newMaker(cfg), limits: limits{
		connect: 4 * cfg.ConnectTimeout, stall: cfg.StallTimeout, answer: cfg.Answer, rest: cfg.Rest,
	}}
	t.pool = newPool(cfg.Connections, t.maker.make)
	t.pool.once = cfg.Once
	t.traffic = newTraffic(t.pool.seen)
	if cfg.Refresh != nil {
		t.pool.ask = func(ctx context.Context, m *member) error { return t.refresh(ctx, m, cfg.Refresh) }
	}
	if cfg.Current != nil {
		t.pool.current = func(m *member) bool { return cfg.Current(m.dialed, m.conn.RemoteAddr()) }
	}
	return t
}

// Keep has all connections that no request needs for another host be open to this
// one, from now on.
func (t *Transport) Keep(base *url.URL) { t.pool.keep(hostOf(base)) }

// Rest closes the idle connections, and has none opened or refreshed that no
// request asks for, until Wake: the way to the store is gone.
func (t *Transport) Rest() { t.pool.rest() }

// Wake has the connections be opened that Keep promises, at once.
func (t *Transport) Wake() { t.pool.wake() }

// Close closes the idle connections, and the others when their requests have
// ended. It returns when nothing is done any more that no request asked for. One
// that comes later has a connection for itself.
func (t *Transport) Close() {
	t.pool.shut()
	t.traffic.shut()
}
