package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/listen"
)

// socketPath returns a path short enough for a Unix socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s3d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// serveHTTP serves the handler on a free port or, given a path, on a socket,
// and returns the address as S3DAEMON_LISTEN has it.
func serveHTTP(t *testing.T, network, address string, handler http.Handler) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}}
	server.Start()
	t.Cleanup(server.Close)
	return listen.Address(l)
}

// refusing returns an address where nothing listens, and nothing else can
// before the test ends.
func refusing(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*syscall.SockaddrInet4).Port}).String()
}

func TestHealthcheck(t *testing.T) {
	alive := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Any daemon takes this name for its own, whatever address it has.
		if r.Method != http.MethodGet || r.URL.Path != "/healthz" || r.Host != "localhost" {
			t.Errorf("asked %s %s of %s", r.Method, r.URL, r.Host)
		}
	})
	status := func(code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	for _, tt := range []struct {
		name   string
		listen func(*testing.T) string
		says   string // empty where it is alive
	}{
		{"alive", func(t *testing.T) string { return serveHTTP(t, "tcp", "127.0.0.1:0", alive) }, ""},
		{"alive on a socket", func(t *testing.T) string { return serveHTTP(t, "unix", socketPath(t), alive) }, ""},
		{"alive on all addresses", func(t *testing.T) string {
			_, port, _ := net.SplitHostPort(serveHTTP(t, "tcp", "127.0.0.1:0", alive))
			return ":" + port
		}, ""},
		{"alive, of two addresses", func(t *testing.T) string {
			return serveHTTP(t, "tcp", "127.0.0.1:0", alive) + "," + refusing(t)
		}, ""},
		{"nothing there", refusing, "connection refused"},
		{"no socket there", func(t *testing.T) string { return "unix:" + socketPath(t) }, "no such file"},
		{"503", func(t *testing.T) string { return serveHTTP(t, "tcp", "127.0.0.1:0", status(503)) }, "503 Service Unavailable"},
		{"404", func(t *testing.T) string { return serveHTTP(t, "tcp", "127.0.0.1:0", status(404)) }, "404 Not Found"},
		{"no HTTP", func(t *testing.T) string {
			return serveHTTP(t, "tcp", "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				io.WriteString(c, "SSH-2.0-OpenSSH\r\n")
				c.Close()
			}))
		}, "no daemon is alive"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr := tt.listen(t)
			setEnvironment(t, "S3DAEMON_LISTEN="+addr)
			err := run(t.Context(), []string{"healthcheck"}, io.Discard, io.Discard)
			if tt.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), addr) {
				t.Errorf("error %v, want %q and %s in it", err, tt.says, addr)
			}
			if got := exitStatus(err); got != 1 {
				t.Errorf("exit status %d, want 1", got)
			}
		})
	}
}

