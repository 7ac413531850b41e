package e2e

import (
	"context"
	"strings"
	"testing"
)

const aTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// The traceparent of a push is at the store, in the receipt, and in all that the log
// says of it, though the daemon is killed meanwhile.
func TestTraceparent(t *testing.T) {
	p := newFaultProxy(t)
	held := newGate()
	t.Cleanup(held.open)
	p.follow(always(fault{before: held.wait}))
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "file", 20<<20)
	w := async.labelled("night 1")
	w.trace = aTrace
	r := d.pushAs(t, w, file, "s3://"+bucket+"/key").accepted(t)
	waitFor(t, "the store to be asked", func() bool { return p.nowHeld() > 0 })
	first := d
	d.kill()
	p.follow(passAll)
	held.open()
	d = d.restart(t)
	if end := d.endOf(t, r.ID); end.State != "done" || end.Traceparent != aTrace || r.Traceparent != aTrace {
		t.Errorf("accepted %+v, in the end %+v", r, end)
	}
	checkObject(t, bucket, "key", file)
	seen := 0
	for _, x := range p.requests("") {
		switch {
		case x.key == "key" && x.traceparent != aTrace, x.key != "key" && x.traceparent != "":
			t.Errorf("%s of %q has the traceparent %q", x.op, x.key, x.traceparent)
		case x.key == "key":
			seen++
		}
	}
	if seen < 2 {
		t.Errorf("the store saw %d requests of the push", seen)
	}
	for which, msg := range map[*daemon]string{first: "push accepted", d: "push done"} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		lines, err := which.out.wait(ctx, 1, msg)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if l := lines[0]; l["id"] != r.ID || l["label"] != "night 1" || l["traceparent"] != aTrace {
			t.Errorf("the log has %v", l)
		}
	}
}

// What went wrong with a push is told of it, of one that was done in the end, too.
func TestFailedAttempts(t *testing.T) {
	p := newFaultProxy(t)
	seen := map[string]int{}
	p.follow(func(r request) fault {
		if r.op != "PutObject" {
			return fault{}
		}
		seen[r.key]++
		switch n := seen[r.key]; {
		case r.key == "bad", n == 1:
			return slowDown.instead()
		case n == 2:
			return fault{what: cutAfter} // so that it is asked for
		}
		return fault{}
	})
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_ATTEMPTS=3")
	bucket, file := newBucket(t), makeFile(t, "file", 1<<20)
	good := d.push(t, file, "s3://"+bucket+"/good").done(t)
	bad := d.push(t, file, "s3://"+bucket+"/bad")
	if bad.status/100 != 5 {
		t.Fatalf("the push that fails: %d: %s", bad.status, bad.body)
	}
	id := strings.TrimPrefix(bad.header.Get("Location"), "/pushes/")
	check := func(d *daemon) {
		t.Helper()
		for id, want := range map[string][]string{good.ID: {"slow_down", "connection"}, id: {"slow_down", "slow_down", "slow_down"}} {
			r := d.pushOf(t, id)
			if len(r.FailedAttempts) != len(want) {
				t.Errorf("%s, %s, has the attempts %+v", r.Key, r.State, r.FailedAttempts)
				continue
			}
			for i, a := range r.FailedAttempts {
				if a.Operation != "PutObject" || a.Reason != want[i] || a.Detail == "" || a.At.Before(r.AcceptedAt) || a.At.After(r.FinishedAt) {
					t.Errorf("%s has the attempt %+v, want one that failed for %s", r.Key, a, want[i])
				}
			}
		}
		for _, r := range d.listOf(t, "") {
			if r.FailedAttempts != nil {
				t.Errorf("a list has %+v", r.FailedAttempts)
			}
		}
	}
	check(d)
	d.kill()
	d = d.restart(t)
	check(d)
	p.follow(passAll)
	d.retry(t, id)
	if r := d.endOf(t, id); r.State != "done" || len(r.FailedAttempts) != 3 {
		t.Errorf("put back, the push has ended as %+v", r)
	}
}
