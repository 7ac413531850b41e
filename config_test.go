package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/listen"
	"github.com/lsst-dm/s3daemon/push"
)

// setEnvironment makes these variables, written NAME=value, the only ones of
// ours.
func setEnvironment(t *testing.T, entries ...string) {
	t.Helper()
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "S3DAEMON_") || name == "S3_ENDPOINT_URL" {
			t.Setenv(name, "") // to be put back
			os.Unsetenv(name)
		}
	}
	for name, value := range map[string]string{"HOME": "/home/somebody", "XDG_STATE_HOME": "", "STATE_DIRECTORY": ""} {
		t.Setenv(name, value)
	}
	for _, entry := range entries {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
}

// defaults is the configuration of an empty environment.
func defaults() config {
	return config{
		listen: []string{"127.0.0.1:15556"}, socket: listen.Socket{Mode: 0o660, Group: -1}, maxCallers: 2000, maxConnections: 25, attempts: 5,
		connectTimeout: 5 * time.Second, stallTimeout: 10 * time.Second, drainTimeout: 25 * time.Second,
		congestion: "auto", dataDir: "/home/somebody/.local/state/s3daemon", journalWait: time.Second, historyAge: 72 * time.Hour, historyCount: 100000, queueLimit: 100000, giveUpAfter: 24 * time.Hour, deadline: 7 * time.Second,
		checksum: "auto", logLevel: slog.LevelInfo, logFormat: "auto",
	}
}

func mustPlaces(patterns ...string) push.Places {
	places, err := push.ParsePlaces(patterns)
	if err != nil {
		panic(err)
	}
	return places
}

