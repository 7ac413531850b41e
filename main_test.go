package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/internal/store"
	"github.com/lsst-dm/s3daemon/push"
)

// running is a daemon in this process, in front of a store in memory.
type running struct {
	url, dir string
	store    *store.Store
	hold     atomic.Pointer[chan struct{}] // what requests to the store wait for
	arrived  chan struct{}                 // gets one for each request that is held
	spoil    atomic.Int32                  // how many requests more the store fails
	stop     context.CancelFunc
	ended    chan error
	warnings chan string // lines of the log, at the level warn
}

func startRunning(t *testing.T, env ...string) *running {
	t.Helper()
	r := &running{dir: t.TempDir(), arrived: make(chan struct{}, 1000), ended: make(chan error, 1), warnings: make(chan string, 1000)}
	s, err := store.Start([]string{"bucket"}, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if hold := r.hold.Load(); hold != nil {
				r.arrived <- struct{}{}
				<-*hold
			}
			if r.spoil.Add(-1) >= 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, req)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	r.store = s
	for _, entry := range append([]string{
		"S3_ENDPOINT_URL=" + s.URL, "AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey,
		"AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull, "S3DAEMON_LISTEN=127.0.0.1:0",
		"S3DAEMON_DATA_DIR=" + filepath.Join(t.TempDir(), "data"),
	}, env...) {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
	cfg, _, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	ready := make(chan []string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.ended <- serve(ctx, cfg, nil, warningsTo(r.warnings), func(addrs []string) { ready <- addrs })
	}()
	select {
	case addrs := <-ready:
		r.url = "http://" + addrs[0]
	case err := <-r.ended:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		<-done
	})
	return r
}

// warningsTo is a log of which the warnings are in the channel.
func warningsTo(warnings chan<- string) *slog.Logger {
	return slog.New(slog.NewTextHandler(writerFunc(func(line []byte) (int, error) {
		if strings.Contains(string(line), "level=WARN") {
			warnings <- string(line)
		}
		return len(line), nil
	}), nil))
}

// push pushes a new file of a few bytes and returns the answer's status.
func (r *running) push(client *http.Client, key string) (int, error) {
	file := filepath.Join(r.dir, key)
	if err := os.WriteFile(file, []byte(key), 0o644); err != nil {
		return 0, err
	}
	resp, err := client.PostForm(r.url+"/push", url.Values{"file": {file}, "destination": {"s3://bucket/" + key}})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// TestStopping holds pushes at the store, tells the daemon to stop, and asks
// again over a connection that is still open.
func TestStopping(t *testing.T) {
	r := startRunning(t)
	late := &http.Client{Transport: &http.Transport{}}
	if status, err := r.push(late, "early"); status != 200 {
		t.Fatal(status, err)
	}
	hold := make(chan struct{})
	r.hold.Store(&hold)
	const n = 25
	statuses := make(chan int, n)
	for i := range n {
		go func() {
			status, err := r.push(http.DefaultClient, fmt.Sprint(i))
			if err != nil {
				t.Error(err)
			}
			statuses <- status
		}()
	}
	for range n {
		<-r.arrived
	}
	r.stop()
	// The listener closes; the open connection gets a refusal.
	addr := strings.TrimPrefix(r.url, "http://")
	await(t, "the listener to close", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if status, err := r.push(late, "late"); status != http.StatusServiceUnavailable {
		t.Errorf("a late push: %d, %v", status, err)
	}
	select {
	case err := <-r.ended:
		t.Fatalf("the daemon ended with pushes in flight: %v", err)
	default:
	}
	close(hold)
	for range n {
		if status := <-statuses; status != 200 {
			t.Errorf("a push in flight was answered %d", status)
		}
	}
	if err := <-r.ended; err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	for i := range n {
		if got, err := r.store.Get("bucket", fmt.Sprint(i)); err != nil || string(got) != fmt.Sprint(i) {
			t.Errorf("object %d: %q, %v", i, got, err)
		}
	}
}

// TestDrainTimeout cuts a push off: its caller is told, and the next daemon
// takes it up from the journal. With S3DAEMON_DRAIN=queue that is a failure.
func TestDrainTimeout(t *testing.T) {
	for mode, exit := range map[string]int{"inflight": 0, "queue": 1} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			r := startRunning(t, "S3DAEMON_DRAIN_TIMEOUT=10ms", "S3DAEMON_DRAIN="+mode, "S3DAEMON_DATA_DIR="+dir)
			hold := make(chan struct{})
			letGo := sync.OnceFunc(func() { close(hold) })
			defer letGo()
			r.hold.Store(&hold)
			status := make(chan int)
			go func() {
				got, err := r.push(http.DefaultClient, "slow")
				if err != nil {
					t.Error(err)
				}
				status <- got
			}()
			<-r.arrived
			r.stop()
			if got := <-status; got != http.StatusServiceUnavailable {
				t.Errorf("a push that was cut off was answered %d", got)
			}
			if err := <-r.ended; exitStatus(err) != exit {
				t.Errorf("the daemon ended with %v", err)
			}
			told := ""
			for len(r.warnings) > 0 {
				told += <-r.warnings
			}
			if strings.Count(told, "pushes were not delivered") != 1 || !strings.Contains(told, " pushes=1 data_dir="+dir) {
				t.Errorf("the log warns of %q", told)
			}
			letGo()

			next := startRunning(t, "S3DAEMON_DATA_DIR="+dir)
			resp, err := http.Get(next.url + "/pushes?wait=1m")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var page push.Page
			if err := json.NewDecoder(resp.Body).Decode(&page); err != nil || page.Pending != 0 || len(page.Pushes) != 1 || page.Pushes[0].State != push.Done {
				t.Errorf("after a restart: %+v, %v", page, err)
			}
			if got, err := next.store.Get("bucket", "slow"); err != nil || string(got) != "slow" {
				t.Errorf("the object: %q, %v", got, err)
			}
		})
	}
}

