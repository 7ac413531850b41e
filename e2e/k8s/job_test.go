package k8s

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// jobFiles are what each of the Jobs writes: 25 that are under way at once, and
// 50 that are queued behind them.
const jobFiles, jobFileSize = 75, 200_000

// job runs a Job of the writer that has its files pushed without waiting, and
// ends; it is in a store of that many bytes a second. It returns its pod and what
// its daemon logged, when both have ended.
func job(t *testing.T, rate int, values string, args string) (*store, pod, []logged) {
	t.Helper()
	n := newNamespace(t, restricted)
	s := n.startStore("raw")
	s.setRate(rate)
	n.installWriter(s, values+fmt.Sprintf(`
kind: Job
args: [write, -dir, /data, -send, /opt/s3daemon/send, -by, post-async, -files, "%d", -j, "25", -size, "%d", -label, job%s, "s3://raw/"]
`, jobFiles, jobFileSize, args))
	const label = "app.kubernetes.io/instance=writer"
	var daemon *followed
	n.until(patience, "the daemon runs", func() error {
		for _, p := range n.pods(label) {
			if c := p.container("s3daemon"); c.State.Running != nil || c.State.Terminated != nil {
				daemon = n.follow(p.Metadata.Name, "s3daemon")
				return nil
			}
		}
		return errNotYet
	})
	lines := linesOf[logged](daemon.all())
	// Also where the daemon could not deliver all: it is the writer that tells.
	n.kubectl("wait", "--for=condition=complete", "job/writer", "--timeout=120s")
	pods := n.pods(label)
	if len(pods) != 1 {
		t.Fatalf("the Job had %d pods, want 1", len(pods))
	}
	writer, ended := pods[0].container("writer").State.Terminated, pods[0].container("s3daemon").State.Terminated
	if writer == nil || writer.ExitCode != 0 || ended == nil {
		t.Fatalf("the writer ended as %+v, the daemon as %+v", writer, ended)
	}
	return s, pods[0], lines
}

// between returns the time between two lines of a log.
func between(lines []logged, from, to string) time.Duration {
	var times [2]time.Time
	for i, msg := range []string{from, to} {
		for _, l := range lines {
			if l.Msg == msg {
				times[i] = l.Time
			}
		}
	}
	return times[1].Sub(times[0])
}

// number returns how many lines of a log say that.
func number(lines []logged, msg string) (n int) {
	for _, l := range lines {
		if l.Msg == msg {
			n++
		}
	}
	return n
}

// TestJobBarrier has a Job wait for its pushes before it ends: then all are done,
// and nothing is left for the daemon's end.
func TestJobBarrier(t *testing.T) {
	t.Parallel()
	s, p, lines := job(t, 1_500_000, "", ", -wait")
	s.untilObjects(0, jobFiles)
	if n := number(lines, "push done"); n != jobFiles {
		t.Errorf("%d pushes were done, want %d", n, jobFiles)
	}
	if end := p.container("s3daemon").State.Terminated; end.ExitCode != 0 {
		t.Errorf("the daemon ended as %+v", end)
	}
	t.Logf("the daemon ended within %v", between(lines, "stopping", "stopped"))
}

// TestJobDrain has a Job end without waiting, and its daemon deliver what was
// accepted, which it can in the time that it has. kubelet asks it meanwhile whether
// it is alive, which it does not answer, and does not kill it for that.
func TestJobDrain(t *testing.T) {
	t.Parallel()
	s, p, lines := job(t, 1_500_000, "s3daemon: {drain: {timeoutSeconds: 60}, probes: {liveness: {periodSeconds: 1, failureThreshold: 1}}}", "")
	s.untilObjects(0, jobFiles)
	if end := p.container("s3daemon").State.Terminated; end.ExitCode != 0 {
		t.Errorf("the daemon ended as %+v", end)
	}
	t.Logf("the daemon delivered the rest within %v", between(lines, "stopping", "stopped"))
}

// TestJobTooLate has a Job end without waiting when its files take longer than
// the daemon has: the Job is complete all the same, and some are lost with the
// pod. That they are is what README says, and why it has Jobs wait.
func TestJobTooLate(t *testing.T) {
	t.Parallel()
	// All of them would take five minutes, and job waits for two.
	s, p, lines := job(t, 50_000, "s3daemon: {drain: {timeoutSeconds: 10}}", "")
	objects := s.objects()
	s.check(objects)
	if len(objects) >= jobFiles {
		t.Errorf("all %d files were delivered: the store is too fast for this test", jobFiles)
	}
	if end := p.container("s3daemon").State.Terminated; end.ExitCode != 1 {
		t.Errorf("the daemon ended as %+v, want exit status 1", end)
	}
	if !slices.ContainsFunc(lines, func(l logged) bool { return l.Level == "WARN" && l.Pushes > 0 }) {
		t.Error("the daemon's log does not say that pushes are left")
	}
	t.Logf("%d of %d files are at the store; the daemon ended within %v", len(objects), jobFiles, between(lines, "stopping", "stopped"))
}
