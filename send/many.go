package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/batch"
	"github.com/lsst-dm/s3daemon/send/client"
	"github.com/lsst-dm/s3daemon/send/progress"
)

const (
	drawTime  = 200 * time.Millisecond // between two looks at a push that is drawn
	watchTime = time.Minute            // and at one whose end alone is shown
)

// withFlags does what a command line with flags, or with several files, says.
func withFlags(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	o, err := parseOptions(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return ok
	case err != nil:
		fmt.Fprintf(stderr, "send: %v (send -help has the usage)\n", err)
		return failed
	}
	daemon, err := theDaemon(getenv)
	if err != nil {
		fmt.Fprintf(stderr, "send: %v\n", err)
		return failed
	}
	defer daemon.Close()
	if o.patience, err = retryFor(getenv, batch.UsualPatience); err != nil {
		fmt.Fprintf(stderr, "send: %v\n", err)
		return failed
	}
	if o.wait != "" {
		return barrier(ctx, daemon, o, stderr)
	}
	items, err := batch.Plan(o.files, o.destination, absolute)
	if err != nil {
		fmt.Fprintf(stderr, "send: %s\n", explain(err))
		return failed
	}
	return pushAll(ctx, daemon, o, items, stdout, stderr)
}

// theDaemon is the daemon to ask. The old line protocol has nothing but plain
// pushes.
func theDaemon(getenv func(string) string) (*client.Daemon, error) {
	url, server, err := whom(getenv)
	switch {
	case err != nil:
		return nil, err
	case url == "":
		return nil, fmt.Errorf("the server at %s, which S3DAEMON_HOST or S3DAEMON_PORT names, speaks the old line protocol, and that has no flags: set S3DAEMON_URL", server)
	}
	return daemonAt(url, getenv)
}

// pushAll pushes the items and reports on them.
func pushAll(ctx context.Context, daemon *client.Daemon, o options, items []batch.Item, stdout, stderr io.Writer) int {
	r := &reporter{stdout: stdout, stderr: stderr, json: o.json, async: o.async, several: len(items) > 1}
	cfg := batch.Config{
		Daemon: daemon, Observer: r, Parallel: o.parallel, Label: o.label, CreateOnly: o.createOnly,
		Async: o.async, Patience: batch.Patience{For: o.patience, Notice: r.outage},
	}
	if o.progress {
		cfg.Watch = r.show(items)
	}
	tally, err := cfg.Run(ctx, items)
	r.end()
	if err != nil {
		r.unfinished(ctx, tally, err)
	}
	if err != nil || tally.Failed > 0 || r.err != nil {
		return failed
	}
	return ok
}

// barrier waits for the pushes of a label, and says which came to nothing.
func barrier(ctx context.Context, daemon *client.Daemon, o options, stderr io.Writer) int {
	patience := batch.Patience{For: o.patience, Notice: (&reporter{stderr: stderr}).outage}
	status := ok
	err := batch.Settle(ctx, daemon, o.wait, o.timeout, patience)
	if err == nil {
		err = batch.Unfinished(ctx, daemon, o.wait, patience, func(r push.Receipt) {
			status = failed
			fmt.Fprintf(stderr, "send: %s: %s\n", progress.Name(r.File), explain(batch.Problem(r)))
		})
	}
	switch {
	case err == nil:
		return status
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "send: interrupted: what the daemon has accepted goes on without send")
	default:
		fmt.Fprintf(stderr, "send: %s\n", explain(err))
	}
	return failed
}

// isTerminal reports whether somebody may be looking at what is written there.
func isTerminal(w io.Writer) bool {
	file, isFile := w.(*os.File)
	if !isFile {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// sameFile reports whether both write to one place.
func sameFile(a, b io.Writer) bool {
	f, isFile := a.(*os.File)
	g, isToo := b.(*os.File)
	if !isFile || !isToo {
		return false
	}
	one, err := f.Stat()
	if err != nil {
		return false
	}
	other, err := g.Stat()
	return err == nil && os.SameFile(one, other)
}
