package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// maker makes connections. TLS, proxies and the protocol are net/http's part.
type maker struct {
	http  *http.Transport
	limit time.Duration // for all of it
}

// newMaker makes one that speaks HTTP/1.1 only, since HTTP/2 would put all
// uploads on one TCP connection.
func newMaker(cfg Config) *maker {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &maker{limit: 4 * cfg.ConnectTimeout, http: &http.Transport{
		Proxy: func(req *http.Request) (*url.URL, error) {
			return ProxyTo(makingOf(req.Context()).to.url())
		},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := cfg.Dial(ctx, network, address)
			if err != nil {
				return nil, &dialError{err}
			}
			of := makingOf(ctx)
			of.dialed, of.conn = address, &outlet{Conn: metered(conn)}
			return of.conn, nil
		},
		TLSHandshakeTimeout:    cfg.ConnectTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig: &tls.Config{
			RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(0), DynamicRecordSizingDisabled: true,
		},
		Protocols:          protocols,
		DisableKeepAlives:  cfg.Once,
		DisableCompression: true,
		WriteBufferSize:    64 << 10,
	}}
}

// ProxyTo returns the proxy by which the environment has a URL asked for; nil where there
// is none.
func ProxyTo(u *url.URL) (*url.URL, error) {
	return http.ProxyFromEnvironment(&http.Request{URL: u})
}

// making is a connection that is being made. net/http tells neither the proxy's
// chooser which port it is for, nor anybody what is under its connection.
type making struct {
	to     host
	dialed string
	conn   *outlet
}

type makingKey struct{}

func makingOf(ctx context.Context) *making { return ctx.Value(makingKey{}).(*making) }

// make makes a connection. It ends with the context.
func (m *maker) make(ctx context.Context, to host) (*member, error) {
	ctx, done := context.WithTimeoutCause(ctx, m.limit, notConnected(m.limit))
	defer done()
	of := &making{to: to}
	client, err := m.http.NewClientConn(context.WithValue(ctx, makingKey{}, of), to.scheme, to.address)
	if err != nil {
		if stalled, ok := errors.AsType[*StallError](context.Cause(ctx)); ok {
			return nil, stalled
		}
		return nil, err
	}
	made := &member{to: to, client: client, conn: of.conn.Conn, outlet: of.conn, dialed: of.dialed, made: time.Now()}
	made.info, _ = infoOf(made.conn)
	return made, nil
}

// outlet is a connection as net/http has it. It knows what was taken of what it was
// given, and how it ended.
type outlet struct {
	net.Conn
	written atomic.Int64
	over    atomic.Bool // the other end has said that nothing more comes
}

func (o *outlet) Write(p []byte) (int, error) {
	n, err := o.Conn.Write(p)
	o.written.Add(int64(n))
	return n, err
}

func (o *outlet) Read(p []byte) (int, error) {
	n, err := o.Conn.Read(p)
	if err == io.EOF {
		o.over.Store(true)
	}
	return n, err
}
