package e2e

import (
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Every mistake of a configuration is named at once, by its variable, and no
// secret is shown with it.
func TestBadConfiguration(t *testing.T) {
	tests := []struct {
		name string
		env  []string
		want []string
	}{
		{"endpoint without a scheme", []string{"S3_ENDPOINT_URL=store:9000"}, []string{"S3_ENDPOINT_URL"}},
		{"endpoint of another scheme", []string{"S3_ENDPOINT_URL=ftp://store"}, []string{"S3_ENDPOINT_URL"}},
		{"endpoint that is no URL", []string{"S3_ENDPOINT_URL=http://[::1"}, []string{"S3_ENDPOINT_URL"}},
		{"endpoint with a password", []string{"S3_ENDPOINT_URL=http://me:" + secretKey + "@store"}, []string{"S3_ENDPOINT_URL"}},
		{"many", []string{
			"S3_ENDPOINT_URL=not a URL " + secretKey,
			"S3DAEMON_LISTEN=nonsense",
			"S3DAEMON_MAX_CONNECTIONS=many",
			"S3DAEMON_ATTEMPTS=0",
			"S3DAEMON_CONNECT_TIMEOUT=soon",
			"S3DAEMON_DRAIN_TIMEOUT=-1s",
			"S3DAEMON_DRAIN=perhaps",
			"S3DAEMON_HISTORY_AGE=old",
			"S3DAEMON_HISTORY_COUNT=-1",
			"S3DAEMON_QUEUE_LIMIT=0",
			"S3DAEMON_GIVE_UP_AFTER=never",
			"S3DAEMON_SYNC_FILES=maybe", "S3DAEMON_IF_CHANGED=ignore",
			"S3DAEMON_LOG_LEVEL=loud",
		}, []string{
			"S3_ENDPOINT_URL", "S3DAEMON_LISTEN", "S3DAEMON_MAX_CONNECTIONS", "S3DAEMON_ATTEMPTS",
			"S3DAEMON_CONNECT_TIMEOUT", "S3DAEMON_DRAIN_TIMEOUT", "S3DAEMON_LOG_LEVEL", "S3DAEMON_DRAIN",
			"S3DAEMON_HISTORY_AGE", "S3DAEMON_HISTORY_COUNT", "S3DAEMON_QUEUE_LIMIT", "S3DAEMON_GIVE_UP_AFTER", "S3DAEMON_SYNC_FILES", "S3DAEMON_IF_CHANGED",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			checkClearFailure(t, runCommand(t, environment(t, tt.env...)), 2, tt.want...)
		})
	}
}

func TestBadCommandLine(t *testing.T) {
	for _, args := range [][]string{{"-nonsense"}, {"nonsense"}, {"-version", "more"}, {"demo", "-nonsense"}, {"demo", "more"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			checkClearFailure(t, runCommand(t, environment(t), args...), 2)
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	r := runCommand(t, nil, "-help")
	if r.code != 0 {
		t.Errorf("-help ends with %d", r.code)
	}
	for _, name := range []string{
		"S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_CA_BUNDLE",
		"S3DAEMON_LISTEN", "127.0.0.1:15556", "S3DAEMON_MAX_CONNECTIONS", "25", "S3DAEMON_ATTEMPTS",
		"S3DAEMON_CONNECT_TIMEOUT", "S3DAEMON_DRAIN_TIMEOUT", "25s", "S3DAEMON_LOG_LEVEL", "S3DAEMON_LOG",
		"S3DAEMON_DATA_DIR", "S3DAEMON_HISTORY_AGE", "72h", "S3DAEMON_HISTORY_COUNT", "100000", "S3DAEMON_QUEUE_LIMIT",
		"S3DAEMON_GIVE_UP_AFTER", "24h", "S3DAEMON_SYNC_FILES", "S3DAEMON_DRAIN", "inflight",
	} {
		if !strings.Contains(r.out, name) {
			t.Errorf("-help does not have %s:\n%s", name, r.out)
		}
	}
	if r := runCommand(t, nil, "-version"); r.code != 0 || !strings.Contains(r.out, "s3daemon") || strings.Count(r.out, "\n") != 1 {
		t.Errorf("-version ends with %d and prints %q", r.code, r.out)
	}
}

// The subcommand that images use as their health check.
func TestHealthcheck(t *testing.T) {
	sock := "unix:" + socketPath(t)
	for _, listen := range []string{"127.0.0.1:0", sock} {
		d := startDaemon(t, "S3DAEMON_LISTEN="+listen)
		if r := runCommand(t, environment(t, "S3DAEMON_LISTEN="+d.addrs[0]), "healthcheck"); r.code != 0 {
			t.Errorf("the health check of a living daemon at %s ends with %d: %s", d.addrs[0], r.code, r.out)
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	for _, listen := range []string{free.Addr().String(), sock + "-other"} {
		checkClearFailure(t, runCommand(t, environment(t, "S3DAEMON_LISTEN="+listen), "healthcheck"), 1, strings.TrimPrefix(listen, "unix:"))
	}
}

// The demonstration needs nothing of its surroundings, and nothing that is
// there leads it astray.
func TestDemo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tests := []struct {
		name string
		env  []string
	}{
		{"nothing set", []string{"HOME=" + t.TempDir(), "S3DAEMON_LISTEN=127.0.0.1:0"}},
		{"a real store set", append(environment(t), "S3_ENDPOINT_URL=http://127.0.0.1:1", "AWS_PROFILE=no-such-profile")},
		{"its port taken", []string{"HOME=" + t.TempDir(), "S3DAEMON_LISTEN=" + taken.Addr().String()}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := runCommand(t, tt.env, "demo", "-once")
			if r.code != 0 || !strings.Contains(r.out, `"done"`) || !strings.Contains(r.out, "/push") {
				t.Errorf("demo -once ends with %d and prints:\n%s", r.code, r.out)
			}
		})
	}
}

// Ctrl-C at any moment ends the demonstration, and it leaves nothing behind.
func TestDemoInterrupted(t *testing.T) {
	dice := rand.New(rand.NewPCG(seedOf(t), 10))
	for _, args := range [][]string{{"demo", "-once"}, {"demo", "-trouble"}, {"demo", "-trouble", "-once"}} {
		var env []string
		if args[1] == "-once" { // the other has a time-out of its own
			env = append(env, "S3DAEMON_DRAIN_TIMEOUT=1h")
		}
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			for range 8 {
				dir, out := t.TempDir(), newOutput()
				cmd := command(binaryPath(t, "s3daemon"), append([]string{"HOME=" + dir, "TMPDIR=" + dir, "S3DAEMON_LISTEN=127.0.0.1:0"}, env...), out, args...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				exited := make(chan error, 1)
				go func() { exited <- cmd.Wait() }()
				waitFor(t, "it to have begun", func() bool { return len(out.bytes()) > 0 })
				time.Sleep(time.Duration(dice.IntN(150)) * time.Millisecond) // the moment, not a wait
				cmd.Process.Signal(os.Interrupt)
				select {
				case <-exited:
				case <-time.After(patience):
					cmd.Process.Signal(syscall.SIGQUIT)
					<-exited
					t.Fatalf("it does not end; it wrote:\n%s", out.bytes())
				}
				if code := cmd.ProcessState.ExitCode(); code != 0 && code != 1 {
					t.Errorf("it ends with %d:\n%s", code, out.bytes())
				}
				if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
					t.Errorf("it leaves %v, %v", left, err)
				}
			}
		})
	}
}
