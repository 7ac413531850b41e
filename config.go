package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"

	"github.com/lsst-dm/s3daemon/listen"
	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/uploader"
)

// config is what the daemon is told by its environment. Nothing below package
// main reads the environment, but for the AWS SDK's own chain.
type config struct {
	endpoint       string   // base URL of the store; empty for Amazon S3
	listen         []string // host:port or unix:/path
	places         push.Places
	socket         listen.Socket // what the unix:/ addresses of listen let connect
	users          []uint32      // that may use the API there; empty: whoever can connect
	tokenFile      string        // with the tokens that it wants over TCP; empty: it wants none
	opsListen      []string      // addresses for health and metrics alone
	hosts          []string      // names allowed in Host
	maxCallers     int           // requests to the API that are served at once
	roots          []string      // directories beneath which files are read; empty: anywhere
	maxConnections int
	attempts       int
	connectTimeout time.Duration
	stallTimeout   time.Duration
	congestion     string           // auto, or the name of a congestion control
	bandwidth      int64            // bits per second to the store, over all connections; 0: no limit
	bandwidthFile  string           // that has it instead; empty: none does
	warmup         push.Destination // that the pool is warmed on; zero: it is not
	drainTimeout   time.Duration
	drainQueue     bool          // deliver what is queued too before the daemon ends
	dataDir        string        // of the journal
	journalWait    time.Duration // for another daemon that has it
	historyAge     time.Duration
	historyCount   int
	queueLimit     int
	giveUpAfter    time.Duration
	deadline       time.Duration // within which a push should be done
	syncFiles      bool
	retryChanged   bool   // send a file that changed once it has settled
	checksum       string // how it is shown that the store has the bytes: auto, crc64nvme, md5 or sha256
	keys           uploader.Keys
	log            string // file; empty for standard error
	logLevel       slog.Level
	logFormat      string // auto, json, text or legacy
}

