package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// patience ends tests that would hang. Nothing is measured by it.
const patience = time.Minute

var binDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "send-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binDir = dir
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// build builds the program as it is shipped, once.
var build = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binDir, "send")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = env
	return cmd
}

// outcome is what a command line shows of itself.
type outcome struct {
	status         int
	stdout, stderr string
}

func (o outcome) String() string {
	return fmt.Sprintf("exit %d, stdout %.400q, stderr %.400q", o.status, o.stdout, o.stderr)
}

// finish runs the command to its end. Each f is called once it has started.
func finish(t *testing.T, cmd *exec.Cmd, f ...func()) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range f {
		f()
	}
	err := cmd.Wait()
	if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit {
		t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// standIn answers POST /push in the daemon's place, as the key that is pushed
// wants it.
type standIn struct {
	*httptest.Server
	asked chan push.Request           // each request, before its answer
	keys  map[string]http.HandlerFunc // by the destination's last element
}

func newStandIn(t *testing.T, address string, keys map[string]http.HandlerFunc) *standIn {
	t.Helper()
	d := &standIn{asked: make(chan push.Request, 1000), keys: keys}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	d.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.Method != http.MethodPost || r.URL.Path != "/push" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		request := push.Request{File: r.PostForm.Get("file"), Destination: r.PostForm.Get("destination")}
		d.asked <- request
		handler := d.keys[request.Destination[strings.LastIndex(request.Destination, "/")+1:]]
		if handler == nil {
			handler = done
		}
		handler(w, r)
	}))
	d.Listener.Close()
	d.Listener = listener
	d.Start()
	t.Cleanup(d.Close)
	return d
}

func (d *standIn) address() string { return strings.TrimPrefix(d.URL, "http://") }

func done(w http.ResponseWriter, _ *http.Request) {
	answer(w, 200, push.Receipt{ID: "1", State: push.Done})
}

func problem(p push.Problem) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { answer(w, p.Status, p) }
}

func answer(w http.ResponseWriter, status int, body any) {
	media := "application/json"
	if _, is := body.(push.Problem); is {
		media = "application/problem+json"
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// listener is a running send -listen.
type listener struct {
	cmd     *exec.Cmd
	address string
	ended   chan struct{} // closed when the process has ended

	mu    sync.Mutex
	lines []string // of its log; guarded by mu
}

// startListener starts one on a free port. At the test's end it must still be
// there, drain at once, and exit with 0, unless the test has ended it.
func startListener(t *testing.T, env ...string) *listener {
	t.Helper()
	l := &listener{cmd: command(t, env, "-listen", "127.0.0.1:0"), ended: make(chan struct{})}
	stderr, err := l.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	go func() {
		defer close(l.ended)
		scanner := bufio.NewScanner(stderr)
		for scanner.Scan() {
			var record struct{ Msg, Address string }
			if err := json.Unmarshal(scanner.Bytes(), &record); err == nil && record.Msg == "listening" {
				address <- record.Address
			}
			l.mu.Lock()
			l.lines = append(l.lines, scanner.Text())
			l.mu.Unlock()
		}
		l.cmd.Wait()
	}()
	t.Cleanup(func() {
		l.signal(t, syscall.SIGTERM)
		l.wait(t)
		if t.Failed() {
			t.Log("the listener's log:\n" + l.log())
		}
	})
	select {
	case l.address = <-address:
	case <-l.ended:
		t.Fatal("the listener ended: " + l.log())
	case <-time.After(patience):
		t.Fatal("the listener does not listen")
	}
	return l
}

func (l *listener) log() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

func (l *listener) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := l.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
}

// wait waits for the process's end and returns how it ended.
func (l *listener) wait(t *testing.T) *os.ProcessState {
	t.Helper()
	select {
	case <-l.ended:
	case <-time.After(patience):
		l.cmd.Process.Kill()
		t.Fatal("the listener did not end")
	}
	return l.cmd.ProcessState
}

// descriptors counts the process's open files.
func (l *listener) descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", l.cmd.Process.Pid))
	if err != nil {
		t.Skip("no /proc to count descriptors in")
	}
	return len(entries)
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-deadline:
			t.Fatal("waited in vain for " + what)
		case <-tick.C:
		}
	}
}

// dial opens a connection to the listener.
func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// say sends the pieces, one packet each.
func say(t *testing.T, conn net.Conn, pieces ...string) {
	t.Helper()
	for _, piece := range pieces {
		if _, err := io.WriteString(conn, piece); err != nil {
			t.Errorf("send %.40q: %v", piece, err)
		}
	}
}

// hear returns all that comes until the listener closes.
func hear(t *testing.T, conn net.Conn) string {
	t.Helper()
	reply, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("read the reply: %v", err)
	}
	conn.Close()
	return string(reply)
}