func TestLoadConfig(t *testing.T) {
	everyEmpty := func() (entries []string) {
		for _, v := range variables() {
			entries = append(entries, v.name+"=")
		}
		return entries
	}()
	for _, tt := range []struct {
		name    string
		entries []string
		want    func(*config) // what differs from the defaults
	}{
		{"nothing is set", nil, func(*config) {}},
		{"everything is empty", everyEmpty, func(*config) {}},
		{"endpoint", []string{"S3_ENDPOINT_URL=https://s3.example.org:9000/"}, func(c *config) { c.endpoint = "https://s3.example.org:9000" }},
		{"ops listen", []string{"S3DAEMON_OPS_LISTEN=:9090"}, func(c *config) { c.opsListen = []string{":9090"} }},
		{"callers", []string{"S3DAEMON_MAX_CALLERS=10"}, func(c *config) { c.maxCallers = 10 }},
		{"listen", []string{"S3DAEMON_LISTEN=127.0.0.1:0, unix:/run/s"}, func(c *config) { c.listen = []string{"127.0.0.1:0", "unix:/run/s"} }},
		{"hosts", []string{"S3DAEMON_HOSTS=a.example.org, b"}, func(c *config) { c.hosts = []string{"a.example.org", "b"} }},
		{"socket", []string{"S3DAEMON_SOCKET_MODE=0606", "S3DAEMON_SOCKET_GROUP=4294967294"}, func(c *config) { c.socket = listen.Socket{Mode: 0o606, Group: 4294967294} }},
		{"socket of a named group", []string{"S3DAEMON_SOCKET_MODE=222", "S3DAEMON_SOCKET_GROUP=root"}, func(c *config) { c.socket = listen.Socket{Mode: 0o222, Group: 0} }},
		{"users", []string{"S3DAEMON_UIDS=1000, root, 1000"}, func(c *config) { c.users = []uint32{1000, 0, 1000} }},
		{"token file", []string{"S3DAEMON_TOKEN_FILE=/run/secrets/token"}, func(c *config) { c.tokenFile = "/run/secrets/token" }},
		{"buckets", []string{"S3DAEMON_BUCKETS=raw*, out/in/"}, func(c *config) { c.places = mustPlaces("raw*", "out/in/") }},
		{"roots", []string{"S3DAEMON_ROOTS=/data/, /srv//raw/."}, func(c *config) { c.roots = []string{"/data", "/srv/raw"} }},
		{"max connections", []string{"S3DAEMON_MAX_CONNECTIONS=1000"}, func(c *config) { c.maxConnections = 1000 }},
		{"attempts", []string{"S3DAEMON_ATTEMPTS=100"}, func(c *config) { c.attempts = 100 }},
		{"connect timeout", []string{"S3DAEMON_CONNECT_TIMEOUT=1m30s"}, func(c *config) { c.connectTimeout = 90 * time.Second }},
		{"connect timeout in seconds", []string{"S3DAEMON_CONNECT_TIMEOUT=2.5"}, func(c *config) { c.connectTimeout = 2500 * time.Millisecond }},
		{"stall timeout", []string{"S3DAEMON_STALL_TIMEOUT=1m"}, func(c *config) { c.stallTimeout = time.Minute }},
		{"congestion", []string{"S3DAEMON_TCP_CONGESTION=bbr"}, func(c *config) { c.congestion = "bbr" }},
		{"bandwidth", []string{"S3DAEMON_BANDWIDTH=2.5G"}, func(c *config) { c.bandwidth = 2_500_000_000 }},
		{"bandwidth in a file", []string{"S3DAEMON_BANDWIDTH=/etc/bandwidth"}, func(c *config) { c.bandwidthFile = "/etc/bandwidth" }},
		{"warmup", []string{"S3DAEMON_WARMUP=s3://raw/warm/up"}, func(c *config) { c.warmup = push.Destination{Bucket: "raw", Key: "warm/up"} }},
		{"drain timeout", []string{"S3DAEMON_DRAIN_TIMEOUT=24h"}, func(c *config) { c.drainTimeout = 24 * time.Hour }},
		{"no drain timeout", []string{"S3DAEMON_DRAIN_TIMEOUT=0"}, func(c *config) { c.drainTimeout = 0 }},
		{"drain", []string{"S3DAEMON_DRAIN=Queue"}, func(c *config) { c.drainQueue = true }},
		{"data dir", []string{"S3DAEMON_DATA_DIR=/srv/s3daemon"}, func(c *config) { c.dataDir = "/srv/s3daemon" }},
		{"data dir of a service", []string{"STATE_DIRECTORY=/var/lib/s3daemon"}, func(c *config) { c.dataDir = "/var/lib/s3daemon" }},
		{"the journal's wait", []string{"S3DAEMON_JOURNAL_WAIT=90"}, func(c *config) { c.journalWait = 90 * time.Second }},
		{"history", []string{"S3DAEMON_HISTORY_AGE=1m", "S3DAEMON_HISTORY_COUNT=1"}, func(c *config) { c.historyAge, c.historyCount = time.Minute, 1 }},
		{"queue limit", []string{"S3DAEMON_QUEUE_LIMIT=1100000"}, func(c *config) { c.queueLimit = 1_100_000 }},
		{"deadline", []string{"S3DAEMON_DEADLINE=2.5"}, func(c *config) { c.deadline = 2500 * time.Millisecond }},
		{"give up", []string{"S3DAEMON_GIVE_UP_AFTER=90"}, func(c *config) { c.giveUpAfter = 90 * time.Second }},
		{"if changed", []string{"S3DAEMON_IF_CHANGED=retry"}, func(c *config) { c.retryChanged = true }},
		{"sync files", []string{"S3DAEMON_SYNC_FILES=1"}, func(c *config) { c.syncFiles = true }},
		{"checksum", []string{"S3DAEMON_CHECKSUM=MD5"}, func(c *config) { c.checksum = "md5" }},
		{"log", []string{"S3DAEMON_LOG=/var/log/s3daemon.log"}, func(c *config) { c.log = "/var/log/s3daemon.log" }},
		{"log level", []string{"S3DAEMON_LOG_LEVEL=WARN"}, func(c *config) { c.logLevel = slog.LevelWarn }},
		{"log format", []string{"S3DAEMON_LOG_FORMAT=json"}, func(c *config) { c.logFormat = "json" }},
		{"the old log format", []string{"S3DAEMON_LOG_FORMAT=legacy"}, func(c *config) { c.logFormat = "legacy" }},
		{"what Kubernetes sets beside a Service", []string{
			"S3DAEMON_PORT=tcp://10.0.0.1:15556", "S3DAEMON_PORT_15556_TCP=tcp://10.0.0.1:15556", "S3DAEMON_PORT_15556_TCP_PROTO=tcp",
			"S3DAEMON_PORT_15556_TCP_PORT=15556", "S3DAEMON_PORT_15556_TCP_ADDR=10.0.0.1",
			"S3DAEMON_SERVICE_HOST=10.0.0.1", "S3DAEMON_SERVICE_PORT=15556", "S3DAEMON_SERVICE_PORT_HTTP=15556",
		}, func(*config) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setEnvironment(t, tt.entries...)
			got, warned, err := loadConfig()
			if err != nil {
				t.Fatal(err)
			}
			want := defaults()
			tt.want(&want)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("configuration\n%+v, want\n%+v", got, want)
			}
			if len(warned) != 0 {
				t.Errorf("warnings %q", warned)
			}
		})
	}
}