// TestPortTaken has a second daemon ask for the first one's port.
func TestPortTaken(t *testing.T) {
	r := startRunning(t)
	t.Setenv("S3DAEMON_LISTEN", strings.TrimPrefix(r.url, "http://"))
	t.Setenv("S3DAEMON_DATA_DIR", t.TempDir())
	err := run(t.Context(), nil, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "S3DAEMON_LISTEN") || exitStatus(err) != 1 {
		t.Errorf("error %v", err)
	}
}

// TestDataDirTaken has a second daemon ask for the first one's journal.
func TestDataDirTaken(t *testing.T) {
	startRunning(t)
	err := run(t.Context(), nil, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "S3DAEMON_DATA_DIR") || exitStatus(err) != 1 {
		t.Errorf("error %v", err)
	}
}

// TestJournalWait has the next daemon come while the last one still has the journal:
// it serves nothing, and goes on when the last one has ended, or ends when it is told to.
func TestJournalWait(t *testing.T) {
	for _, told := range []bool{false, true} {
		t.Run(fmt.Sprintf("told to end %t", told), func(t *testing.T) {
			first := startRunning(t, "S3DAEMON_JOURNAL_WAIT=1h")
			socket := filepath.Join(t.TempDir(), "s")
			t.Setenv("S3DAEMON_LISTEN", "unix:"+socket)
			cfg, _, err := loadConfig()
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			warned, serves, ended := make(chan string, 10), make(chan bool, 1), make(chan error, 1)
			go func() { ended <- serve(ctx, cfg, nil, warningsTo(warned), func([]string) { serves <- true }) }()
			if line := <-warned; !strings.Contains(line, "waiting for another s3daemon") || !strings.Contains(line, cfg.dataDir) {
				t.Errorf("the log has %q", line)
			}
			if _, err := os.Lstat(socket); err == nil {
				t.Error("it listens while it waits")
			}
			if !told {
				first.stop()
				<-serves
			}
			stop()
			if err := <-ended; err != nil {
				t.Errorf("it ended with %v", err)
			}
			if told && len(serves) > 0 {
				t.Error("it got the journal that another has")
			}
		})
	}
}

func TestDefaultDataDir(t *testing.T) {
	for _, tt := range []struct{ state, xdg, home, want string }{
		{"/var/lib/private/s3daemon", "/x", "/home/a", "/var/lib/private/s3daemon"},
		{"/var/lib/one:/var/lib/two", "", "", "/var/lib/one"},
		{"", "/x/state", "/home/a", "/x/state/s3daemon"},
		{"", "relative", "/home/a", "/home/a/.local/state/s3daemon"},
		{"", "", "/root", "/root/.local/state/s3daemon"},
		{"", "", "/", "/var/lib/s3daemon"},
		{"", "", "", "/var/lib/s3daemon"},
	} {
		env := map[string]string{"STATE_DIRECTORY": tt.state, "XDG_STATE_HOME": tt.xdg, "HOME": tt.home}
		if got := defaultDataDir(func(name string) string { return env[name] }); got != tt.want {
			t.Errorf("with %v the journal is in %s, want %s", env, got, tt.want)
		}
	}
}

