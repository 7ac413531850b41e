package e2e

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Programs that speak the old protocol, before the daemon and a real store.
func TestLegacy(t *testing.T) {
	d := startDaemon(t)
	l := startLegacyListener(t, d.url)
	bucket := newBucket(t)
	before := l.descriptors()
	for _, size := range []int64{0, 1000, 18_000_000, 300_000_000} {
		file := makeFile(t, "file.fits", size)
		for name, push := range legacyClients(t, l.address) {
			if size > 100_000_000 && name != "socket" && !full() {
				continue
			}
			t.Run(fmt.Sprintf("%d/%s", size, name), func(t *testing.T) {
				key := fmt.Sprintf("legacy/%d/%s", size, name)
				if err := push(file, "lfa/"+bucket+"/"+key); err != nil {
					t.Fatal(err)
				}
				checkObject(t, bucket, key, file)
			})
		}
		os.Remove(file)
	}
	file := makeFile(t, "file.fits", 10)
	refusals := []struct{ name, file, destination, want string }{
		{"missing file", file + ".not", "lfa/" + bucket + "/k", "(file_not_found)"},
		{"bad bucket", file, "lfa/there-is-no-such-bucket/k", "store code NoSuchBucket"},
		{"no key", file, "lfa/" + bucket, "(invalid_destination)"},
		{"a directory", filepath.Dir(file), "lfa/" + bucket + "/k", "(file_not_regular)"},
	}
	for _, r := range refusals {
		for name, push := range legacyClients(t, l.address) {
			t.Run(r.name+"/"+name, func(t *testing.T) {
				if err := push(r.file, r.destination); err == nil || !strings.Contains(err.Error(), r.want) {
					t.Errorf("%v, want %q", err, r.want)
				}
			})
		}
	}
	l.checkDescriptors(before)
}

// The daemon goes and comes back while the listener stays, and while clients
// wait that nobody told of it.
func TestLegacyDaemonRestart(t *testing.T) {
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	l := startLegacyListener(t, d.url)
	bucket := newBucket(t)
	file := makeFile(t, "file.fits", 1000)
	clients := legacyClients(t, l.address)
	before := l.descriptors()

	// One push is under way when the daemon dies.
	p.hold()
	cut := make(chan error, 1)
	go func() { cut <- clients["socket"](file, "lfa/"+bucket+"/cut") }()
	waitFor(t, "the push to be under way", func() bool { return p.nowHeld() > 0 })
	d.signal(syscall.SIGKILL)
	d.wait()
	p.release()
	if err := <-cut; err == nil || !strings.Contains(err.Error(), "went away before it answered") {
		t.Errorf("under way as the daemon died: %v", err)
	}

	// Stopped: every client sees the failure, and where the daemon should be.
	var all sync.WaitGroup
	for name, push := range clients {
		all.Go(func() {
			if err := push(file, "lfa/"+bucket+"/stopped"); err == nil || err.Error() != "no daemon at "+d.url+": connection refused" {
				t.Errorf("%s, stopped: %v", name, err)
			}
		})
	}
	all.Wait()

	// One comes just before the daemon is back.
	during := make(chan error, 1)
	go func() { during <- clients["socket"](file, "lfa/"+bucket+"/during") }()
	d.restart(t, "S3DAEMON_LISTEN="+d.addrs[0])
	if err := <-during; err != nil {
		t.Errorf("during the restart: %v", err)
	}
	for name, push := range clients {
		if err := push(file, "lfa/"+bucket+"/"+name); err != nil {
			t.Errorf("%s, after the restart: %v", name, err)
		}
		checkObject(t, bucket, name, file)
	}
	checkObject(t, bucket, "during", file)
	// Its client was told nothing, but the daemon had accepted it.
	waitFor(t, "the push that was cut off to be delivered", func() bool { return compareObject(bucket, "cut", file) == nil })
	l.checkDescriptors(before)
}

// SIGTERM to both, as when a host goes down: what is under way is answered.
func TestLegacyDrain(t *testing.T) {
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	l := startLegacyListener(t, d.url)
	bucket := newBucket(t)
	file := makeFile(t, "file.fits", 100_000)
	p.hold()
	const clients = 10
	replies := make(chan error, clients)
	for i := range clients {
		go func() { replies <- legacyClients(t, l.address)["socket"](file, fmt.Sprintf("lfa/%s/%d", bucket, i)) }()
	}
	waitFor(t, "the pushes to be under way", func() bool { return p.nowHeld() == clients })
	l.cmd.Process.Signal(syscall.SIGTERM)
	d.signal(syscall.SIGTERM)
	waitFor(t, "both to refuse new clients", func() bool { return !listens(l.address) && !listens(d.addrs[0]) })
	p.release()
	for range clients {
		if err := <-replies; err != nil {
			t.Error(err)
		}
	}
	if code := d.wait(); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
}

