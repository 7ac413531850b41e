package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// legacyListener is a send -listen in a process of its own.
type legacyListener struct {
	t       testing.TB
	cmd     *exec.Cmd
	out     *output
	exited  chan struct{}
	address string
}

// startLegacyListener starts a listener of the old protocol before the daemon
// at the URL given. At the test's end it must drain at once and exit with 0.
func startLegacyListener(t testing.TB, daemonURL string, env ...string) *legacyListener {
	t.Helper()
	l := &legacyListener{t: t, out: newOutput(), exited: make(chan struct{})}
	l.cmd = command(binaryPath(t, "send"), append(env, "S3DAEMON_URL="+daemonURL), l.out, "-listen", "127.0.0.1:0")
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		l.cmd.Wait()
		l.out.end()
		close(l.exited)
	}()
	t.Cleanup(l.stop)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	lines, err := l.out.wait(ctx, 1, "listening")
	if err != nil {
		t.Fatal(err)
	}
	l.address, _ = lines[0]["address"].(string)
	return l
}

func (l *legacyListener) stop() {
	l.t.Helper()
	l.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-l.exited:
		if code := l.cmd.ProcessState.ExitCode(); code != 0 {
			l.t.Errorf("the listener ended with %v", l.cmd.ProcessState)
		}
	case <-time.After(patience):
		l.cmd.Process.Kill()
		<-l.exited
		l.t.Errorf("the listener did not end within %v of SIGTERM", patience)
	}
	if l.t.Failed() {
		l.t.Logf("the listener wrote:\n%s", tail(l.out.bytes(), 8000))
	}
}

// checkDescriptors waits until the listener has none more open than before.
func (l *legacyListener) checkDescriptors(before int) {
	l.t.Helper()
	waitFor(l.t, "the listener's descriptors to be back", func() bool { return l.descriptors() <= before })
}

func (l *legacyListener) descriptors() int {
	l.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", l.cmd.Process.Pid))
	if err != nil {
		l.t.Fatal(err)
	}
	return len(entries)
}

// rawLegacy is a client of the old protocol that knows its description only.
func rawLegacy(address, file, destination string) (reply string, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, file+" "+destination+"\n"); err != nil {
		return "", err
	}
	got, err := io.ReadAll(conn)
	return string(got), err
}

// legacyClients are the ways to push a file over the old protocol: each
// returns nil for success, and the text of the error otherwise.
func legacyClients(t testing.TB, address string) map[string]func(file, destination string) error {
	_, port, _ := net.SplitHostPort(address)
	clients := map[string]func(file, destination string) error{
		"socket": func(file, destination string) error {
			reply, err := rawLegacy(address, file, destination)
			if err == nil && reply != "Success" {
				err = errors.New(reply)
			}
			return err
		},
		"send": func(file, destination string) error {
			return runClient(exec.Command(binaryPath(t, "send"), file, destination), "S3DAEMON_PORT="+port)
		},
	}
	// What the callers are. It stands beside the program it is to agree with.
	script := filepath.Join(repoDir, "send", "testdata", "legacy_client.py")
	if python, err := exec.LookPath("python3"); err == nil {
		clients["Python"] = func(file, destination string) error {
			return runClient(exec.Command(python, script, file, destination), "S3DAEMON_PORT="+port, "PATH="+os.Getenv("PATH"))
		}
	}
	return clients
}

// waitLine is what a client writes that waits for its daemon.
var waitLine = regexp.MustCompile(`(?m)^send: .*; asking again for up to \S+\n`)

// runClient runs a client whose contract is silence and 0, or standard error
// and 1. Where it was told to wait for its daemon, it may say once that it does.
func runClient(cmd *exec.Cmd, env ...string) error {
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &stdout, &stderr
	theLeaks.learnFrom(env)
	err := cmd.Run()
	theLeaks.search("what send wrote", append(stdout.Bytes(), stderr.Bytes()...))
	text := stderr.String()
	if slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "S3DAEMON_RETRY_FOR=") }) {
		if at := waitLine.FindStringIndex(text); at != nil {
			text = text[:at[0]] + text[at[1]:]
		}
	}
	text = strings.TrimSuffix(text, "\n")
	switch {
	case err == nil && stdout.Len() == 0 && text == "":
		return nil
	case cmd.ProcessState.ExitCode() == 1 && stdout.Len() == 0 && text != "" && !strings.Contains(text, "\n"):
		return errors.New(text)
	}
	return fmt.Errorf("against the contract: %v, stdout %q, stderr %q", cmd.ProcessState, &stdout, &stderr)
}

func listens(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// gatekeeper stands before a daemon and counts the requests that are in it:
// from before the daemon sees one until after it has answered.
type gatekeeper struct {
	*httptest.Server
	now, most, all atomic.Int64
}

func newGatekeeper(t testing.TB, daemonURL string) *gatekeeper {
	target, err := url.Parse(daemonURL)
	if err != nil {
		t.Fatal(err)
	}
	g := &gatekeeper{}
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(*http.Response) error { g.now.Add(-1); return nil },
	}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.all.Add(1)
		now := g.now.Add(1)
		for most := g.most.Load(); now > most && !g.most.CompareAndSwap(most, now); most = g.most.Load() {
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(g.Close)
	return g
}