// mistaken has a bad value for every variable that can have one.
var mistaken = []string{
	"S3_ENDPOINT_URL=https://me:hunter2@s3.example.org",
	"S3DAEMON_LISTEN=tcp://10.0.0.1:15556",
	"S3DAEMON_HOSTS=http://a",
	"S3DAEMON_SOCKET_MODE=rw-rw----",
	"S3DAEMON_SOCKET_GROUP=no such group",
	"S3DAEMON_UIDS=no such user",
	"S3DAEMON_TOKEN_FILE=token",
	"S3DAEMON_BUCKETS=s3://raw",
	"S3DAEMON_OPS_LISTEN=9090",
	"S3DAEMON_MAX_CALLERS=0",
	"S3DAEMON_ROOTS=data",
	"S3DAEMON_MAX_CONNECTIONS=0",
	"S3DAEMON_ATTEMPTS=101",
	"S3DAEMON_CONNECT_TIMEOUT=9ms",
	"S3DAEMON_STALL_TIMEOUT=500ms",
	"S3DAEMON_TCP_CONGESTION=bbr, cubic",
	"S3DAEMON_BANDWIDTH=fast",
	"S3DAEMON_WARMUP=raw/warm",
	"S3DAEMON_DRAIN_TIMEOUT=-1",
	"S3DAEMON_DRAIN=all",
	"S3DAEMON_DATA_DIR=state",
	"S3DAEMON_JOURNAL_WAIT=-1s",
	"S3DAEMON_HISTORY_AGE=59s",
	"S3DAEMON_HISTORY_COUNT=0",
	"S3DAEMON_QUEUE_LIMIT=10000001",
	"S3DAEMON_GIVE_UP_AFTER=never",
	"S3DAEMON_DEADLINE=0",
	"S3DAEMON_SYNC_FILES=maybe",
	"S3DAEMON_IF_CHANGED=ignore",
	"S3DAEMON_CHECKSUM=crc32",
	"AWS_ACCESS_KEY_ID_FILE=id",
	"AWS_SECRET_ACCESS_KEY_FILE=secret",
	"AWS_SESSION_TOKEN_FILE=token",
	"S3DAEMON_LOG_LEVEL=loud",
	"S3DAEMON_LOG_FORMAT=xml",
}

func TestLoadConfigReportsMistakes(t *testing.T) {
	more := []string{
		"S3DAEMON_LISTEN=,", "S3DAEMON_OPS_LISTEN=,", "S3DAEMON_HOSTS=a:80", "S3DAEMON_HOSTS=*", "S3DAEMON_HOSTS=a b", "S3DAEMON_BUCKETS=,", "S3DAEMON_SOCKET_MODE=0440", "S3DAEMON_SOCKET_MODE=1777", "S3DAEMON_SOCKET_MODE=668",
		"S3DAEMON_SOCKET_GROUP=-1", "S3DAEMON_SOCKET_GROUP=4294967295", "S3DAEMON_UIDS=,", "S3DAEMON_UIDS=1000,-1", "S3DAEMON_UIDS=4294967295", "S3DAEMON_TOKEN_FILE=~/token",
		"S3DAEMON_ROOTS=,", "S3DAEMON_ROOTS=/data/../etc", "S3DAEMON_ROOTS=/da\nta", "S3DAEMON_ROOTS=/data,raw",
		"S3DAEMON_BUCKETS=raw//x", "S3DAEMON_BUCKETS=raw, raw/..",
		"S3DAEMON_MAX_CONNECTIONS=1001",
		"S3DAEMON_MAX_CONNECTIONS=many", "S3DAEMON_ATTEMPTS=0", "S3DAEMON_CONNECT_TIMEOUT=5m1s", "S3DAEMON_CONNECT_TIMEOUT=soon",
		"S3DAEMON_TCP_CONGESTION=a-name-of-16-byt", "S3DAEMON_BANDWIDTH=63k", "S3DAEMON_BANDWIDTH=-1M", "S3DAEMON_BANDWIDTH=etc/bandwidth",
		"S3DAEMON_WARMUP=s3://raw", "S3DAEMON_WARMUP=s3:///key",
		"S3DAEMON_DRAIN_TIMEOUT=24h1s", "S3DAEMON_DRAIN_TIMEOUT=two\nlines",
	}
	for _, entry := range append(more, mistaken...) {
		t.Run(entry, func(t *testing.T) {
			setEnvironment(t, entry)
			_, _, err := loadConfig()
			name, _, _ := strings.Cut(entry, "=")
			if err == nil || !strings.HasPrefix(err.Error(), name+": ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line that begins with %s", err, name)
			}
		})
	}
}

