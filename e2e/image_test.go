package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// imageEnv names an image of the daemon, which is tried in containers of docker.
const imageEnv = "S3DAEMON_E2E_IMAGE"

// restricted is what a container is given that may do nothing beyond its purpose.
var restricted = []string{"--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"}

// docker runs a docker command to its end, and returns what it says.
func docker(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// container is a daemon in a container, on this host's network.
type container struct {
	*daemon
	name string
	dir  string // that it may write to, at the same path
}

var containers atomic.Int64

// writable returns a directory of which every user of a container may do what he
// likes.
func writable(t *testing.T) string {
	t.Helper()
	dir := filepath.Dir(socketPath(t))
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startContainer starts the image as a user, with a directory that it may write to
// and others, as docker takes them, that it may not. Of the environment it gets what
// its users would set: where its journal is, the image knows. Its first address is a
// socket, d.sock in that directory.
func startContainer(t *testing.T, user, dir string, volumes []string, env ...string) *container {
	t.Helper()
	c := &container{name: fmt.Sprintf("s3d-e2e-%d-%d", os.Getpid(), containers.Add(1)), dir: dir}
	args := append([]string{"run", "--rm", "--name", c.name, "--network=host", "--user=" + user, "--health-interval=1s"}, restricted...)
	args = append(args, "--volume="+dir+":"+dir)
	for _, volume := range volumes {
		args = append(args, "--volume="+volume+":ro")
	}
	env = environment(t, append([]string{"S3DAEMON_LISTEN=unix:" + dir + "/d.sock,127.0.0.1:0", "S3DAEMON_SOCKET_MODE=0666"}, env...)...)
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		if name != "HOME" && name != "S3DAEMON_DATA_DIR" {
			args = append(args, "--env="+name) // its value from our own environment
		}
	}
	t.Cleanup(func() { exec.Command("docker", "rm", "--force", "--volumes", c.name).Run() })
	c.daemon = launchAs(t, append(os.Environ(), env...), "docker", append(args, os.Getenv(imageEnv))...)
	c.awaitListening()
	return c
}

// TestImage tries the image as it is meant to be run: with nothing that it may write
// to but its journal, and no rights, by its own user and by one that a platform made
// up (OpenShift's are of group 0).
func TestImage(t *testing.T) {
	if os.Getenv(imageEnv) == "" {
		t.Skip("no image to try: make e2e-image")
	}
	t.Run("what it is", tryWhatTheImageIs)
	for _, user := range []string{"65532", "1000850000:0"} {
		t.Run("user "+user, func(t *testing.T) { tryImageAs(t, user) })
	}
	t.Run("health of its own address", func(t *testing.T) {
		dir := writable(t)
		startContainer(t, "65532", dir, nil, "S3DAEMON_OPS_LISTEN=unix:"+dir+"/ops.sock", "S3DAEMON_LISTEN=127.0.0.1:0").awaitHealth()
	})
	t.Run("TLS", tryImageTLS)
}

// tryWhatTheImageIs looks at its size, its labels and its certificates.
func tryWhatTheImageIs(t *testing.T) {
	image := os.Getenv(imageEnv)
	var is []struct {
		Size         int64
		Architecture string
		Config       struct {
			User        string
			Labels      map[string]string
			Healthcheck struct{ Test []string }
		}
	}
	if err := json.Unmarshal([]byte(docker(t, "image", "inspect", image)), &is); err != nil || len(is) != 1 {
		t.Fatal(is, err)
	}
	t.Logf("%s, for %s: %.1f MB", image, is[0].Architecture, float64(is[0].Size)/1e6)
	if is[0].Size >= 25_000_000 {
		t.Errorf("it has %d bytes", is[0].Size)
	}
	config := is[0].Config
	if config.User != "65532:65532" || fmt.Sprint(config.Healthcheck.Test) != "[CMD /s3daemon healthcheck]" {
		t.Errorf("its configuration is %+v", config)
	}
	for _, label := range []string{"title", "description", "source", "licenses", "version", "revision"} {
		if config.Labels["org.opencontainers.image."+label] == "" {
			t.Errorf("it has no label %s", label)
		}
	}
	says := docker(t, append([]string{"run", "--rm", "--network=none"}, append(restricted, image, "-version")...)...)
	if want := "s3daemon " + config.Labels["org.opencontainers.image.version"] + "\n"; says != want {
		t.Errorf("the daemon is %q, the label says %q", says, want)
	}

	id := strings.TrimSpace(docker(t, "create", image))
	defer exec.Command("docker", "rm", "--volumes", id).Run()
	archive := tar.NewReader(strings.NewReader(docker(t, "cp", id+":/etc/ssl/certs/ca-certificates.crt", "-")))
	if _, err := archive.Next(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(archive)
	if err != nil {
		t.Fatal(err)
	}
	authorities := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			t.Error(err)
		}
		authorities++
	}
	if authorities < 50 {
		t.Errorf("it knows %d authorities", authorities)
	}
}