// TestHealthcheckReady asks a daemon that is alive and takes no pushes.
func TestHealthcheckReady(t *testing.T) {
	takes := true
	addr := serveHTTP(t, "tcp", "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" && !takes {
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"status":503,"code":"shutting_down","detail":"the daemon is shutting down"}`)
		}
	}))
	setEnvironment(t, "S3DAEMON_LISTEN="+addr)
	if err := run(t.Context(), []string{"healthcheck", "ready"}, io.Discard, io.Discard); err != nil {
		t.Errorf("it takes pushes: %v", err)
	}
	takes = false
	if err := run(t.Context(), []string{"healthcheck"}, io.Discard, io.Discard); err != nil {
		t.Errorf("it is alive: %v", err)
	}
	err := run(t.Context(), []string{"healthcheck", "ready"}, io.Discard, io.Discard)
	if err == nil || exitStatus(err) != 1 || !strings.Contains(err.Error(), "503 Service Unavailable: the daemon is shutting down") {
		t.Errorf("it takes no pushes: %v", err)
	}
	for _, args := range [][]string{{"healthcheck", "alive"}, {"healthcheck", "http://" + addr}, {"healthcheck", "http://" + addr + "/readyz"}, {"healthcheck", "ready", "ready"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); exitStatus(err) != 2 {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestHealthcheckOfOps asks where health has an address of its own, which may be
// all that answers.
func TestHealthcheckOfOps(t *testing.T) {
	alive := serveHTTP(t, "tcp", "127.0.0.1:0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	setEnvironment(t, "S3DAEMON_LISTEN="+refusing(t), "S3DAEMON_OPS_LISTEN="+alive)
	if err := healthcheck(t.Context(), nil); err != nil {
		t.Error(err)
	}
	dead := refusing(t)
	setEnvironment(t, "S3DAEMON_LISTEN="+alive, "S3DAEMON_OPS_LISTEN="+dead)
	if err := healthcheck(t.Context(), nil); err == nil || !strings.Contains(err.Error(), dead) {
		t.Errorf("error %v, want one about %s", err, dead)
	}
}

// TestHealthcheckEnds: a daemon that takes the question and never answers does
// not hold the one who asks.
func TestHealthcheckEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	addr := serveHTTP(t, "tcp", "127.0.0.1:0", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	setEnvironment(t, "S3DAEMON_LISTEN="+addr)
	if err := healthcheck(ctx, nil); err == nil {
		t.Error("no error")
	}
	if healthTimeout <= 0 || healthTimeout > 10*time.Second {
		t.Errorf("the limit is %v: a probe gives up before", healthTimeout)
	}
}

// TestHealthcheckOfDaemon asks the real one, which its store being away does
// not make less alive.
func TestHealthcheckOfDaemon(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		t.Setenv(name, value)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	cfg := defaults()
	cfg.endpoint, cfg.listen, cfg.dataDir = "http://"+refusing(t), []string{"127.0.0.1:0", "unix:" + socketPath(t)}, t.TempDir()
	ready, ended := make(chan []string, 1), make(chan error, 1)
	go func() {
		ended <- serve(ctx, cfg, nil, slog.New(slog.DiscardHandler), func(addrs []string) { ready <- addrs })
	}()
	var addrs []string
	select {
	case addrs = <-ready:
	case err := <-ended:
		t.Fatalf("the daemon did not start: %v", err)
	}
	for _, addr := range addrs {
		setEnvironment(t, "S3DAEMON_LISTEN="+addr)
		if err := healthcheck(t.Context(), nil); err != nil {
			t.Errorf("at %s: %v", addr, err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatalf("the daemon ended with %v", err)
	}
	for _, addr := range addrs {
		setEnvironment(t, "S3DAEMON_LISTEN="+addr)
		if err := healthcheck(t.Context(), nil); err == nil {
			t.Errorf("at %s something is alive after the end", addr)
		}
	}
}

func TestDialAddress(t *testing.T) {
	for _, tt := range []struct{ listen, network, addr string }{
		{"127.0.0.1:15556", "tcp", "127.0.0.1:15556"},
		{"[::1]:15556", "tcp", "[::1]:15556"},
		{"node1.example.org:80", "tcp", "node1.example.org:80"},
		{":15556", "tcp", "localhost:15556"},
		{"0.0.0.0:15556", "tcp", "localhost:15556"},
		{"[::]:15556", "tcp", "localhost:15556"},
		{"unix:/run/s3daemon.sock", "unix", "/run/s3daemon.sock"},
	} {
		if network, addr := dialAddress(tt.listen); network != tt.network || addr != tt.addr {
			t.Errorf("dialAddress(%q) = %s %s, want %s %s", tt.listen, network, addr, tt.network, tt.addr)
		}
	}
}

// TestHealthcheckAddress asks where no daemon is, but a server of lines.
func TestHealthcheckAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	setEnvironment(t, "S3DAEMON_LISTEN="+refusing(t))
	if err := run(t.Context(), []string{"healthcheck", l.Addr().String()}, io.Discard, io.Discard); err != nil {
		t.Errorf("it listens: %v", err)
	}
	addr := refusing(t)
	err = run(t.Context(), []string{"healthcheck", addr}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "nothing listens at "+addr) || exitStatus(err) != 1 {
		t.Errorf("nothing listens: %v", err)
	}
}
