package e2e

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const (
	oneToken   = "e2e-token-of-the-first-day"
	otherToken = "e2e-token-of-the-second-day"
)

// writeToken puts tokens into a file as a careful operator does: whole.
func writeToken(t testing.TB, path string, tokens ...string) {
	t.Helper()
	if err := os.WriteFile(path+".next", []byte(strings.Join(tokens, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".next", path); err != nil {
		t.Fatal(err)
	}
}

// askWith asks for a route with a token.
func (d *daemon) askWith(t testing.TB, token, method, path, contentType, body string) answer {
	t.Helper()
	req := d.request(context.Background(), method, path, contentType, body)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return d.do(t, req)
}

// Nobody without a token gets anything of the API over TCP, nor makes the daemon
// look at a file; whoever has it has all. A token that is replaced is good for
// nothing, without a restart of anything.
func TestToken(t *testing.T) {
	p := storeProxy(t)
	path := filepath.Join(t.TempDir(), "token")
	writeToken(t, path, oneToken)
	socket := socketPath(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_TOKEN_FILE="+path, "S3DAEMON_LISTEN=127.0.0.1:0,unix:"+socket)
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	form := "file=" + file + "&destination=s3://" + bucket + "/"
	const formType = "application/x-www-form-urlencoded"

	before := p.bytesSent()
	for _, token := range []string{"", otherToken, oneToken + "0", oneToken[1:], "token"} {
		for _, path := range []string{"/pushes", "/events", "/openapi.yaml", "/none"} {
			d.askWith(t, token, "GET", path, "", "").refused(t, http.StatusUnauthorized, "unauthorized")
		}
		a := d.askWith(t, token, "POST", "/push", formType, form+"refused")
		a.refused(t, http.StatusUnauthorized, "unauthorized")
		if a.header.Get("WWW-Authenticate") != `Bearer realm="s3daemon"` {
			t.Errorf("WWW-Authenticate: %q", a.header.Get("WWW-Authenticate"))
		}
		for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
			if a := d.askWith(t, token, "GET", path, "", ""); a.status != http.StatusOK {
				t.Errorf("%s with %q: %d", path, token, a.status)
			}
		}
	}
	if sent := p.bytesSent() - before; sent != 0 {
		t.Errorf("%d bytes went to the store", sent)
	}
	d.askWith(t, oneToken, "POST", "/push", formType, form+"one").done(t)

	sendBinary := binaryPath(t, "send")
	send := func(env []string, args ...string) error {
		return runClient(exec.Command(sendBinary, args...), env...)
	}
	l := startLegacyListener(t, d.url, "S3DAEMON_TOKEN_FILE="+path)
	with := []string{"S3DAEMON_URL=" + d.url, "S3DAEMON_TOKEN_FILE=" + path}
	check := func(key string) {
		t.Helper()
		if err := send(with, file, "s3://"+bucket+"/"+key+"/plain"); err != nil {
			t.Error(err)
		}
		if err := send(with, "-label", key, file, "s3://"+bucket+"/"+key+"/flags"); err != nil {
			t.Error(err)
		}
		if err := send(with, "-wait", key, "-timeout", "10s"); err != nil {
			t.Error(err)
		}
		if err := legacyClients(t, l.address)["socket"](file, "lfa/"+bucket+"/"+key+"/line"); err != nil {
			t.Error(err)
		}
		for _, mode := range []string{"plain", "flags", "line"} {
			checkObject(t, bucket, key+"/"+mode, file)
		}
	}
	check("first")

	// Both for a while, then the new one alone.
	writeToken(t, path, otherToken, oneToken)
	waitFor(t, "the new token to count", func() bool { return d.askWith(t, otherToken, "GET", "/pushes", "", "").status == http.StatusOK })
	if a := d.askWith(t, oneToken, "GET", "/pushes", "", ""); a.status != http.StatusOK {
		t.Errorf("the old token beside the new one: %d", a.status)
	}
	writeToken(t, path, otherToken)
	waitFor(t, "the old token not to count", func() bool {
		return d.askWith(t, oneToken, "GET", "/pushes", "", "").status == http.StatusUnauthorized
	})
	check("second")

	// What is no token changes nothing but the log.
	writeToken(t, path, "short")
	waitFor(t, "the log to tell of it", func() bool {
		return d.askWith(t, otherToken, "GET", "/pushes", "", "").status == http.StatusOK && strings.Contains(string(d.out.bytes()), "fewer than 16 characters")
	})

	// Those who have none are told what to do, and have no token in it.
	wrong := filepath.Join(t.TempDir(), "wrong")
	writeToken(t, wrong, oneToken)
	for _, env := range [][]string{with[:1], {with[0], "S3DAEMON_TOKEN_FILE=" + wrong}} {
		for _, args := range [][]string{{file, "s3://" + bucket + "/refused"}, {"-label", "x", file, "s3://" + bucket + "/refused"}, {"-wait", "x"}} {
			err := send(env, args...)
			if err == nil || !strings.Contains(err.Error(), "(unauthorized)") || !strings.Contains(err.Error(), "S3DAEMON_TOKEN_FILE") || strings.Contains(err.Error(), oneToken) {
				t.Errorf("send %q: %v", args, err)
			}
		}
	}
	if err := send([]string{with[0], "S3DAEMON_TOKEN_FILE=" + path}, file, "s3://"+bucket+"/refused"); err == nil || !strings.Contains(err.Error(), path+": line 1") {
		t.Errorf("send with a bad file: %v", err)
	}

	// Over the socket there is no need of one.
	if err := send([]string{"S3DAEMON_URL=unix:" + socket}, file, "s3://"+bucket+"/socket"); err != nil {
		t.Error(err)
	}
	for _, secret := range []string{oneToken, otherToken} {
		checkNoSecret(t, "the daemon's output", d.out.bytes(), secret)
		checkNoSecret(t, "the old server's output", l.out.bytes(), secret)
		checkNoSecret(t, "the metrics", []byte(d.get(t, "/metrics").body), secret)
	}
}

// A file of tokens that is none keeps the daemon from starting, and is not shown.
func TestBadTokenFile(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"empty": "", "short": "hunter2\n", "commented": "# " + oneToken, "two-a-line": oneToken + " " + otherToken} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		r := runCommand(t, environment(t, "S3DAEMON_TOKEN_FILE="+path))
		checkClearFailure(t, r, 2, "S3DAEMON_TOKEN_FILE", path)
		if strings.Contains(r.out, "hunter2") || strings.Contains(r.out, oneToken) {
			t.Errorf("%s: %s", name, r.out)
		}
	}
	checkClearFailure(t, runCommand(t, environment(t, "S3DAEMON_TOKEN_FILE="+dir+"/none")), 2, "S3DAEMON_TOKEN_FILE", "no such file")
}