func TestDemo(t *testing.T) {
	t.Setenv("S3DAEMON_LISTEN", "127.0.0.1:0")
	t.Setenv("AWS_PROFILE", "one-that-is-not-there")
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), []string{"demo", "-once"}, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s%s", err, &stdout, &stderr)
	}
	if !strings.Contains(stderr.String(), "msg=stopped") { // the last line of the log
		t.Errorf("the log is not whole:\n%s", &stderr)
	}
	for _, want := range []string{"200 OK", `"state":"done"`, "read back"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the demo does not show %q:\n%s", want, &stdout)
		}
	}
}

// TestDemoTrouble has one burst pushed to a store that fails: the demo itself
// looks at how each push ended.
func TestDemoTrouble(t *testing.T) {
	t.Setenv("S3DAEMON_LISTEN", "127.0.0.1:0")
	var stdout bytes.Buffer
	if err := run(t.Context(), []string{"demo", "-trouble", "-once"}, &stdout, io.Discard); err != nil {
		t.Fatalf("%v\n%s", err, &stdout)
	}
	page := regexp.MustCompile(`http://127\.0\.0\.1:\d+/`)
	if first, _, _ := strings.Cut(stdout.String(), "\n\nThat is"); !page.MatchString(first) {
		t.Errorf("it does not begin with the page's address:\n%s", &stdout)
	}
}

// TestDemoServes runs the demo as a user does who does not say -once, pushes as
// it tells him to, and ends it.
func TestDemoServes(t *testing.T) {
	t.Setenv("S3DAEMON_LISTEN", "127.0.0.1:0")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	read, write := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"demo"}, write, io.Discard)
		write.Close()
		ended <- err
	}()
	pushed, legacyPushed := false, false
	for lines := bufio.NewScanner(read); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) == 6 && words[0] == "curl" && words[1] == "-d" {
			resp, err := http.Post(words[5], "application/x-www-form-urlencoded", strings.NewReader(words[2]+"&"+words[4]))
			if err != nil || resp.StatusCode != 200 {
				t.Errorf("%q: %v, %v", lines.Text(), resp, err)
			}
			pushed = true
		} else if len(words) == 7 && words[0] == "echo" {
			conn, err := net.Dial("tcp", net.JoinHostPort(words[5], words[6]))
			if err != nil {
				t.Error(err)
				continue
			}
			fmt.Fprintf(conn, "%s %s\n", words[1], words[2])
			reply, err := io.ReadAll(conn)
			conn.Close()
			legacyPushed = err == nil && string(reply) == "Success"
		}
		if strings.HasPrefix(lines.Text(), "Ctrl-C") {
			stop()
		}
	}
	if err := <-ended; err != nil || !pushed || !legacyPushed {
		t.Errorf("the demo ended with %v, pushed %v and by the old port %v", err, pushed, legacyPushed)
	}
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestNothingToDrain stops an idle daemon that may take no time for it.
func TestNothingToDrain(t *testing.T) {
	for range 20 {
		r := startRunning(t, "S3DAEMON_DRAIN_TIMEOUT=0")
		r.stop()
		if err := <-r.ended; err != nil {
			t.Errorf("the daemon ended with %v", err)
		}
	}
}

// TestConfigurationOfTheSDK has mistakes in what the AWS SDK reads.
func TestConfigurationOfTheSDK(t *testing.T) {
	for name, value := range map[string]string{"AWS_CA_BUNDLE": "/nowhere/ca.pem", "AWS_PROFILE": "nobody", "AWS_REGION": "us east"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_CONFIG_FILE", os.DevNull)
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
			t.Setenv("S3DAEMON_LISTEN", "127.0.0.1:0")
			t.Setenv("S3DAEMON_DATA_DIR", t.TempDir())
			t.Setenv(name, value)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := run(ctx, nil, io.Discard, io.Discard); err == nil || exitStatus(err) != 2 || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestDemoInterruptedAtOnce: the demo ends, and says that it did not show all, where it is
// interrupted before its daemon listens.
func TestDemoInterruptedAtOnce(t *testing.T) {
	t.Setenv("S3DAEMON_LISTEN", "127.0.0.1:0")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for _, args := range [][]string{{"demo"}, {"demo", "-once"}, {"demo", "-trouble"}, {"demo", "-trouble", "-once"}} {
		for range 5 {
			dir := t.TempDir()
			t.Setenv("TMPDIR", dir)
			err := run(ctx, args, io.Discard, io.Discard)
			if once := args[len(args)-1] == "-once"; (err != nil) != once {
				t.Errorf("%v ended with %v", args, err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("%v leaves %v, %v", args, left, err)
			}
		}
	}
}
