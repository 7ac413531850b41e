package main

import (
	"context"
	"errors"
	"time"
)

// mostSleep is longer than any orchestrator waits for a hook.
const mostSleep = 24 * time.Hour

// sleep waits for as long as its only argument says, or until a signal comes:
// what a preStop hook calls in an image without a shell, so that the daemon is
// told to stop only when those that push have had that time to end.
func sleep(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return usageError{errors.New("s3daemon sleep takes one argument, how long: s3daemon sleep 30s")}
	}
	var p parser
	d := p.duration("s3daemon sleep", args[0], 0, mostSleep)
	if err := errors.Join(p.mistakes...); err != nil {
		return usageError{err}
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
	return nil
}
