package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/client"
	"github.com/lsst-dm/s3daemon/send/legacy"
)

// listen is the old server, until ctx is cancelled and its clients have their
// answers.
func listen(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) error {
	signal.Ignore(syscall.SIGPIPE) // a log that nobody reads any more must not cut clients off
	address, err := listenAddress(args, getenv)
	if err != nil {
		return err
	}
	cfg, err := listenConfig(getenv, stderr)
	if err != nil {
		return err
	}
	// No keep-alive probes: they would be for clients that disappeared, which
	// cost no more than their push, and arranging for them costs each client.
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	listener, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for the old line protocol: %w", err)
	}
	if getenv("GOMAXPROCS") == "" {
		// A client is a dozen system calls and no computing: waking a second
		// thread for it costs more than that thread would do. One core still
		// carries several times what the daemon does.
		runtime.GOMAXPROCS(1)
	}
	log := cfg.Logger
	log.Info("listening", "address", listener.Addr().String(), "daemon", cfg.URL, "max_clients", cfg.MaxClients)
	if tcp, isTCP := listener.Addr().(*net.TCPAddr); isTCP && !tcp.IP.IsLoopback() {
		log.Warn("other hosts can reach this address, and the line protocol asks nobody who he is", "address", listener.Addr().String())
	}
	defer context.AfterFunc(ctx, func() { log.Info("stopping: the clients that wait get their answers first") })()
	if err := legacy.Serve(ctx, listener, cfg); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// listenAddress is the argument's, else the old variables'.
func listenAddress(args []string, getenv func(string) string) (string, error) {
	if len(args) == 0 {
		server, err := oldServer(getenv)
		return server.address(), err
	}
	if _, _, err := net.SplitHostPort(args[0]); err != nil {
		return "", fmt.Errorf("-listen wants HOST:PORT, not %s (a file called -listen is pushed as ./-listen)", push.Quote(args[0]))
	}
	return args[0], nil
}

func listenConfig(getenv func(string) string, stderr io.Writer) (legacy.Config, error) {
	cfg := legacy.Config{URL: getenv("S3DAEMON_URL"), MaxClients: legacy.DefaultMaxClients}
	if cfg.URL == "" {
		cfg.URL = client.DefaultURL
	}
	if _, err := client.New(cfg.URL, nil); err != nil {
		return cfg, fmt.Errorf("S3DAEMON_URL: %w", err)
	}
	if value := getenv("S3DAEMON_MAX_CLIENTS"); value != "" {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return cfg, fmt.Errorf("S3DAEMON_MAX_CLIENTS is %s, which is not a number from 1 on", push.Quote(value))
		}
		cfg.MaxClients = n
	}
	patience, err := retryFor(getenv, 0)
	switch {
	case err != nil:
		return cfg, err
	case patience > 0:
		cfg.Patience, cfg.Repeat = patience, true
	case getenv("S3DAEMON_RETRY_FOR") != "":
		cfg.Patience = -1
	}
	var level slog.Level
	if value := getenv("S3DAEMON_LOG_LEVEL"); value != "" {
		if err := level.UnmarshalText([]byte(value)); err != nil {
			return cfg, fmt.Errorf("S3DAEMON_LOG_LEVEL is %s, which is none of debug, info, warn and error", push.Quote(value))
		}
	}
	cfg.Logger = slog.New(handler(stderr, level))
	file, err := tokenFile(getenv, func(err error) { cfg.Logger.Warn("S3DAEMON_TOKEN_FILE", "error", err.Error()) })
	if err != nil {
		return cfg, err
	}
	if file != nil && file.Exposed() {
		cfg.Logger.Warn("every user of this host can read the token, or write it: take that right away (chmod o=)", "file", file.Path())
	}
	cfg.Token = tokenIn(file)
	return cfg, nil
}

// handler writes text for a person at a terminal, else JSON.
func handler(w io.Writer, level slog.Level) slog.Handler {
	options := &slog.HandlerOptions{Level: level}
	if isTerminal(w) {
		return slog.NewTextHandler(w, options)
	}
	return slog.NewJSONHandler(w, options)
}