func TestLoadConfigReportsAllTogether(t *testing.T) {
	setEnvironment(t, mistaken...)
	_, _, err := loadConfig()
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(mistaken) {
		t.Errorf("%d lines for %d mistakes:\n%v", len(lines), len(mistaken), err)
	}
	for _, entry := range mistaken {
		name, _, _ := strings.Cut(entry, "=")
		if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, name+": ") }) {
			t.Errorf("no line about %s:\n%v", name, err)
		}
	}
	// Every variable is in that list, but for the one that takes any text.
	if len(mistaken) != len(variables())-1 {
		t.Errorf("%d variables, %d mistakes tried", len(variables()), len(mistaken))
	}
}

func TestLoadConfigKeepsSecrets(t *testing.T) {
	for _, endpoint := range []string{
		"https://me:hunter2@s3.example.org", "https://me:hunter2%zz@s3.example.org", "https://me:hunter2@:0", "http://me:hunter2@",
		"me:hunter2@s3.example.org", "https://s3.example.org:hunter2", "https://s3.example.org?secret=hunter2", "https://s3.example.org/%zzhunter2",
		"https://me:hunter2 @s3.example.org", "https://s3.example.org#hunter2", "https://hunter2[", "hunter2", "hunter2\n",
	} {
		setEnvironment(t, "S3_ENDPOINT_URL="+endpoint, "AWS_SECRET_ACCESS_KEY=hunter2", "S3DAEMON_ATTEMPTS=0")
		_, warned, err := loadConfig()
		if err == nil {
			t.Errorf("%q is no mistake", endpoint)
		} else if !strings.Contains(err.Error(), "S3_ENDPOINT_URL: ") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error is %q", endpoint, err)
		}
		if strings.Contains(strings.Join(warned, "\n"), "hunter2") {
			t.Errorf("%q: warned %q", endpoint, warned)
		}
	}
}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct{ name, entry, says string }{ // says is empty where there is no warning
		{"ours", "S3DAEMON_ATTEMPTS=3", ""},
		{"another program's", "PATH=/bin", ""},
		{"ours in small letters", "s3daemon_attempts=3", ""},
		{"of the send command", "S3DAEMON_URL=http://127.0.0.1:15556", ""},
		{"of Kubernetes", "S3DAEMON_PORT=tcp://10.0.0.1:15556", ""},
		{"misspelt", "S3DAEMON_ATTEMPT=3", "S3DAEMON_ATTEMPT is not a variable"},
		{"misspelt and empty", "S3DAEMON_ATTEMPT=", ""},
		{"misspelt, with a secret", "S3DAEMON_SECRET=hunter2", "S3DAEMON_SECRET is not a variable"},
		{"of the old daemon", "S3DAEMON_MAX_RETRIES=2", "S3DAEMON_MAX_RETRIES has no effect: it counted the tries of a request: set S3DAEMON_ATTEMPTS"},
		{"without a value", "S3DAEMON_ODD", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := warnings([]string{tt.entry})
			if tt.says == "" {
				if len(got) != 0 {
					t.Errorf("warned %q", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0], tt.says) || strings.Contains(got[0], "hunter2") {
				t.Errorf("warned %q, want %q", got, tt.says)
			}
		})
	}
	got := warnings([]string{"S3DAEMON_B=1", "S3DAEMON_A=1"})
	if len(got) != 2 || !slices.IsSorted(got) {
		t.Errorf("warned %q, want both, sorted", got)
	}
}

func TestHelpListsVariables(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-help"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, v := range variables() {
		line := "  " + v.name
		if v.fallback != "" {
			line += " (default " + v.fallback + ")"
		}
		if v.name == "" || v.description == "" || !strings.Contains(out.String(), line+"\n        "+v.description+"\n") {
			t.Errorf("-help has no %q with %q", line, v.description)
		}
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_CA_BUNDLE", "HTTPS_PROXY", "NO_PROXY"} {
		if !strings.Contains(out.String(), name) {
			t.Errorf("-help does not name %s", name)
		}
	}
}

