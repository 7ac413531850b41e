package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// daemon is an s3daemon in a process of its own.
type daemon struct {
	t       testing.TB
	cmd     *exec.Cmd
	env     []string      // all that it was started with
	out     *output       // both its standard output and its standard error
	addrs   []string      // what it listens on, as it logs it
	url     string        // of its first TCP listener; "" without one
	secret  string        // the secret key it was given
	client  *http.Client  // for its first listener of any kind
	exited  chan struct{} // closed when the process has ended
	waited  bool          // the test has asked for the end: stop has nothing to add
	waitErr error         // valid once exited is closed
}

// environment is what a daemon is started with, and nothing of the tests' own:
// whatever stands on this machine cannot make a test pass or fail. Later
// settings override earlier ones. The data directory is a new one unless the
// test names its own.
func environment(t testing.TB, env ...string) []string {
	return append([]string{
		"HOME=" + t.TempDir(),
		"AWS_EC2_METADATA_DISABLED=true",
		"S3_ENDPOINT_URL=" + theStore.proxy.url(),
		"AWS_ACCESS_KEY_ID=" + accessKey,
		"AWS_SECRET_ACCESS_KEY=" + secretKey,
		"S3DAEMON_LISTEN=127.0.0.1:0",
		"S3DAEMON_DATA_DIR=" + t.TempDir(),
	}, env...)
}

// setting returns the value a name has in an environment.
func setting(env []string, name string) string {
	value := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// startDaemon starts a daemon on the shared store, with settings of the test's
// own, and returns once it listens. At the test's end it is stopped by
// SIGTERM, unless the test waited for its end itself: it must exit 0 then. In
// any case its output must not have its secret key.
func startDaemon(t testing.TB, env ...string) *daemon {
	t.Helper()
	return startDaemonIn(t, environment(t, env...))
}

// startDaemonIn is startDaemon with a whole environment.
func startDaemonIn(t testing.TB, env []string) *daemon {
	t.Helper()
	return launch(t, env).awaitListening()
}

// awaitListening returns the daemon once it listens.
func (d *daemon) awaitListening() *daemon {
	t, env := d.t, d.env
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	listeners := len(strings.Split(setting(env, "S3DAEMON_LISTEN"), ","))
	lines, err := d.out.wait(ctx, listeners, "listening")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		addr, _ := l["address"].(string)
		d.addrs = append(d.addrs, addr)
		if d.url == "" && !strings.HasPrefix(addr, "unix:") {
			d.url = "http://" + addr
		}
	}
	d.client = clientOf(d.addrs[0])
	return d
}

// launch starts a daemon that may not listen yet.
func launch(t testing.TB, env []string) *daemon {
	t.Helper()
	return launchAs(t, env, binaryPath(t, "s3daemon"))
}

// launchAs is launch with a program that may only lead to the daemon, and its
// arguments.
func launchAs(t testing.TB, env []string, program string, args ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, env: env, out: newOutput(), secret: setting(env, "AWS_SECRET_ACCESS_KEY"), exited: make(chan struct{})}
	d.cmd = command(program, env, d.out, args...)
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.waitErr = d.cmd.Wait()
		d.out.end()
		close(d.exited)
	}()
	t.Cleanup(d.stop)
	return d
}

