package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// DefaultURL is where a daemon listens that was told nothing else.
const DefaultURL = "http://127.0.0.1:15556"

// ConnectTimeout bounds connecting to the daemon. Waiting for its answer has
// no bound: a push takes as long as it takes.
const ConnectTimeout = 5 * time.Second

// Daemon is one s3daemon. It is safe for concurrent use.
type Daemon struct {
	where string // as the user wrote it, for messages
	host  string // for the Host header
	path  string // before the daemon's routes
	token func() string
	dial  func(context.Context) (net.Conn, error)
	pool  pool
}

// New returns the daemon at http://HOST:PORT, optionally with a path before
// its routes, or at unix:/PATH of a socket. Each request has the bearer token
// that token returns, visible ASCII characters, if it is not nil. New does not
// connect.
func New(where string, token func() string) (*Daemon, error) {
	t, err := parse(where)
	if err != nil {
		return nil, err
	}
	// Straight to the daemon, whatever proxies the environment names: it reads
	// this host's files, so a proxy could only lead to another host's daemon.
	dialer := &net.Dialer{Timeout: ConnectTimeout}
	if t.local() {
		// Nobody of this host disappears without the kernel telling, and
		// arranging for probes would be half of what a connection costs.
		dialer.KeepAlive = -1
	}
	return &Daemon{where: where, host: t.host, path: t.path, token: token, dial: func(ctx context.Context) (net.Conn, error) {
		return dialer.DialContext(ctx, t.network, t.address)
	}}, nil
}

// String returns where the daemon is looked for.
func (d *Daemon) String() string { return d.where }

// Close closes the connections that wait for another push. The Daemon can
// still be used.
func (d *Daemon) Close() { d.pool.close() }

// target is what a daemon's URL means.
type target struct {
	network, address string // to connect to
	host, path       string // to ask for
}

func (t target) local() bool {
	host, _, _ := net.SplitHostPort(t.address)
	ip := net.ParseIP(host)
	return t.network == "unix" || host == "localhost" || ip != nil && ip.IsLoopback()
}

func parse(where string) (target, error) {
	bad := func(why string) (target, error) {
		if at := strings.LastIndex(where, "@"); at >= 0 { // a password may stand before it
			where, why = "..."+where[at:], "it has more than a host, a port and a path"
		}
		return target{}, fmt.Errorf("%q is not the URL of a daemon: %s", where, why)
	}
	if path, ok := strings.CutPrefix(where, "unix:"); ok {
		path = strings.TrimPrefix(path, "//") // unix:///path is seen too
		if !strings.HasPrefix(path, "/") {
			return bad("a socket is written unix:/path/of/the.sock, from the root")
		}
		// A name that every daemon answers to, since a socket has none.
		return target{"unix", path, "localhost", ""}, nil
	}
	if !strings.HasPrefix(where, "http://") {
		return bad("write it like " + DefaultURL + " or unix:/path/of/the.sock")
	}
	u, err := url.Parse(where)
	switch {
	case err != nil:
		return bad(errors.Unwrap(err).Error())
	case u.Hostname() == "":
		return bad("it has no host")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return bad("it has more than a host, a port and a path")
	case strings.ContainsFunc(u.Host, func(r rune) bool { return r <= ' ' || r >= 0x7f }), strings.ContainsAny(u.Hostname(), "[]"):
		return bad("its host has characters that no host has")
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	return target{"tcp", net.JoinHostPort(u.Hostname(), port), u.Host, strings.TrimRight(u.EscapedPath(), "/")}, nil
}

// UnreachableError says that there is no daemon where it was looked for. It
// is of the kind ErrNotTaken.
type UnreachableError struct {
	Where string
	Err   error // from connecting
}

// Error says where the daemon was looked for, and what was found there.
func (e *UnreachableError) Error() string {
	why := e.Err.Error()
	// The system's own word is enough: the rest repeats the address.
	if errno, ok := errors.AsType[syscall.Errno](e.Err); ok {
		why = errno.Error()
	} else if timeout, ok := errors.AsType[net.Error](e.Err); ok && timeout.Timeout() {
		why = fmt.Sprintf("no connection within %v", ConnectTimeout)
	}
	return fmt.Sprintf("no daemon at %s: %s", e.Where, why)
}

// Unwrap returns the kind and the cause.
func (e *UnreachableError) Unwrap() []error { return []error{ErrNotTaken, e.Err} }