// environment is config as text. envconfig reads it, which cannot fail since
// every field is a string; parse then finds all the mistakes, not the first
// one only, and never repeats a value that may be secret. The descriptions are
// the table of -help and of the README.
type environment struct {
	Endpoint       string `envconfig:"S3_ENDPOINT_URL" desc:"Base URL of the store, e.g. https://s3.example.org. Empty: Amazon S3, or what the AWS configuration says."`
	Listen         string `envconfig:"S3DAEMON_LISTEN" default:"127.0.0.1:15556" desc:"Addresses to serve on, separated by commas: host:port (port 0 picks one) or unix:/path."`
	Hosts          string `envconfig:"S3DAEMON_HOSTS" desc:"Names allowed in the Host header beside loopback ones and the address connected to, separated by commas."`
	SocketMode     string `envconfig:"S3DAEMON_SOCKET_MODE" default:"0660" desc:"Mode of the unix:/ sockets that it serves on, octal; who may write may connect."`
	SocketGroup    string `envconfig:"S3DAEMON_SOCKET_GROUP" desc:"Group of those sockets, a name or a number. Empty: the daemon's own."`
	Users          string `envconfig:"S3DAEMON_UIDS" desc:"Users that may use the API over those sockets, names or numbers, separated by commas; root is none of them unless it is there. Empty: whoever may connect."`
	TokenFile      string `envconfig:"S3DAEMON_TOKEN_FILE" desc:"File with bearer tokens, one a line, one of which the API wants over TCP; it is read again when it changes. The send command sends the first. Empty: it wants none."`
	Buckets        string `envconfig:"S3DAEMON_BUCKETS" desc:"Where pushes may go: BUCKET or BUCKET/PREFIX, separated by commas; * and ? in BUCKET stand for any characters, PREFIX is what a key begins with to the letter. Empty: anywhere."`
	OpsListen      string `envconfig:"S3DAEMON_OPS_LISTEN" desc:"Addresses that have /healthz, /readyz and /metrics alone, for whoever can reach them, under any name: for probes and Prometheus on other hosts. Empty: none."`
	MaxCallers     string `envconfig:"S3DAEMON_MAX_CALLERS" default:"2000" desc:"Requests to the API that may be under way at once, 1 to 100000; further ones are refused (503). /healthz, /readyz and /metrics never are."`
	Roots          string `envconfig:"S3DAEMON_ROOTS" desc:"Directories beneath which files are read, absolute paths separated by commas: others are not, whatever links lead there. Empty: all regular files that the daemon may read."`
	MaxConnections string `envconfig:"S3DAEMON_MAX_CONNECTIONS" default:"25" desc:"Size of the pool: requests to the store that may be under way at once, 1 to 1000."`
	Attempts       string `envconfig:"S3DAEMON_ATTEMPTS" default:"5" desc:"Attempts after which a push fails that a caller waits for, 1 to 100."`
	GiveUpAfter    string `envconfig:"S3DAEMON_GIVE_UP_AFTER" default:"24h" desc:"How long a push is attempted that nobody waits for (any longer): a duration, or seconds."`
	Deadline       string `envconfig:"S3DAEMON_DEADLINE" default:"7s" desc:"Time from its acceptance within which a push should be done: a later one counts as late, and is not cut off: a duration, or seconds."`
	ConnectTimeout string `envconfig:"S3DAEMON_CONNECT_TIMEOUT" default:"5s" desc:"Limit for connecting to the store, and again for TLS; four times that for all of it, with a proxy's part: a duration, or seconds."`
	StallTimeout   string `envconfig:"S3DAEMON_STALL_TIMEOUT" default:"10s" desc:"How long the store may acknowledge none of the bytes that are under way to it, before they are sent again on another connection: 1s to 1h, or seconds."`
	Congestion     string `envconfig:"S3DAEMON_TCP_CONGESTION" default:"auto" desc:"TCP's congestion control towards the store: auto, bbr where the kernel allows it, else the system's own; or a name. One that cannot be had is replaced by the system's own."`
	Bandwidth      string `envconfig:"S3DAEMON_BANDWIDTH" default:"0" desc:"Most that is sent to the store, over all connections together: bits per second, such as 200M or 2.5G (k, M, G); 0: no limit; or the absolute path of a file that has it, which SIGHUP has read again."`
	Warmup         string `envconfig:"S3DAEMON_WARMUP" desc:"Where to send data at the start, until all connections carry what the way to the store allows: s3://bucket/key, of which nothing is left. It takes some seconds, and ends as soon as a push starts. Empty: nowhere."`
	DrainTimeout   string `envconfig:"S3DAEMON_DRAIN_TIMEOUT" default:"25s" desc:"On SIGTERM, how long pushes in flight may go on: a duration, or seconds."`
	Drain          string `envconfig:"S3DAEMON_DRAIN" default:"inflight" desc:"On SIGTERM, what is still delivered: inflight, what is under way; or queue, all that was accepted. The rest stays in the journal."`
	DataDir        string `envconfig:"S3DAEMON_DATA_DIR" desc:"Directory of the journal, for one daemon alone. Empty: $STATE_DIRECTORY, which systemd sets; else s3daemon in $XDG_STATE_HOME or ~/.local/state; without a home, /var/lib/s3daemon."`
	JournalWait    string `envconfig:"S3DAEMON_JOURNAL_WAIT" default:"1s" desc:"At the start, how long another daemon that still has the journal is waited for, as one that drains: a duration, or seconds."`
	HistoryAge     string `envconfig:"S3DAEMON_HISTORY_AGE" default:"72h" desc:"How long pushes that have ended can be asked for: a duration, or seconds."`
	HistoryCount   string `envconfig:"S3DAEMON_HISTORY_COUNT" default:"100000" desc:"How many pushes that have ended can be asked for, 1 to 10000000."`
	QueueLimit     string `envconfig:"S3DAEMON_QUEUE_LIMIT" default:"100000" desc:"How many pushes may be queued or running before further ones are refused (429), 1 to 10000000."`
	SyncFiles      string `envconfig:"S3DAEMON_SYNC_FILES" default:"false" desc:"true: have each file put on disk (fsync) before its push is accepted, for those who fear a loss of power."`
	Checksum       string `envconfig:"S3DAEMON_CHECKSUM" default:"auto" desc:"What shows that the store has a file's bytes: crc64nvme, md5 (for stores that refuse CRC headers), sha256 (the signed payload); or auto, crc64nvme, and md5 too where the store is not known to check that."`
	IfChanged      string `envconfig:"S3DAEMON_IF_CHANGED" default:"fail" desc:"A file that changed after its push was accepted, or while it was sent: fail; or retry, send it as it is once nothing has happened to it for 2 s."`
	KeyIDFile      string `envconfig:"AWS_ACCESS_KEY_ID_FILE" desc:"File that holds what AWS_ACCESS_KEY_ID would, read again when it changes; as the next two, an absolute path."`
	SecretFile     string `envconfig:"AWS_SECRET_ACCESS_KEY_FILE" desc:"File that holds what AWS_SECRET_ACCESS_KEY would."`
	SessionFile    string `envconfig:"AWS_SESSION_TOKEN_FILE" desc:"File that holds what AWS_SESSION_TOKEN would."`
	Log            string `envconfig:"S3DAEMON_LOG" desc:"File to append the log to. Empty: standard error."`
	LogLevel       string `envconfig:"S3DAEMON_LOG_LEVEL" default:"info" desc:"debug, info, warn or error."`
	LogFormat      string `envconfig:"S3DAEMON_LOG_FORMAT" default:"auto" desc:"json, text, or auto: text on a terminal, else json; or legacy: the lines of the first, Python s3daemon, for programs that read those."`
}

