// Command send pushes files through a running s3daemon. With two plain
// arguments, and with -listen, it is the old client and the old server of
// s3daemon, to the letter, in front of the present daemon.
//
//	send FILE DEST              push a file, and wait until the store has it
//	send [flags] FILE... DEST   push files side by side
//	send -wait LABEL            wait for pushes that others asked for
//	send -listen [HOST:PORT]    serve the old line protocol on TCP
//	send -install DIR           copy this program into a directory
//
// See usage below for its flags and what it reads from the environment.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const usage = `usage: send FILE DEST
       send [-async] [-json] [-progress] [-label LABEL] [-no-overwrite] [-j N]
            FILE... DEST
       send -wait LABEL [-timeout DURATION]
       send -listen [HOST:PORT]
       send -install DIR
       send -help | -version

send FILE DEST pushes a file of the daemon's host to the S3 object DEST, which
is s3://BUCKET/KEY or ALIAS/BUCKET/KEY (the alias is ignored). It waits until
the store has confirmed the object; then it prints nothing and exits with 0.
Otherwise it prints the error and exits with 1. Two arguments are always FILE
and DEST, whatever they look like, unless the first is -wait, -listen or
-install.

With flags, or several FILEs, a DEST that ends in "/" gets the files below it,
under their base names. Each is waited for; one that fails is a line on standard
error, and the others go on. What the daemon has accepted goes on without send.

  -async           do not wait: print the id of each push once it is accepted,
                   with several FILEs "ID<TAB>FILE"
  -json            print the receipt of each push, or its problem, as one line
                   of JSON
  -progress        show what is under way, as bars on a terminal and else a line
                   for each file that is done, on standard error
  -no-overwrite    leave objects that exist as they are: such a push fails, unless
                   the object has the bytes of FILE
  -label LABEL     of the pushes, for lists and for -wait
  -j N             pushes side by side, 25
  --               ends the flags

send -wait LABEL waits until no push with that label is queued or running. Those
that failed or were cancelled are a line each, and exit status 1, as long as they
are in the daemon's history; a label that no push has is no failure.

  -timeout DURATION  such as 90s or 2h: how long to wait at most

Where the daemon restarts or its queue is full, requests are repeated, until it
has refused them for a minute; a line says so after a second. send FILE DEST asks once, and send -listen repeats
for 5 s what the daemon refused, unless S3DAEMON_RETRY_FOR is set.

send -listen serves the line protocol of the first s3daemon: one request a
connection, "FILE DEST" and a newline, answered with "Success" or an error. Each
is passed on to the daemon. SIGTERM lets the clients that wait have their answer.

send -install copies this program into the directory DIR, whole or not at all: for
a program whose container has another image.

  S3DAEMON_URL          the daemon: http://127.0.0.1:15556 (default), or
                        unix:/path/of/the.sock
  S3DAEMON_TOKEN_FILE   file whose first line is the token that the daemon wants,
                        read again when it changes
  S3DAEMON_RETRY_FOR    how long requests are repeated, such as 5m, or seconds
  S3DAEMON_HOST,        with -listen, the address where none is given: 127.0.0.1
  S3DAEMON_PORT         and 15555. Without, and where S3DAEMON_URL is not set: a
                        server of the old protocol to use instead of a daemon,
                        by send FILE DEST only. Kubernetes' values (tcp://...)
                        count as not set.
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
	first := ""
	if len(args) > 0 {
		first = args[0]
	}
	switch {
	case len(args) <= 2 && isFlag(first, "listen"):
		if err := listen(ctx, args[1:], getenv, stderr); err != nil {
			fmt.Fprintf(stderr, "send: %v\n", err)
			return failed
		}
		return ok
	case len(args) == 2 && isFlag(first, "install"):
		if err := install(args[1]); err != nil {
			fmt.Fprintf(stderr, "send: install: %v\n", err)
			return failed
		}
		return ok
	case len(args) == 2 && !isFlag(first, "wait"):
		// Whatever they look like: the old client knew no flags, so a FILE
		// may begin with a dash. A file called -wait is pushed as ./-wait.
		return pushFile(ctx, args[0], args[1], getenv, stderr)
	case len(args) == 1 && (isFlag(first, "help") || first == "-h"):
		fmt.Fprint(stdout, usage)
		return ok
	case len(args) == 1 && isFlag(first, "version"):
		fmt.Fprintln(stdout, "send", version)
		return ok
	case len(args) <= 1 && !strings.HasPrefix(first, "-"), isFlag(first, "listen"), isFlag(first, "install"):
		fmt.Fprint(stderr, usage)
		return failed
	}
	return withFlags(ctx, args, getenv, stdout, stderr)
}

// isFlag reports whether the argument is the flag, without a value.
func isFlag(arg, name string) bool { return arg == "-"+name || arg == "--"+name }
