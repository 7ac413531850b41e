package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

func TestRetryFor(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 7 * time.Second, "0": 0, "0s": 0, "30": 30 * time.Second, "5m": 5 * time.Minute} {
		if got, err := retryFor(env("S3DAEMON_RETRY_FOR="+value), 7*time.Second); err != nil || got != want {
			t.Errorf("%q: %v, %v", value, got, err)
		}
	}
	const says = `S3DAEMON_RETRY_FOR is "soon", which is not a duration such as 30s or 5m, or a number of seconds`
	for _, args := range [][]string{{"/f", "s3://bkt/k"}, {"-label", "a", "/f", "s3://bkt/k"}, {"-wait", "a"}, {"-listen", "127.0.0.1:0"}} {
		if got := finish(t, command(t, []string{"S3DAEMON_RETRY_FOR=soon"}, args...)); got != (outcome{1, "", "send: " + says + "\n"}) {
			t.Errorf("%q: %v", args, got)
		}
	}
	for _, value := range []string{"-1s", "-1", "1.5"} {
		if d, err := retryFor(env("S3DAEMON_RETRY_FOR="+value), 0); err == nil {
			t.Errorf("%q is %v", value, d)
		}
	}
}

// TestPatientClient: send FILE DEST with S3DAEMON_RETRY_FOR bears with refusals and
// with connections that break once the daemon has the push, of which there is one.
func TestPatientClient(t *testing.T) {
	q := newQueue(t, "127.0.0.1:0")
	q.mu.Lock()
	q.refuse, q.cut["k"] = 2, 2
	q.mu.Unlock()
	if got := finish(t, command(t, []string{"S3DAEMON_URL=" + q.URL, "S3DAEMON_RETRY_FOR=1h"}, "/f", "a/bkt/k")); got != (outcome{}) {
		t.Error(got)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.pushes); n != 1 || q.asked != 5 {
		t.Errorf("%d pushes after %d requests", n, q.asked)
	}
}

// TestPatientClientComesFirst: it is started before its daemon, whose socket is not
// there yet.
func TestPatientClientComesFirst(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "d.sock")
	cmd := command(t, []string{"S3DAEMON_URL=unix:" + socket, "S3DAEMON_RETRY_FOR=1h"}, "/f", "a/bkt/k")
	got := finish(t, cmd, func() {
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Error(err)
			return
		}
		server := &http.Server{Handler: http.HandlerFunc(done)}
		t.Cleanup(func() { server.Close() })
		go server.Serve(l)
	})
	if got != (outcome{}) {
		t.Error(got)
	}
}

// TestPatienceEnds says for how long the daemon was asked, and not where that was
// not at all.
func TestPatienceEnds(t *testing.T) {
	const nobody = "send: no daemon at unix:/nowhere/d.sock: no such file or directory (S3DAEMON_URL says where to look)"
	for value, want := range map[string]string{"": nobody + "\n", "0": nobody + "\n", "10ms": nobody + "; gave up after 10ms\n"} {
		cmd := command(t, []string{"S3DAEMON_URL=unix:/nowhere/d.sock", "S3DAEMON_RETRY_FOR=" + value}, "/f", "a/bkt/k")
		if got := finish(t, cmd); got != (outcome{1, "", want}) {
			t.Errorf("%q: %v", value, got)
		}
	}
	cmd := command(t, []string{"S3DAEMON_URL=unix:/nowhere/d.sock", "S3DAEMON_RETRY_FOR=0"}, "-json", "/f", "a/bkt/k")
	if got, want := finish(t, cmd), nobody+": 1 not pushed\n"; got != (outcome{1, "", want}) {
		t.Errorf("with flags: %v", got)
	}
}

// TestPatientClientInterrupted: whoever waits for a daemon is told so, once; a signal
// ends that, and the daemon has not taken anything.
func TestPatientClientInterrupted(t *testing.T) {
	const nobody = "send: no daemon at unix:/nowhere/d.sock: no such file or directory (S3DAEMON_URL says where to look); asking again for up to 1h0m0s\n"
	for says, args := range map[string][]string{
		"the daemon has not taken the push":                 {"/f", "a/bkt/k"},
		"1 not pushed":                                      {"-json", "/f", "a/bkt/k"},
		"what the daemon has accepted goes on without send": {"-wait", "a"},
	} {
		cmd := command(t, []string{"S3DAEMON_URL=unix:/nowhere/d.sock", "S3DAEMON_RETRY_FOR=1h"}, args...)
		var stdout bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, nil
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(stderr)
		if line, err := lines.ReadString('\n'); line != nobody || err != nil {
			t.Errorf("%q: %q, %v", args, line, err)
		}
		cmd.Process.Signal(syscall.SIGTERM)
		rest, _ := io.ReadAll(lines)
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || string(rest) != "send: interrupted: "+says+"\n" || stdout.Len() > 0 {
			t.Errorf("%q: %v, %q, %q", args, err, rest, stdout.String())
		}
	}
}

// TestPatientListener: with S3DAEMON_RETRY_FOR the old server repeats what a daemon
// did not answer that has gone, too, as the same push.
func TestPatientListener(t *testing.T) {
	q := newQueue(t, "127.0.0.1:0")
	q.mu.Lock()
	q.refuse, q.cut["k"] = 2, 2
	q.mu.Unlock()
	l := startListener(t, "S3DAEMON_URL="+q.URL, "S3DAEMON_RETRY_FOR=1h")
	conn := dial(t, l.address)
	say(t, conn, "/f a/bkt/k\n")
	if got := hear(t, conn); got != "Success" {
		t.Errorf("%q", got)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.pushes); n != 1 || q.asked != 5 {
		t.Errorf("%d pushes after %d requests", n, q.asked)
	}
}

// TestImpatientListener asks once.
func TestImpatientListener(t *testing.T) {
	daemon := newStandIn(t, "127.0.0.1:0", map[string]http.HandlerFunc{
		"k": problem(push.Problem{Status: 503, Code: push.ShuttingDown, Detail: "the daemon is shutting down"}),
	})
	l := startListener(t, "S3DAEMON_URL="+daemon.URL, "S3DAEMON_RETRY_FOR=0")
	conn := dial(t, l.address)
	say(t, conn, "/f a/bkt/k\n")
	if got := hear(t, conn); !strings.HasPrefix(got, "the daemon is shutting down") || len(daemon.asked) != 1 {
		t.Errorf("%q after %d requests", got, len(daemon.asked))
	}
}
