// Command send is the old client and the old server of s3daemon, to the
// letter, in front of the present daemon.
//
//	send FILE DEST              push a file, and wait until the store has it
//	send -listen [HOST:PORT]    serve the old line protocol on TCP
//
// See usage below for what it reads from the environment.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: send FILE DEST
       send -listen [HOST:PORT]
       send -help | -version

send FILE DEST pushes a file of the daemon's host to the S3 object DEST, which
is s3://BUCKET/KEY or ALIAS/BUCKET/KEY (the alias is ignored). It waits until
the store has confirmed the object; then it prints nothing and exits with 0.
Otherwise it prints the error and exits with 1.

send -listen serves the line protocol of the first s3daemon: one request a
connection, "FILE DEST" and a newline, answered with "Success" or an error. Each
is passed on to the daemon. SIGTERM lets the clients that wait have their answer.

  S3DAEMON_URL          the daemon: http://127.0.0.1:15556 (default), or
                        unix:/path/of/the.sock
  S3DAEMON_HOST,        with -listen, the address where none is given: 127.0.0.1
  S3DAEMON_PORT         and 15555. Without, and where S3DAEMON_URL is not set: a
                        server of the old protocol to use instead of a daemon.
                        Kubernetes' values (tcp://...) count as not set.
  S3DAEMON_MAX_CLIENTS  with -listen: pushes asked of the daemon at once, 25;
                        further clients wait their turn
  S3DAEMON_LOG_LEVEL    with -listen: debug, info (default), warn or error
`

// version is set when a release is built (-ldflags "-X main.version=...").
var version = "dev"

// Exit statuses. The old client knew no others.
const (
	ok     = 0
	failed = 1
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the next one has its default action again, and
	// ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run does what the arguments say and returns the exit status.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	switch {
	case len(args) >= 1 && len(args) <= 2 && (args[0] == "-listen" || args[0] == "--listen"):
		if err := listen(ctx, args[1:], getenv, stderr); err != nil {
			fmt.Fprintf(stderr, "send: %v\n", err)
			return failed
		}
		return ok
	case len(args) == 2:
		// Whatever they look like: the old client knew no flags, so a FILE
		// may begin with a dash.
		return pushFile(ctx, args[0], args[1], getenv, stderr)
	case len(args) == 1:
		switch args[0] {
		case "-h", "-help", "--help":
			fmt.Fprint(stdout, usage)
			return ok
		case "-version", "--version":
			fmt.Fprintln(stdout, "send", version)
			return ok
		}
	}
	fmt.Fprint(stderr, usage)
	return failed
}