// command makes a process that dies with the tests, whatever they die of.
func command(path string, env []string, out *output, args ...string) *exec.Cmd {
	theLeaks.learnFrom(env)
	cmd := exec.Command(path, args...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// clientOf returns a client of the listener with the address given, which
// keeps any number of connections open.
func clientOf(addr string) *http.Client {
	return &http.Client{Timeout: answerLimit, Transport: &http.Transport{
		DialContext:         func(context.Context, string, string) (net.Conn, error) { return dialDaemon(addr) },
		MaxIdleConnsPerHost: 1000,
		DisableCompression:  true, // or nothing would be found in it
	}}
}

// signal sends the process a signal.
func (d *daemon) signal(sig os.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		d.t.Errorf("send %v: %v", sig, err)
	}
}

// wait waits for the end of the process and returns its exit status, -1 when a
// signal ended it. The test has then taken over from stop.
func (d *daemon) wait() int {
	d.t.Helper()
	d.waited = true
	select {
	case <-d.exited:
	case <-time.After(patience):
		d.t.Fatalf("the daemon did not end within %v", patience)
	}
	return d.cmd.ProcessState.ExitCode()
}

// logged waits until the log has n lines with that message.
func (d *daemon) logged(t testing.TB, n int, msg string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := d.out.wait(ctx, n, msg); err != nil {
		t.Fatal(err)
	}
}

// kill ends the process by SIGKILL: what it had not put on disk is gone.
func (d *daemon) kill() {
	d.t.Helper()
	d.signal(syscall.SIGKILL)
	if code := d.wait(); code != -1 {
		d.t.Fatalf("SIGKILL ended the daemon with %d", code)
	}
	d.client.CloseIdleConnections()
}

// restart starts a daemon on the data directory of one that has ended, with
// all its settings and perhaps more.
func (d *daemon) restart(t testing.TB, env ...string) *daemon {
	t.Helper()
	return startDaemonIn(t, append(d.env[:len(d.env):len(d.env)], env...))
}

// dataDir is where its journal is.
func (d *daemon) dataDir() string { return setting(d.env, "S3DAEMON_DATA_DIR") }

// running reports whether the process has not ended.
func (d *daemon) running() bool {
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

// stop is the end of every test with a daemon.
func (d *daemon) stop() {
	d.t.Helper()
	if d.client != nil {
		d.client.CloseIdleConnections()
	}
	if !d.waited {
		if !d.running() {
			d.t.Errorf("the daemon had ended by itself: %v", d.waitErr)
		} else {
			d.signal(syscall.SIGTERM)
			select {
			case <-d.exited:
				if code := d.cmd.ProcessState.ExitCode(); code != 0 {
					d.t.Errorf("after SIGTERM the daemon ended with %v, want exit status 0", d.waitErr)
				}
			case <-time.After(patience):
				d.t.Errorf("the daemon did not end within %v of SIGTERM", patience)
			}
		}
	}
	if d.running() {
		d.cmd.Process.Kill()
		<-d.exited
	}
	checkNoSecret(d.t, "the daemon's output", d.out.bytes(), d.secret)
	if err := theLeaks.searchFiles("the data directory's", d.dataDir()); err != nil {
		d.t.Error(err)
	}
	if file := setting(d.env, "S3DAEMON_LOG"); file != "" {
		theLeaks.searchFiles("the log", file)
	}
	if bytes.Contains(d.out.bytes(), []byte("DATA RACE")) {
		d.t.Error("the daemon has a data race")
	}
	if d.t.Failed() {
		much := 8000
		if d.waited { // it may have been one of hundreds
			much = 2000
		}
		d.t.Logf("the daemon wrote:\n%s", tail(d.out.bytes(), much))
	}
}

// checkNoSecret fails the test where text has a secret.
func checkNoSecret(t testing.TB, what string, text []byte, secret string) {
	t.Helper()
	if secret != "" && bytes.Contains(text, []byte(secret)) {
		t.Errorf("%s has the secret key", what)
	}
}

// tail returns the last n bytes of text.
func tail(text []byte, n int) string {
	if len(text) <= n {
		return string(text)
	}
	return "...\n" + string(text[len(text)-n:])
}

// result is what became of a process that ends by itself.
type result struct {
	code int
	out  string // both its standard output and its standard error
}

// runCommand runs the daemon's binary with arguments to its end.
func runCommand(t testing.TB, env []string, args ...string) result {
	t.Helper()
	out := newOutput()
	cmd := command(binaryPath(t, "s3daemon"), env, out, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
	case <-time.After(patience):
		cmd.Process.Kill()
		<-ended
		t.Fatalf("%s did not end within %v; it wrote:\n%s", fmt.Sprint(args), patience, out.bytes())
	}
	checkNoSecret(t, "the output", out.bytes(), setting(env, "AWS_SECRET_ACCESS_KEY"))
	return result{cmd.ProcessState.ExitCode(), string(out.bytes())}
}