// somebody runs the send command as another user, who is in one group.
type somebody struct {
	binary   string // that all may run
	uid, gid uint32
}

func (s somebody) send(env []string, args ...string) error {
	cmd := exec.Command(s.binary, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.uid, Gid: s.gid}, Pdeathsig: syscall.SIGKILL}
	return runClient(cmd, env...)
}

// openDir returns a directory that other users may enter, with a send command.
func openDir(t *testing.T) (dir, send string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can be other users")
	}
	dir, err := os.MkdirTemp("", "s3d-open-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(binaryPath(t, "send"))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	send = filepath.Join(dir, "send")
	to, err := os.OpenFile(send, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, send
}

// Who may use the API over a Unix socket is decided by the socket's group and
// mode, and then by the list of users, root and the daemon's own among them or
// not.
func TestUsersOfSocket(t *testing.T) {
	dir, send := openDir(t)
	const allowed, stranger, group = 54321, 54322, 54323
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	to := "s3://" + bucket + "/"
	member := somebody{send, allowed, group}

	t.Run("users", func(t *testing.T) {
		socket := filepath.Join(dir, "users")
		d := startDaemon(t, "S3DAEMON_LISTEN=127.0.0.1:0,unix:"+socket, "S3DAEMON_SOCKET_MODE=0666", "S3DAEMON_UIDS=54321")
		url := []string{"S3DAEMON_URL=unix:" + socket}
		if err := member.send(url, file, to+"member"); err != nil {
			t.Error(err)
		}
		checkObject(t, bucket, "member", file)
		for _, s := range []somebody{{send, stranger, group}, {send, 0, 0}} {
			if err := s.send(url, file, to+"refused"); err == nil || !strings.Contains(err.Error(), "(user_not_allowed)") {
				t.Errorf("user %d: %v", s.uid, err)
			}
		}
		d.logged(t, 1, "every user of this host can use this address, whomever S3DAEMON_UIDS names: set S3DAEMON_TOKEN_FILE, or leave it out of S3DAEMON_LISTEN")
		if r := runCommand(t, environment(t, "S3DAEMON_LISTEN=unix:"+socket), "healthcheck"); r.code != 0 {
			t.Errorf("root asks for health: %+v", r)
		}
	})
	t.Run("a group", func(t *testing.T) {
		socket := filepath.Join(dir, "group")
		startDaemon(t, "S3DAEMON_LISTEN=unix:"+socket, "S3DAEMON_SOCKET_GROUP=54323")
		url := []string{"S3DAEMON_URL=unix:" + socket}
		if err := member.send(url, file, to+"group"); err != nil {
			t.Error(err)
		}
		if err := (somebody{send, allowed, stranger}).send(url, file, to+"refused"); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("who is not in the group: %v", err)
		}
	})
	t.Run("nobody else by default", func(t *testing.T) {
		socket := filepath.Join(dir, "default")
		startDaemon(t, "S3DAEMON_LISTEN=unix:"+socket)
		if err := member.send([]string{"S3DAEMON_URL=unix:" + socket}, file, to+"refused"); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("another user: %v", err)
		}
	})
	for key := range listObjects(t, bucket) {
		if strings.Contains(key, "refused") {
			t.Errorf("the store has %s", key)
		}
	}
}
