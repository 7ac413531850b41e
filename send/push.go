package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/batch"
	"github.com/lsst-dm/s3daemon/send/client"
	"github.com/lsst-dm/s3daemon/send/legacy"
)

// pushFile is the old client: silence and 0, or one line and 1.
func pushFile(ctx context.Context, file, destination string, getenv func(string) string, stderr io.Writer) int {
	err := ask(ctx, file, destination, getenv, stderr)
	switch {
	case err == nil:
		return ok
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		fmt.Fprintf(stderr, "send: interrupted: %s\n", whereabouts(err))
		return failed
	}
	if reply, isReply := errors.AsType[*legacy.ReplyError](err); isReply {
		// As the old client printed it.
		fmt.Fprintln(stderr, reply.Text)
		return failed
	}
	fmt.Fprintf(stderr, "send: %s\n", explain(err))
	return failed
}

// unfinishedError is that nobody waits any more for a push.
type unfinishedError struct {
	error
	at batch.Tally // where it is
}

func (u *unfinishedError) Unwrap() error { return u.error }

// whereabouts says where a push is that is not waited for any more.
func whereabouts(err error) string {
	of, known := errors.AsType[*unfinishedError](err)
	switch {
	case known && of.at.Untouched > 0:
		return "the daemon has not taken the push"
	case known && of.at.Accepted > 0:
		return "the push goes on by itself in the daemon"
	}
	return "the push may still be under way"
}

func ask(ctx context.Context, file, destination string, getenv func(string) string, stderr io.Writer) error {
	file, err := absolute(file)
	if err != nil {
		return err
	}
	url, server, err := whom(getenv)
	if err != nil {
		return err
	}
	if url == "" {
		return legacy.Ask(ctx, server, file, destination)
	}
	daemon, err := daemonAt(url, getenv)
	if err != nil {
		return err
	}
	patience, err := retryFor(getenv, 0)
	switch {
	case err != nil:
		return err
	case patience == 0:
		return daemon.Push(ctx, file, destination)
	}
	defer daemon.Close()
	return pushPatiently(ctx, daemon, batch.Item{File: file, Destination: destination}, batch.Patience{For: patience, Notice: (&reporter{stderr: stderr}).outage})
}

// pushPatiently is Push for those who want it to see the daemon restart: a batch
// of one, with the same requests as any other.
func pushPatiently(ctx context.Context, daemon batch.Daemon, item batch.Item, patience batch.Patience) error {
	end := lastWord{batch.Outcome{Err: errors.New("nothing was heard of the push")}}
	cfg := batch.Config{Daemon: daemon, Observer: &end, Parallel: 1, Patience: patience}
	if at, err := cfg.Run(ctx, []batch.Item{item}); err != nil {
		return &unfinishedError{err, at}
	}
	return end.Err
}

// lastWord is the outcome of a batch of one.
type lastWord struct{ batch.Outcome }

// News is none for who waits for the end.
func (*lastWord) News(batch.Item, push.Receipt) {}

// Ended keeps the outcome.
func (l *lastWord) Ended(o batch.Outcome) { l.Outcome = o }

// daemonAt returns the daemon of that URL, with the token for it.
func daemonAt(url string, getenv func(string) string) (*client.Daemon, error) {
	file, err := tokenFile(getenv, nil)
	if err != nil {
		return nil, err
	}
	daemon, err := client.New(url, tokenIn(file))
	if err != nil {
		return nil, fmt.Errorf("S3DAEMON_URL: %w", err)
	}
	return daemon, nil
}

// whom returns whom the user chose: the URL of a daemon, or the address of a
// server of the line protocol where only the old variables name one.
func whom(getenv func(string) string) (url, server string, err error) {
	if url := getenv("S3DAEMON_URL"); url != "" {
		return url, "", nil
	}
	old, err := oldServer(getenv)
	switch {
	case err != nil:
		return "", "", err
	case old.chosen:
		return "", old.address(), nil
	}
	return client.DefaultURL, "", nil
}

// absolute puts the working directory before a relative path, and changes
// nothing else: "link/../a" is not "a" where link leads elsewhere.
func absolute(file string) (string, error) {
	if file == "" {
		return "", errors.New("FILE is empty: give the path of the file to push")
	}
	if strings.HasPrefix(file, "/") {
		return file, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the working directory, which the relative path of FILE needs: %w", err)
	}
	return strings.TrimSuffix(dir, "/") + "/" + file, nil
}
