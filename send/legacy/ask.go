package legacy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/client"
)

// ReplyError is what a server answered instead of "Success".
type ReplyError struct{ Text string }

// Error returns the reply to the letter.
func (e *ReplyError) Error() string { return e.Text }

// Ask is the protocol's client: it sends one request to the server at the
// address (HOST:PORT) and waits for the reply without a time-out. It returns
// nil for "Success", a *ReplyError for any other reply, a
// *client.UnreachableError where there is no server, and another error where
// the request cannot be sent by this protocol or the server closed without a
// word.
func Ask(ctx context.Context, address, file, destination string) error {
	if err := carries(file, destination); err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: client.ConnectTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return &client.UnreachableError{Where: address, Err: err}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	if _, err = io.WriteString(conn, file+" "+destination+"\n"); err == nil || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		// A server may have answered and closed before it read everything.
		var got []byte
		if got, err = io.ReadAll(io.LimitReader(conn, maxLineBytes)); len(got) > 0 {
			if strings.HasPrefix(string(got), success) {
				return nil
			}
			return &ReplyError{string(got)}
		}
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("the server at %s went away before it answered, and the push may or may not have reached the store: %w", address, err)
	}
	return fmt.Errorf("the server at %s closed the connection without an answer, and the push may or may not have reached the store", address)
}

// carries reports what in a request the protocol could not carry: the server
// would see other words than were meant.
func carries(file, destination string) error {
	f, d, err := parseLine(file + " " + destination)
	if err == nil && f == file && d == destination && file != "" && !strings.Contains(file+destination, "\n") {
		return nil
	}
	for _, name := range []string{file, destination} {
		if strings.ContainsAny(name, " \n") || name == "" || strings.TrimRightFunc(name, isSpace) != name {
			return fmt.Errorf("the old line protocol cannot carry the name %s: it would need to be without spaces and newlines, and not empty; set S3DAEMON_URL to use HTTP", push.Quote(name))
		}
	}
	return fmt.Errorf("the old line protocol cannot carry %s and %s", push.Quote(file), push.Quote(destination))
}