// tryImageAs has files pushed, small and in parts, in every way; and the container
// stopped with a push under way.
func tryImageAs(t *testing.T, user string) {
	p := storeProxy(t)
	bucket, data := newBucket(t), t.TempDir()
	small, large := makeFileIn(t, data, "small", 1000), makeFileIn(t, data, "large", 70_000_000)
	c := startContainer(t, user, writable(t), []string{data + ":" + data}, "S3_ENDPOINT_URL="+p.url())

	c.push(t, small, "s3://"+bucket+"/small").done(t)
	checkObject(t, bucket, "small", small)
	if r := c.push(t, large, "s3://"+bucket+"/large").done(t); r.Parts < 2 {
		t.Errorf("a large file went in %d part", r.Parts)
	}
	checkObject(t, bucket, "large", large)
	for _, path := range []string{"/", "/metrics", "/pushes", "/readyz"} {
		if a := c.get(t, path); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	c.awaitHealth()
	docker(t, "exec", c.name, "/s3daemon", "healthcheck", "ready")

	socket := "S3DAEMON_URL=unix:" + c.dir + "/d.sock"
	docker(t, "exec", "--env="+socket, c.name, "/send", small, "s3://"+bucket+"/sent")
	checkObject(t, bucket, "sent", small)
	docker(t, "exec", c.name, "/send", "-install", c.dir)
	if err := runClient(exec.Command(filepath.Join(c.dir, "send"), small, "s3://"+bucket+"/installed"), socket); err != nil {
		t.Errorf("send that was installed: %v", err)
	}
	checkObject(t, bucket, "installed", small)

	p.hold()
	answered := make(chan error, 1)
	go func() {
		a, err := c.tryPush(context.Background(), small, "s3://"+bucket+"/late")
		if err == nil && a.status != 200 {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		answered <- err
	}()
	waitFor(t, "a push to be under way", func() bool { return p.nowHeld() > 0 })
	c.signal(syscall.SIGTERM)
	waitFor(t, "the daemon to take no more", func() bool {
		conn, err := dialPlain(context.Background(), c.addrs[1])
		if err == nil {
			conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	p.release()
	if err := <-answered; err != nil {
		t.Errorf("a push that was under way: %v", err)
	}
	if code := c.wait(); code != 0 {
		t.Errorf("the container ended with %d", code)
	}
	checkObject(t, bucket, "late", small)
}

// awaitHealth waits until docker holds the container to be healthy, and fails where
// it has found it not to be.
func (c *container) awaitHealth() {
	t := c.t
	t.Helper()
	waitFor(t, "the container to be healthy", func() bool {
		health := strings.TrimSpace(docker(t, "inspect", "--format={{.State.Health.Status}}", c.name))
		if health == "unhealthy" {
			t.Fatal(docker(t, "inspect", "--format={{json .State.Health}}", c.name))
		}
		return health == "healthy"
	})
}

// tryImageTLS has a store of an authority that stands in the image's own list, in
// place of one of the usual ones, and of another that does not.
func tryImageTLS(t *testing.T) {
	known, unknown := newAuthority(t), newAuthority(t)
	data := t.TempDir()
	file := makeFileIn(t, data, "file", 1000)
	bundle, err := os.ReadFile(known.bundle())
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(list, bytes.Repeat(bundle, 2), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, authority := range map[string]*authority{"known": known, "unknown": unknown} {
		t.Run(name, func(t *testing.T) {
			port, _ := startPickyStore(t).serveTLS(t, authority.issue("127.0.0.1", time.Hour), tls.VersionTLS13)
			c := startContainer(t, "65532", writable(t), []string{data + ":" + data, list + ":/etc/ssl/certs/ca-certificates.crt"},
				"S3_ENDPOINT_URL=https://127.0.0.1:"+port, "S3DAEMON_ATTEMPTS=2")
			a := c.push(t, file, "s3://raw/key")
			if name == "known" {
				a.done(t)
			} else if !strings.Contains(string(a.body), "certificate") {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
}
