package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

const healthTimeout = 3 * time.Second

// healthcheck asks the daemon whether it is alive or, with the argument "ready",
// whether it takes pushes: a probe for images that have no shell and no curl. It
// asks at the first address of S3DAEMON_OPS_LISTEN, else of S3DAEMON_LISTEN,
// either of which answers that to whoever asks, and however many others do. With an
// address it tells whether anything listens there, as send -listen does.
func healthcheck(ctx context.Context, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	switch {
	case len(args) == 0:
		return askHealth(ctx, "/healthz")
	case len(args) == 1 && args[0] == "ready":
		return askHealth(ctx, "/readyz")
	case len(args) == 1 && strings.Contains(args[0], "://"):
		return usageError{fmt.Errorf("s3daemon healthcheck takes no URL, as %q is: an address is HOST:PORT or unix:/path", args[0])}
	case len(args) == 1 && strings.Contains(args[0], ":"):
		conn, err := dial(ctx, args[0])
		if err != nil {
			return fmt.Errorf("nothing listens at %s: %w", args[0], err)
		}
		return conn.Close()
	default:
		return usageError{errors.New("s3daemon healthcheck takes one argument at most: ready, or an address")}
	}
}

func askHealth(ctx context.Context, route string) error {
	cfg, _, err := loadConfig()
	if err != nil {
		return usageError{err}
	}
	listening := append(cfg.opsListen, cfg.listen...)[0]
	client := &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, listening) },
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+route, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("no daemon is alive at %s: %w", listening, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the daemon at %s answers %s%s", listening, resp.Status, reason(resp.Body))
	}
	return nil
}

// reason is what the answer says is wrong, if it is a problem.
func reason(body io.Reader) string {
	var problem push.Problem
	if json.NewDecoder(io.LimitReader(body, 64<<10)).Decode(&problem) != nil || problem.Detail == "" {
		return ""
	}
	return ": " + push.OneLine(problem.Detail)
}

func dial(ctx context.Context, listening string) (net.Conn, error) {
	network, addr := dialAddress(listening)
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// dialAddress returns how to reach an address that a daemon listens on: one
// that stands for all addresses is reached by loopback.
func dialAddress(listen string) (network, addr string) {
	if path, ok := strings.CutPrefix(listen, "unix:"); ok {
		return "unix", path
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "tcp", listen
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "tcp", net.JoinHostPort(host, port)
}