// TestMistakesEndWithTwo: nothing is started on a mistake, and the exit status
// tells it from a failure.
func TestMistakesEndWithTwo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // should it start after all
	for _, tt := range []struct {
		name  string
		args  []string
		entry string
	}{
		{"the daemon's configuration", nil, "S3DAEMON_ATTEMPTS=none"},
		{"the health check's", []string{"healthcheck"}, "S3DAEMON_ATTEMPTS=none"},
		{"unknown command", []string{"serve"}, "S3DAEMON_ATTEMPTS=1"},
		{"unknown flag", []string{"-port"}, "S3DAEMON_ATTEMPTS=1"},
		{"too many arguments", []string{"healthcheck", "now"}, "S3DAEMON_ATTEMPTS=1"},
		{"unknown flag of the demo", []string{"demo", "-twice"}, "S3DAEMON_ATTEMPTS=1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setEnvironment(t, tt.entry)
			err := run(ctx, tt.args, io.Discard, io.Discard)
			if got := exitStatus(err); got != 2 {
				t.Errorf("exit status %d (%v), want 2", got, err)
			}
			if len(tt.args) == 0 && !strings.Contains(err.Error(), "S3DAEMON_ATTEMPTS: ") {
				t.Errorf("%q does not name the variable", err)
			}
		})
	}
}

// FuzzConfig: whatever the environment holds, the mistakes in it are named
// line by line, or every value is within its bounds; and what is said of an
// endpoint depends on the kind of mistake only, never on its text.
func FuzzConfig(f *testing.F) {
	f.Add("", "", "", "", "", "", "", "", "", "")
	f.Add("https://s3.example.org/", "127.0.0.1:0,unix:/s", "a,b", "25", "5", "5", "25s", "/log", "INFO", "json")
	f.Add("https://me:hunter2%zz@h", "tcp://h:1", "*", "-1", "1e9", "NaN", "Inf", "\x00", "loud", "xml")
	f.Add("http://h?", ",", "::1", "99999999999999999999", "0", "1e400", "-0", "\n", "\xff", "a\nb")
	f.Add("https://h:65536", "[::1]:0", " , ", "+5", "1000", "0.01", "24h", "", "warn ", "Text")
	said := make(map[string]bool)
	for _, mistake := range []string{"x", "http://me@h", "http://h?q", "http://h:0", "http://h/ x"} {
		_, err := environment{Endpoint: mistake}.parse()
		if err == nil {
			f.Fatalf("%q is no mistake", mistake)
		}
		said[err.Error()] = true
	}
	f.Fuzz(func(t *testing.T, endpoint, listen, hosts, connections, attempts, connect, drain, log, level, format string) {
		if _, err := (environment{Endpoint: endpoint}).parse(); err != nil && !said[err.Error()] {
			t.Errorf("of the endpoint %q it says %q", endpoint, err)
		}
		cfg, err := environment{
			Endpoint: endpoint, Listen: listen, Hosts: hosts, MaxConnections: connections, QueueLimit: connections, HistoryCount: connections, Attempts: attempts,
			ConnectTimeout: connect, DrainTimeout: drain, GiveUpAfter: drain, HistoryAge: drain, Log: log, LogLevel: level, LogFormat: format,
		}.parse()
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				name, _, _ := strings.Cut(line, ": ")
				if !slices.ContainsFunc(variables(), func(v variable) bool { return v.name == name }) {
					t.Errorf("%q begins with no variable", line)
				}
			}
			return
		}
		if len(cfg.listen) == 0 || slices.Contains(cfg.listen, "") {
			t.Errorf("listens on %q", cfg.listen)
		}
		if cfg.maxConnections < 1 || cfg.maxConnections > 1000 || cfg.attempts < 1 || cfg.attempts > 100 {
			t.Errorf("%d connections, %d attempts", cfg.maxConnections, cfg.attempts)
		}
		if cfg.connectTimeout < 10*time.Millisecond || cfg.connectTimeout > 5*time.Minute || cfg.drainTimeout < 0 || cfg.drainTimeout > 24*time.Hour {
			t.Errorf("timeouts %v and %v", cfg.connectTimeout, cfg.drainTimeout)
		}
		if u, err := url.Parse(cfg.endpoint); endpoint != "" && (err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "") {
			t.Errorf("endpoint %q", cfg.endpoint)
		}
		if strings.ContainsAny(strings.Join(cfg.hosts, ""), "/: *,") || slices.Contains(cfg.hosts, "") {
			t.Errorf("hosts %q", cfg.hosts)
		}
		if !slices.Contains([]string{"auto", "json", "text", "legacy"}, cfg.logFormat) || cfg.log != log {
			t.Errorf("log %q in format %q", cfg.log, cfg.logFormat)
		}
	})
}
