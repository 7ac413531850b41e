// Package transport has the connections to the store, and what becomes of one
// request on them.
//
// A Transport keeps as many connections as it may open, for as long as they
// live. Do makes one request and believes no success that was said before the
// whole request had been sent; it ends a request that stands still. What it
// does not do is decide: whether to try again, and whether the store can be
// reached, is its caller's matter, and Config.Dial where he can refuse a
// connection.
package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"time"
)

// DialFunc makes a connection, as net.Dialer.DialContext does.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// Config is what a Transport needs.
type Config struct {
	Connections    int            // that may be open, and be kept, at least 1
	ConnectTimeout time.Duration  // for the TLS handshake
	Roots          *x509.CertPool // that the store's certificate may come from; nil for the system's
	Dial           DialFunc
	Once           bool // each connection is for one request
}

// Transport is the HTTP client that the SDK asks for, without the redirects
// and cookies of http.Client: a redirect is an answer that the caller sees.
type Transport struct{ pool *http.Transport }

// New makes the keep-alive pool: never more connections than there may be, and
// none given up for being idle. It speaks HTTP/1.1 only, since HTTP/2 would put
// all uploads on one TCP connection.
func New(cfg Config) *Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &Transport{&http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            cfg.Dial,
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
	}}
}

// CloseIdle closes the connections that no request uses.
func (t *Transport) CloseIdle() { t.pool.CloseIdleConnections() }

// NewDialer makes the dialer for connections to the store. Its timeout is for
// the TCP connection.
func NewDialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{
		Timeout: timeout,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4,
		},
	}
}
