package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// socketPath returns a path short enough for a Unix socket, which that of a
// test's own directory need not be.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(tempDir, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "d.sock")
}

func TestUnixSocket(t *testing.T) {
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	path := socketPath(t)
	d := startDaemon(t, "S3DAEMON_LISTEN=unix:"+path)
	if d.addrs[0] != "unix:"+path {
		t.Errorf("the daemon says that it listens on %s", d.addrs[0])
	}
	d.push(t, file, "s3://"+bucket+"/one").done(t)
	checkObject(t, bucket, "one", file)

	// What a killed daemon leaves behind is no other daemon.
	d.signal(syscall.SIGKILL)
	d.wait()
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("a killed daemon left no socket: %v", err)
	}
	again := startDaemon(t, "S3DAEMON_LISTEN=unix:"+path)
	again.push(t, file, "s3://"+bucket+"/two").done(t)

	// A live one is.
	r := runCommand(t, environment(t, "S3DAEMON_LISTEN=unix:"+path))
	checkClearFailure(t, r, 1, path)
	again.push(t, file, "s3://"+bucket+"/three").done(t)

	again.client.CloseIdleConnections()
	again.signal(syscall.SIGTERM)
	if code := again.wait(); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there after SIGTERM")
	}
}

func TestTwoListeners(t *testing.T) {
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	path := socketPath(t)
	d := startDaemon(t, "S3DAEMON_LISTEN=127.0.0.1:0, unix:"+path+",127.0.0.1:0")
	for i, addr := range d.addrs {
		d.client = clientOf(addr)
		d.push(t, file, fmt.Sprintf("s3://%s/%d", bucket, i)).done(t)
		checkObject(t, bucket, fmt.Sprint(i), file)
		d.client.CloseIdleConnections()
	}
	if d.addrs[0] == d.addrs[2] {
		t.Errorf("two listeners have the address %s", d.addrs[0])
	}
}

func TestPortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	path := socketPath(t)
	addr := taken.Addr().String()
	r := runCommand(t, environment(t, "S3DAEMON_LISTEN=unix:"+path+","+addr))
	checkClearFailure(t, r, 1, addr, "S3DAEMON_LISTEN")
	if _, err := os.Stat(path); err == nil {
		t.Error("the other listener's socket was left behind")
	}
}

// checkClearFailure fails the test unless a command ended with that status and
// a message for people, which has the words given.
func checkClearFailure(t testing.TB, r result, code int, words ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("the exit status is %d, want %d", r.code, code)
	}
	for _, w := range words {
		if !strings.Contains(r.out, w) {
			t.Errorf("the message does not name %s", w)
		}
	}
	for _, w := range []string{"goroutine ", "panic", ".go:"} {
		if strings.Contains(r.out, w) {
			t.Errorf("the message has %q, as stacks have", w)
		}
	}
	if t.Failed() {
		t.Logf("the output is:\n%s", r.out)
	}
}
