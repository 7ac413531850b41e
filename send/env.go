package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/legacy"
)

// server is the address of a server of the line protocol.
type server struct {
	host   string
	port   int
	chosen bool // at least one of the two was set
}

func (s server) address() string { return net.JoinHostPort(s.host, strconv.Itoa(s.port)) }

// oldServer reads S3DAEMON_HOST and S3DAEMON_PORT, with the old defaults for
// what is not set. A value that can be no host or no port is an error rather
// than the default: the user meant some other server.
func oldServer(getenv func(string) string) (server, error) {
	s := server{host: "127.0.0.1", port: legacy.DefaultPort}
	if host := getenv("S3DAEMON_HOST"); isSet(host) {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
		if strings.ContainsAny(host, "/ \t\n[]") || strings.Contains(host, ":") && !isIPv6(host) {
			return server{}, fmt.Errorf("S3DAEMON_HOST is %s, which is not a host's name or address (the port goes into S3DAEMON_PORT)", push.Quote(host))
		}
		s.host, s.chosen = host, true
	}
	if port := getenv("S3DAEMON_PORT"); isSet(port) {
		n, err := strconv.Atoi(port)
		if err != nil || n < 0 || n > 65535 {
			return server{}, fmt.Errorf("S3DAEMON_PORT is %s, which is not a port number from 0 to 65535", push.Quote(port))
		}
		s.port, s.chosen = n, true
	}
	return s, nil
}

// retryFor reads S3DAEMON_RETRY_FOR: how long to go on asking a daemon that is not
// there, refuses for now or did not answer.
func retryFor(getenv func(string) string, usual time.Duration) (time.Duration, error) {
	value := getenv("S3DAEMON_RETRY_FOR")
	if value == "" {
		return usual, nil
	}
	text := value
	if _, err := strconv.ParseUint(value, 10, 31); err == nil {
		text += "s" // as the daemon takes its durations
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("S3DAEMON_RETRY_FOR is %s, which is not a duration such as 30s or 5m, or a number of seconds", push.Quote(value))
	}
	return d, nil
}

// isSet reports whether somebody gave the variable this value for us. For a
// Service called s3daemon, Kubernetes gives every pod beside it
// S3DAEMON_PORT=tcp://10.0.0.1:15555, which nobody asked for.
func isSet(value string) bool {
	for _, protocol := range []string{"tcp://", "udp://", "sctp://"} {
		if strings.HasPrefix(value, protocol) {
			return false
		}
	}
	return value != ""
}

func isIPv6(host string) bool {
	address, _, _ := strings.Cut(host, "%") // a zone, as in fe80::1%eth0
	ip := net.ParseIP(address)
	return ip != nil && strings.Contains(address, ":")
}