// 2,000 programs at once.
func TestLegacyCrowd(t *testing.T) {
	d := startDaemon(t)
	g := newGatekeeper(t, d.url)
	l := startLegacyListener(t, g.URL)
	bucket := newBucket(t)
	const clients, size = 2000, 100_000
	var files, sums []string
	for i := range 20 {
		file := makeFile(t, fmt.Sprintf("%d.fits", i), size)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sum := md5.Sum(data)
		files, sums = append(files, file), append(sums, hex.EncodeToString(sum[:]))
	}
	before, daemonBefore := l.descriptors(), d.idleLoad()

	// All are connected before the first has finished its line.
	conns := make([]net.Conn, clients)
	for i := range conns {
		conn, err := net.Dial("tcp", l.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns[i] = conn
		if _, err := fmt.Fprintf(conn, "%s lfa/%s/%04d", files[i%len(files)], bucket, i); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the listener to have all of them", func() bool { return l.descriptors() >= before+clients })
	var all sync.WaitGroup
	for _, conn := range conns {
		all.Go(func() {
			io.WriteString(conn, "\n")
			if reply, err := io.ReadAll(conn); err != nil || string(reply) != "Success" {
				t.Errorf("%q, %v", reply, err)
			}
			conn.Close()
		})
	}
	all.Wait()
	if most := g.most.Load(); most != 25 || g.all.Load() != clients {
		t.Errorf("%d pushes, at most %d at once, want %d and 25", g.all.Load(), most, clients)
	}
	objects := listObjects(t, bucket)
	for i := range clients {
		o, found := objects[fmt.Sprintf("%04d", i)]
		if etag := strings.Trim(aws.ToString(o.ETag), `"`); !found || etag != sums[i%len(sums)] {
			t.Errorf("object %d: found %v, ETag %s, want %s", i, found, etag, sums[i%len(sums)])
		}
	}
	l.checkDescriptors(before)
	g.Config.SetKeepAlivesEnabled(false)
	g.CloseClientConnections()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections() // the gatekeeper's own, to the daemon
	// The pool to the store may stay: it is of 25.
	daemonBefore.descriptors += 25
	daemonBefore.goroutines += 2 * 25
	checkReturns(t, d, daemonBefore)
}

// Clients that are slow stop nobody: not those that come, and not the ending.
func TestLegacySlowLoris(t *testing.T) {
	d := startDaemon(t)
	l := startLegacyListener(t, d.url)
	bucket := newBucket(t)
	file := makeFile(t, "file.fits", 1000)
	before := l.descriptors()
	var slow []net.Conn
	for i := range 200 {
		conn, err := net.Dial("tcp", l.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, file[:i%len(file)]) // the first says nothing at all
		slow = append(slow, conn)
	}
	waitFor(t, "the listener to have all of them", func() bool { return l.descriptors() >= before+len(slow) })
	// The quickest of a few: a busy machine may make any one of them late, and
	// clients in the way would make all of them.
	quickest := time.Hour
	for i := range 5 {
		start := time.Now()
		reply, err := rawLegacy(l.address, file, fmt.Sprintf("lfa/%s/%d", bucket, i))
		quickest = min(quickest, time.Since(start))
		if err != nil || reply != "Success" {
			t.Errorf("a good client: %q, %v", reply, err)
		}
	}
	if quickest > time.Second {
		t.Errorf("a good client took %v", quickest)
	}
	for _, conn := range slow {
		io.WriteString(conn, "x") // still connected
		conn.Close()
	}
	l.checkDescriptors(before)
}

// The client itself, on the daemon's own interface.
func TestSend(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "d.sock")
	d := startDaemon(t, "S3DAEMON_LISTEN=127.0.0.1:0,unix:"+socket)
	bucket := newBucket(t)
	file := makeFile(t, "with two  spaces.fits", 12345)
	odd := makeFile(t, "not UTF-8 \xff\xfe.fits", 54321)
	for _, where := range []string{d.url, "unix:" + socket} {
		send := func(file, destination string) error {
			cmd := exec.Command(binaryPath(t, "send"), file, destination)
			cmd.Dir = filepath.Dir(file)
			if !filepath.IsAbs(file) {
				cmd.Dir = filepath.Dir(odd)
			}
			return runClient(cmd, "S3DAEMON_URL="+where, "S3DAEMON_PORT=tcp://10.0.0.1:15555", "http_proxy=http://127.0.0.1:1")
		}
		for key, path := range map[string]string{"a key": file, "s3/odd": odd, "relative": filepath.Base(odd)} {
			whole := path
			if key == "relative" {
				whole = odd
			}
			if err := send(path, "lfa/"+bucket+"/"+key); err != nil {
				t.Errorf("%s: %v", key, err)
				continue
			}
			checkObject(t, bucket, key, whole)
		}
		for _, r := range []struct{ file, destination, want string }{
			{file + ".not", "s3://" + bucket + "/k", "(file_not_found)"},
			{file, "s3://there-is-no-such-bucket/k", "store code NoSuchBucket"},
			{file, "s3://" + bucket, "(invalid_destination)"},
		} {
			if err := send(r.file, r.destination); err == nil || !strings.HasPrefix(err.Error(), "send: ") || !strings.Contains(err.Error(), r.want) {
				t.Errorf("%q: %v, want %q", r.file, err, r.want)
			}
		}
	}
	d.signal(syscall.SIGTERM)
	d.wait()
	err := runClient(exec.Command(binaryPath(t, "send"), file, "s3://"+bucket+"/k"), "S3DAEMON_URL="+d.url)
	if err == nil || !strings.HasPrefix(err.Error(), "send: no daemon at "+d.url+": connection refused") {
		t.Errorf("without a daemon: %v", err)
	}
}
