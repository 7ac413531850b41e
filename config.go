package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
)

// config is what the daemon is told by its environment. Nothing below package
// main reads the environment, but for the AWS SDK's own chain.
type config struct {
	endpoint       string   // base URL of the store; empty for Amazon S3
	listen         []string // host:port or unix:/path
	hosts          []string // names allowed in Host
	maxConnections int
	attempts       int
	connectTimeout time.Duration
	drainTimeout   time.Duration
	log            string // file; empty for standard error
	logLevel       slog.Level
	logFormat      string // auto, json or text
}

// environment is config as text. envconfig reads it, which cannot fail since
// every field is a string; parse then finds all the mistakes, not the first
// one only, and never repeats a value that may be secret. The descriptions are
// the table of -help and of the README.
type environment struct {
	Endpoint       string `envconfig:"S3_ENDPOINT_URL" desc:"Base URL of the store, e.g. https://s3.example.org. Empty: Amazon S3, or what the AWS configuration says."`
	Listen         string `envconfig:"S3DAEMON_LISTEN" default:"127.0.0.1:15556" desc:"Addresses to serve on, separated by commas: host:port (port 0 picks one) or unix:/path."`
	Hosts          string `envconfig:"S3DAEMON_HOSTS" desc:"Names allowed in the Host header beside loopback ones and the address connected to, separated by commas."`
	MaxConnections string `envconfig:"S3DAEMON_MAX_CONNECTIONS" default:"25" desc:"Size of the pool: requests to the store that may be under way at once, 1 to 1000."`
	Attempts       string `envconfig:"S3DAEMON_ATTEMPTS" default:"5" desc:"Tries of each request to the store before its push fails, 1 to 100."`
	ConnectTimeout string `envconfig:"S3DAEMON_CONNECT_TIMEOUT" default:"5s" desc:"Limit for connecting to the store, and again for TLS: a duration, or seconds."`
	DrainTimeout   string `envconfig:"S3DAEMON_DRAIN_TIMEOUT" default:"25s" desc:"On SIGTERM, how long pushes in flight may go on: a duration, or seconds."`
	Log            string `envconfig:"S3DAEMON_LOG" desc:"File to append the log to. Empty: standard error."`
	LogLevel       string `envconfig:"S3DAEMON_LOG_LEVEL" default:"info" desc:"debug, info, warn or error."`
	LogFormat      string `envconfig:"S3DAEMON_LOG_FORMAT" default:"auto" desc:"json, text, or auto: text on a terminal, else json."`
}

// loadConfig reads the environment. The warnings name variables that look like
// ours and do nothing. The error lists every mistake.
func loadConfig() (config, []string, error) {
	var env environment
	if err := envconfig.Process("", &env); err != nil {
		return config{}, nil, fmt.Errorf("read the environment: %w", err)
	}
	cfg, err := env.parse()
	return cfg, warnings(os.Environ()), errors.Join(err, checkKeys(os.LookupEnv))
}

// checkKeys looks for the mistakes that the AWS SDK would report at each push,
// and in other words. The values are secret.
func checkKeys(lookup func(string) (string, bool)) error {
	var p parser
	const id, secret = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
	for _, name := range []string{id, secret} {
		if value, _ := lookup(name); strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			p.mistake(name, "has white space or another character in it that no key has; a secret made from a file often ends in a newline")
		}
	}
	idValue, _ := lookup(id)
	secretValue, _ := lookup(secret)
	if (idValue == "") != (secretValue == "") {
		p.mistake(id+" and "+secret, "one is set and the other is not")
	}
	return errors.Join(p.mistakes...)
}

// parse turns the text into values and reports all mistakes together.
func (e environment) parse() (config, error) {
	var p parser
	cfg := config{
		endpoint:       p.endpoint("S3_ENDPOINT_URL", e.Endpoint),
		listen:         p.listen("S3DAEMON_LISTEN", orDefault("S3DAEMON_LISTEN", e.Listen)),
		hosts:          list(e.Hosts),
		maxConnections: p.number("S3DAEMON_MAX_CONNECTIONS", e.MaxConnections, 1, 1000),
		attempts:       p.number("S3DAEMON_ATTEMPTS", e.Attempts, 1, 100),
		connectTimeout: p.duration("S3DAEMON_CONNECT_TIMEOUT", e.ConnectTimeout, 10*time.Millisecond, 5*time.Minute),
		drainTimeout:   p.duration("S3DAEMON_DRAIN_TIMEOUT", e.DrainTimeout, 0, 24*time.Hour),
		log:            e.Log,
		logFormat:      p.choice("S3DAEMON_LOG_FORMAT", e.LogFormat, "auto", "json", "text"),
	}
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	cfg.logLevel = levels[p.choice("S3DAEMON_LOG_LEVEL", e.LogLevel, "debug", "info", "warn", "error")]
	for _, h := range cfg.hosts {
		if strings.ContainsAny(h, "/: *") {
			p.mistake("S3DAEMON_HOSTS", "%q is not a host name (no scheme, port or wildcard)", h)
		}
	}
	return cfg, errors.Join(p.mistakes...)
}