// loadConfig reads the environment. The warnings name variables that look like
// ours and do nothing. The error lists every mistake.
func loadConfig() (config, []string, error) {
	var env environment
	if err := envconfig.Process("", &env); err != nil {
		return config{}, nil, fmt.Errorf("read the environment: %w", err)
	}
	cfg, err := env.parse()
	if cfg.dataDir = env.DataDir; cfg.dataDir == "" {
		cfg.dataDir = defaultDataDir(os.Getenv)
	}
	var wrong error
	cfg.keys, wrong = env.keys(os.Getenv)
	return cfg, warnings(os.Environ()), errors.Join(err, wrong, checkProxies(os.Getenv))
}

// defaultDataDir is where a daemon's state belongs: where systemd says so
// (StateDirectory=), where the XDG base directory specification puts a user's,
// and, for a user without a home, where a service's is.
func defaultDataDir(getenv func(string) string) string {
	const name = "s3daemon"
	if dir, _, _ := strings.Cut(getenv("STATE_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		return dir
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, name)
	}
	if home := getenv("HOME"); filepath.IsAbs(home) && home != "/" {
		return filepath.Join(home, ".local", "state", name)
	}
	return filepath.Join("/var/lib", name)
}

// keys returns which credentials are in files, and looks for the mistakes that the AWS
// SDK would report at each push, and in other words. The values are secret.
func (e environment) keys(getenv func(string) string) (uploader.Keys, error) {
	var p parser
	const id, secret, token = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
	keys := uploader.Keys{
		ID: getenv(id), Secret: getenv(secret), Token: getenv(token),
		IDFile: e.KeyIDFile, SecretFile: e.SecretFile, TokenFile: e.SessionFile,
	}
	for _, k := range []struct{ name, value, file string }{
		{id, keys.ID, keys.IDFile}, {secret, keys.Secret, keys.SecretFile}, {token, keys.Token, keys.TokenFile},
	} {
		switch {
		case k.name != token && strings.ContainsFunc(k.value, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
			p.mistake(k.name, "has white space or another character in it that no key has; a secret made from a file often ends in a newline")
		case k.file == "":
		case !filepath.IsAbs(p.secretFile(k.name+"_FILE", k.file)):
		case k.value != "":
			p.mistake(k.name+"_FILE", "%s is set as well: unset one of them", k.name)
		}
	}
	if len(p.mistakes) > 0 {
		return keys, errors.Join(p.mistakes...)
	}
	hasID, hasSecret := keys.ID+keys.IDFile != "", keys.Secret+keys.SecretFile != ""
	switch {
	case hasID != hasSecret && keys.IDFile+keys.SecretFile == "":
		p.mistake(id+" and "+secret, "one is set and the other is not")
	case keys.IDFile+keys.SecretFile+keys.TokenFile == "": // the SDK finds them
		return uploader.Keys{}, nil
	case hasID != hasSecret:
		p.mistake(id+"_FILE and "+secret+"_FILE", "one is set and the other is not, nor %s or %s", id, secret)
	case keys.TokenFile != "" && !hasID:
		p.mistake(token+"_FILE", "it is set, and neither %s nor %s_FILE is", id, id)
	default:
		return keys, keys.Check()
	}
	return keys, errors.Join(p.mistakes...)
}

// parse turns the text into values and reports all mistakes together.
func (e environment) parse() (config, error) {
	var p parser
	cfg := config{
		endpoint:       p.endpoint("S3_ENDPOINT_URL", e.Endpoint),
		listen:         p.listen("S3DAEMON_LISTEN", e.Listen),
		opsListen:      p.listen("S3DAEMON_OPS_LISTEN", e.OpsListen),
		hosts:          list(e.Hosts),
		socket:         listen.Socket{Mode: p.mode("S3DAEMON_SOCKET_MODE", e.SocketMode), Group: p.group("S3DAEMON_SOCKET_GROUP", e.SocketGroup)},
		users:          p.users("S3DAEMON_UIDS", e.Users),
		tokenFile:      p.secretFile("S3DAEMON_TOKEN_FILE", e.TokenFile),
		maxCallers:     p.number("S3DAEMON_MAX_CALLERS", e.MaxCallers, 1, 100_000),
		places:         p.places("S3DAEMON_BUCKETS", e.Buckets),
		roots:          p.roots("S3DAEMON_ROOTS", e.Roots),
		maxConnections: p.number("S3DAEMON_MAX_CONNECTIONS", e.MaxConnections, 1, 1000),
		attempts:       p.number("S3DAEMON_ATTEMPTS", e.Attempts, 1, 100),
		connectTimeout: p.duration("S3DAEMON_CONNECT_TIMEOUT", e.ConnectTimeout, 10*time.Millisecond, 5*time.Minute),
		stallTimeout:   p.duration("S3DAEMON_STALL_TIMEOUT", e.StallTimeout, time.Second, time.Hour),
		congestion:     p.algorithm("S3DAEMON_TCP_CONGESTION", e.Congestion),
		drainTimeout:   p.duration("S3DAEMON_DRAIN_TIMEOUT", e.DrainTimeout, 0, 24*time.Hour),
		drainQueue:     p.choice("S3DAEMON_DRAIN", e.Drain, "inflight", "queue") == "queue",
		journalWait:    p.duration("S3DAEMON_JOURNAL_WAIT", e.JournalWait, 0, 10*365*24*time.Hour),
		historyAge:     p.duration("S3DAEMON_HISTORY_AGE", e.HistoryAge, time.Minute, 10*365*24*time.Hour),
		historyCount:   p.number("S3DAEMON_HISTORY_COUNT", e.HistoryCount, 1, 10_000_000),
		queueLimit:     p.number("S3DAEMON_QUEUE_LIMIT", e.QueueLimit, 1, 10_000_000),
		giveUpAfter:    p.duration("S3DAEMON_GIVE_UP_AFTER", e.GiveUpAfter, 0, 10*365*24*time.Hour),
		deadline:       p.duration("S3DAEMON_DEADLINE", e.Deadline, time.Millisecond, 10*365*24*time.Hour),
		syncFiles:      p.flag("S3DAEMON_SYNC_FILES", e.SyncFiles),
		checksum:       p.choice("S3DAEMON_CHECKSUM", e.Checksum, "auto", "crc64nvme", "md5", "sha256"),
		retryChanged:   p.choice("S3DAEMON_IF_CHANGED", e.IfChanged, "fail", "retry") == "retry",
		log:            e.Log,
		logFormat:      p.choice("S3DAEMON_LOG_FORMAT", e.LogFormat, "auto", "json", "text", "legacy"),
	}
	cfg.bandwidth, cfg.bandwidthFile = p.bandwidth("S3DAEMON_BANDWIDTH", e.Bandwidth)
	if e.Warmup != "" {
		cfg.warmup = p.destination("S3DAEMON_WARMUP", e.Warmup)
	}
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	cfg.logLevel = levels[p.choice("S3DAEMON_LOG_LEVEL", e.LogLevel, "debug", "info", "warn", "error")]
	p.path("S3DAEMON_DATA_DIR", e.DataDir)
	for _, h := range cfg.hosts {
		if strings.ContainsAny(h, "/: *") {
			p.mistake("S3DAEMON_HOSTS", "%q is not a host name (no scheme, port or wildcard)", h)
		}
	}
	return cfg, errors.Join(p.mistakes...)
}
