package e2e

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestSendSeesRestarts has programs push one file after another, by send FILE DEST
// and by the old port, while their daemon is killed, stopped and killed again, with
// pushes of theirs under way, and is away for seconds each time. With
// S3DAEMON_RETRY_FOR none of them fails, and nothing is pushed twice.
func TestSendSeesRestarts(t *testing.T) {
	sideBySide(t)
	const retryFor = "S3DAEMON_RETRY_FOR=1h"
	p := storeProxy(t)
	where := "unix:" + socketPath(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_LISTEN="+where)
	old := legacyClients(t, startLegacyListener(t, where, retryFor).address)["socket"]
	send := func(file, destination string) error {
		return runClient(exec.Command(binaryPath(t, "send"), file, destination), "S3DAEMON_URL="+where, retryFor)
	}
	bucket, file := newBucket(t), makeFile(t, "file", 10_000)

	var pushed, enough atomic.Int64
	enough.Store(1 << 60)
	var callers sync.WaitGroup
	for i, push := range []func(file, destination string) error{send, send, send, send, old, old} {
		callers.Go(func() {
			for n := 0; pushed.Load() < enough.Load(); n++ {
				if err := push(file, fmt.Sprintf("s3://%s/%d/%d", bucket, i, n)); err != nil {
					t.Errorf("caller %d, file %d: %v", i, n, err)
					return
				}
				pushed.Add(1)
			}
		})
	}
	more := func(what string) {
		before := pushed.Load()
		waitFor(t, what, func() bool { return t.Failed() || pushed.Load() >= before+20 })
	}
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL} {
		more("pushes")
		p.hold()
		waitFor(t, "pushes to be under way", func() bool { return t.Failed() || p.nowHeld() > 0 })
		d.signal(signal)
		if signal == syscall.SIGTERM {
			p.release() // or it would wait
		}
		d.wait()
		p.release()
		awaitNotice(t, file, "s3://"+bucket+"/noticed/"+fmt.Sprint(pushed.Load()), where, &pushed, &callers)
		d = d.restart(t)
	}
	more("pushes after the last restart")
	enough.Store(0)
	callers.Wait()

	all := d.listOf(t, "")
	seen := make(map[string]bool)
	for _, r := range all {
		if r.State != "done" || seen[r.Destination] {
			t.Errorf("%s is %s, and there was one before: %v", r.Destination, r.State, seen[r.Destination])
		}
		seen[r.Destination] = true
	}
	if n := int(pushed.Load()); len(all) != n || len(listObjects(t, bucket)) != n {
		t.Errorf("%d pushes and %d objects of %d files", len(all), len(listObjects(t, bucket)), n)
	}
}

// awaitNotice starts a send with flags, which goes on as one of the callers, and
// waits until it says that the daemon has been away for a while.
func awaitNotice(t *testing.T, file, destination, where string, pushed *atomic.Int64, callers *sync.WaitGroup) {
	t.Helper()
	cmd := exec.Command(binaryPath(t, "send"), "-label", "noticed", file, destination)
	cmd.Env = []string{"S3DAEMON_URL=" + where}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	if !lines.Scan() || !strings.HasSuffix(lines.Text(), "; asking again for up to 1m0s") {
		t.Errorf("send without its daemon says %q", lines.Text())
	}
	callers.Go(func() {
		for lines.Scan() {
			t.Errorf("send says %q", lines.Text())
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("send with flags: %v", err)
			return
		}
		pushed.Add(1)
	})
}
