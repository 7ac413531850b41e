package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/lsst-dm/s3daemon/api"
	"github.com/lsst-dm/s3daemon/listen"
	"github.com/lsst-dm/s3daemon/secret"
)

// openTokens returns what knows the tokens that the API wants over TCP; nil
// where the file has no name.
func openTokens(path string, log *slog.Logger) (func(string) bool, error) {
	if path == "" {
		return nil, nil
	}
	file, err := secret.Open(path, secret.ParseTokens, func(err error) {
		log.Warn("S3DAEMON_TOKEN_FILE", "error", err.Error())
	})
	if err != nil {
		return nil, usageError{fmt.Errorf("s3daemon cannot start with this configuration:\nS3DAEMON_TOKEN_FILE: %w", err)}
	}
	if file.Exposed() {
		log.Warn("every user of this host can read the tokens, or write them: take that right away (chmod o=)", "file", path)
	}
	return func(token string) bool { return file.Get().Has(token) }, nil
}

// connected returns the context of a connection's requests: who has made it, if
// it is one of a Unix socket. It is asked for once, as it never changes.
func connected(ctx context.Context, c net.Conn) context.Context {
	uid, err := listen.User(c)
	if err != nil { // TCP; or unknown, whom the API does not take for anybody
		return ctx
	}
	return api.WithUser(ctx, uid)
}

// warnOfAddress says who else may reach an address than was perhaps meant, or be
// reached there.
func warnOfAddress(cfg config, l net.Listener, log *slog.Logger) {
	address := listen.Address(l)
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		if dir := listen.Replaceable(l.Addr().String()); dir != "" {
			log.Warn("every user of this host can put a socket of his own in the place of this one, and be asked instead: take the right to write to the directory away (chmod o-w), or choose another", "address", address, "directory", dir)
		}
		return
	}
	switch {
	case !tcp.IP.IsLoopback() && cfg.tokenFile != "":
		log.Warn("other hosts can reach this address, and as it is plain HTTP whoever is on the way can read the token, and then push any file that the daemon may read", "address", address)
	case !tcp.IP.IsLoopback():
		log.Warn("other hosts can reach this address, and whoever does can push any file that the daemon may read: set S3DAEMON_TOKEN_FILE", "address", address)
	case cfg.tokenFile == "" && len(cfg.users) > 0:
		log.Warn("every user of this host can use this address, whomever S3DAEMON_UIDS names: set S3DAEMON_TOKEN_FILE, or leave it out of S3DAEMON_LISTEN", "address", address)
	}
}
