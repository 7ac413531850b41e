// Package transport has the connections to the store, and what becomes of one
// request on them.
//
// A Transport keeps as many connections as it may open, for as long as they
// live. Do makes one request on one of them, and believes no success that was
// said before the whole request had been sent.
//
// A request may take as long as it likes while it gets on; one that stands
// still is ended, by a StallError:
//
//	connecting   no connection is had within four times Config.ConnectTimeout: once
//	             for the wait for whoever connects just now, once for connecting,
//	             once for a proxy's part, once for TLS
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
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"time"
)

// Config is what a Transport needs.
type Config struct {
	Connections    int            // that may be open, and be kept, at least 1
	ConnectTimeout time.Duration  // what Dial may take, and again the TLS handshake
	StallTimeout   time.Duration  // how long the store may acknowledge nothing
	Answer         time.Duration  // for the head of an answer, once the request has been acknowledged
	Rest           time.Duration  // for the rest of it
	Roots          *x509.CertPool // that the store's certificate may come from; nil for the system's
	Dial           DialFunc       // Dialer.Dial, or something before it
	Once           bool           // each connection is for one request
}

// Transport is the HTTP client that the SDK asks for, without the redirects
// and cookies of http.Client: a redirect is an answer that the caller sees.
type Transport struct {
	pool   *http.Transport
	limits limits
}

// New makes the keep-alive pool: never more connections than there may be, and
// none given up for being idle. It speaks HTTP/1.1 only, since HTTP/2 would put
// all uploads on one TCP connection.
func New(cfg Config) *Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	pool := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := cfg.Dial(ctx, network, address)
			if err != nil {
				return nil, &dialError{err}
			}
			return metered(conn), nil
		},
		TLSHandshakeTimeout:    cfg.ConnectTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig:        &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		Protocols:              protocols,
		MaxConnsPerHost:        cfg.Connections,
		MaxIdleConnsPerHost:    cfg.Connections,
		MaxIdleConns:           cfg.Connections,
		IdleConnTimeout:        0,
		DisableKeepAlives:      cfg.Once,
		DisableCompression:     true,
		WriteBufferSize:        64 << 10,
	}
	return &Transport{pool, limits{
		connect: 4 * cfg.ConnectTimeout, stall: cfg.StallTimeout, answer: cfg.Answer, rest: cfg.Rest,
	}}
}

// CloseIdle closes the connections that no request uses.
func (t *Transport) CloseIdle() { t.pool.CloseIdleConnections() }
