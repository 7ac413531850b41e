package main

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/batch"
	"github.com/lsst-dm/s3daemon/send/client"
)

func TestExplain(t *testing.T) {
	unreachable := &client.UnreachableError{Where: "unix:/d.sock", Err: syscall.ENOENT}
	full := &client.ProblemError{Err: push.Errorf(push.QueueFull, "100000 pushes\nwait")}
	for _, test := range []struct {
		err  error
		want string
	}{
		{errors.New("no"), "no"},
		{full, "100000 pushes wait (queue_full)"},
		{unreachable, "no daemon at unix:/d.sock: no such file or directory (S3DAEMON_URL says where to look)"},
		{&batch.GaveUpError{Err: full, After: time.Minute}, "100000 pushes wait (queue_full); gave up after 1m0s"},
		{&batch.GaveUpError{Err: unreachable, After: 90 * time.Second}, "no daemon at unix:/d.sock: no such file or directory (S3DAEMON_URL says where to look); gave up after 1m30s"},
		{&batch.GaveUpError{Err: full}, "100000 pushes wait (queue_full)"},
	} {
		if got := explain(test.err); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

func TestWhereabouts(t *testing.T) {
	all := batch.Tally{Done: 1, Failed: 2, Accepted: 3, Unclear: 4, Untouched: 5}
	for _, test := range []struct {
		tally batch.Tally
		async bool
		want  string
	}{
		{all, false, "1 done, 2 failed, 3 going on by themselves in the daemon, 4 perhaps going on in the daemon, 5 not pushed"},
		{all, true, "1 accepted, 2 failed, 3 going on by themselves in the daemon, 4 perhaps going on in the daemon, 5 not pushed"},
		{batch.Tally{Untouched: 10}, false, "10 not pushed"},
	} {
		if got := (&reporter{async: test.async}).whereabouts(test.tally); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

// TestInterruptedBeforehand: it is said of the whole batch in one line.
func TestInterruptedBeforehand(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr strings.Builder
	status := run(ctx, []string{"-async", "/a", "/b", "s3://bkt/"}, env("S3DAEMON_URL=unix:/nowhere/d.sock"), &stdout, &stderr)
	if want := "send: interrupted: 2 not pushed\n"; status != failed || stdout.String() != "" || stderr.String() != want {
		t.Errorf("%d, %q, %q", status, stdout.String(), stderr.String())
	}
}
