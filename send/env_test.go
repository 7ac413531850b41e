package main

import (
	"context"
	"net"
	"strconv"
	"strings"
	"testing"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for _, pair := range pairs {
			if value, found := strings.CutPrefix(pair, name+"="); found {
				return value
			}
		}
		return ""
	}
}

func TestWhom(t *testing.T) {
	const url, host, port = "S3DAEMON_URL=", "S3DAEMON_HOST=", "S3DAEMON_PORT="
	tests := []struct {
		env                  []string
		url, server, problem string
	}{
		{nil, "http://127.0.0.1:15556", "", ""},
		{[]string{url, host, port}, "http://127.0.0.1:15556", "", ""},
		{[]string{url + "unix:/run/d.sock"}, "unix:/run/d.sock", "", ""},
		// The old way.
		{[]string{port + "16000"}, "", "127.0.0.1:16000", ""},
		{[]string{host + "node7"}, "", "node7:15555", ""},
		{[]string{host + "node7", port + "16000"}, "", "node7:16000", ""},
		{[]string{host + "::1"}, "", "[::1]:15555", ""},
		{[]string{host + "[::1]", port + "1"}, "", "[::1]:1", ""},
		{[]string{host + "fe80::1%eth0"}, "", "[fe80::1%eth0]:15555", ""},
		// The new one goes first, also before what would be a mistake.
		{[]string{url + "http://node7:15556", host + "node8", port + "16000"}, "http://node7:15556", "", ""},
		{[]string{url + "http://node7:15556", port + "garbage"}, "http://node7:15556", "", ""},
		// Kubernetes' values are nobody's choice.
		{[]string{port + "tcp://10.0.0.1:15555"}, "http://127.0.0.1:15556", "", ""},
		{[]string{port + "udp://10.0.0.1:15555", host + "tcp://10.0.0.1:15555"}, "http://127.0.0.1:15556", "", ""},
		{[]string{port + "tcp://10.0.0.1:15555", host + "node7"}, "", "node7:15555", ""},
		{[]string{port + "tcp://10.0.0.1:15555", url + "http://node7:1"}, "http://node7:1", "", ""},
		// Mistakes.
		{[]string{port + "http"}, "", "", `S3DAEMON_PORT is "http", which is not a port number from 0 to 65535`},
		{[]string{port + "70000"}, "", "", `S3DAEMON_PORT is "70000", which is not a port number from 0 to 65535`},
		{[]string{port + "-1"}, "", "", `S3DAEMON_PORT is "-1", which is not a port number from 0 to 65535`},
		{[]string{port + "http://x"}, "", "", `S3DAEMON_PORT is "http://x", which is not a port number from 0 to 65535`},
		{[]string{host + "node7:16000"}, "", "", `S3DAEMON_HOST is "node7:16000", which is not a host's name or address (the port goes into S3DAEMON_PORT)`},
		{[]string{host + "http://node7"}, "", "", `S3DAEMON_HOST is "http://node7", which is not a host's name or address (the port goes into S3DAEMON_PORT)`},
	}
	for _, test := range tests {
		url, server, err := whom(env(test.env...))
		problem := ""
		if err != nil {
			problem = err.Error()
		}
		if url != test.url || server != test.server || problem != test.problem {
			t.Errorf("%q: %q, %q, %q", test.env, url, server, problem)
		}
	}
}

func TestListenAddress(t *testing.T) {
	tests := []struct {
		args, env []string
		want      string // an address, or a mistake's beginning
	}{
		{nil, nil, "127.0.0.1:15555"},
		{nil, []string{"S3DAEMON_PORT=16000"}, "127.0.0.1:16000"},
		{nil, []string{"S3DAEMON_HOST=0.0.0.0", "S3DAEMON_PORT=tcp://10.0.0.1:15555"}, "0.0.0.0:15555"},
		{nil, []string{"S3DAEMON_URL=http://127.0.0.1:1", "S3DAEMON_PORT=0"}, "127.0.0.1:0"},
		{[]string{"127.0.0.1:1"}, []string{"S3DAEMON_PORT=16000"}, "127.0.0.1:1"},
		{[]string{":1"}, nil, ":1"},
		{nil, []string{"S3DAEMON_PORT=x"}, "S3DAEMON_PORT is"},
		{[]string{"raw/bkt/key"}, nil, `-listen wants HOST:PORT, not "raw/bkt/key" (a file called -listen is pushed as ./-listen)`},
	}
	for _, test := range tests {
		got, err := listenAddress(test.args, env(test.env...))
		if err != nil {
			got = err.Error()
		}
		if got != test.want && (err == nil || !strings.HasPrefix(got, test.want)) {
			t.Errorf("%q %q: %q", test.args, test.env, got)
		}
	}
}

// TestArguments has the command lines that reach no daemon. All of them say
// what is the matter on standard error and exit with 1, but for the two that
// ask for something.
func TestArguments(t *testing.T) {
	const usageLine = "usage: send FILE DEST\n"
	here := env("S3DAEMON_URL=unix:/nowhere/d.sock")
	tests := []struct {
		name           string
		args           []string
		getenv         func(string) string
		status         int
		stdout, stderr string // what they begin with
	}{
		{"none", nil, here, 1, "", usageLine},
		{"one", []string{"/f"}, here, 1, "", usageLine},
		{"listen, too many", []string{"-listen", "127.0.0.1:0", "more"}, here, 1, "", usageLine},
		{"several files to one", []string{"/f", "a/bkt/k", "more"}, here, 1, "", `send: DEST is "more": for several FILEs it must end in "/"` + "\n"},
		{"two files of one name", []string{"/a/f", "/b/f", "s3://bkt/"}, here, 1, "", `send: "/a/f" and "/b/f" would both become "s3://bkt/f"` + "\n"},
		{"bad destination", []string{"-async", "/f", "word"}, here, 1, "", `send: destination "word" has neither bucket nor key`},
		{"unknown flag", []string{"-x"}, here, 1, "", "send: flag provided but not defined: -x (send -help has the usage)\n"},
		{"unknown flag", []string{"-x", "/f", "a/bkt/k"}, here, 1, "", "send: flag provided but not defined: -x (send -help has the usage)\n"},
		{"bad number", []string{"-j", "x", "/f", "a/bkt/k"}, here, 1, "", `send: invalid value "x" for flag -j: parse error`},
		{"number out of range", []string{"-j", "0", "/f", "a/bkt/k"}, here, 1, "", "send: -j is 0, which is not a number from 1 to 1000"},
		{"no files", []string{"-async", "-json", "-progress"}, here, 1, "", "send: -async does not wait"},
		{"no files", []string{"-json", "-j", "3"}, here, 1, "", "send: FILE and DEST are missing"},
		{"no destination", []string{"-label", "L", "/f"}, here, 1, "", `send: DEST is missing after the FILE "/f"`},
		{"timeout without wait", []string{"-timeout", "1s", "/f", "a/bkt/k"}, here, 1, "", "send: -timeout goes with -wait only"},
		{"wait without a label", []string{"-wait"}, here, 1, "", "send: flag needs an argument: -wait"},
		{"wait with an empty label", []string{"-wait", ""}, here, 1, "", "send: the LABEL of -wait is empty"},
		{"wait with files", []string{"-wait", "L", "/f", "a/bkt/k"}, here, 1, "", `send: -wait takes no FILE: what is "/f"?`},
		{"wait without overwriting", []string{"-wait", "L", "-no-overwrite"}, here, 1, "", "send: -no-overwrite does not go with -wait"},
		{"wait with other flags", []string{"-wait", "L", "-json"}, here, 1, "", "send: -json does not go with -wait"},
		{"wait backwards", []string{"-wait", "L", "-timeout", "-1s"}, here, 1, "", "send: -timeout is -1s"},
		{"wait, bad URL", []string{"-wait", "L"}, env("S3DAEMON_URL=x"), 1, "", "send: S3DAEMON_URL: "},
		{"flags, by the old way", []string{"-async", "/f", "a/bkt/k"}, env("S3DAEMON_PORT=1"), 1, "", "send: the server at 127.0.0.1:1, which S3DAEMON_HOST or S3DAEMON_PORT names, speaks the old line protocol"},
		{"wait, by the old way", []string{"-wait", "L"}, env("S3DAEMON_HOST=h"), 1, "", "send: the server at h:15555,"},
		{"an empty file among several", []string{"/f", "", "s3://bkt/"}, here, 1, "", "send: FILE is empty"},
		{"help among others", []string{"-async", "-h", "/f"}, here, 0, usageLine, ""},
		{"help", []string{"-help"}, here, 0, usageLine, ""},
		{"help", []string{"-h"}, here, 0, usageLine, ""},
		{"version", []string{"-version"}, here, 0, "send ", ""},
		{"files that look like flags", []string{"-h", "a/bkt/k"}, here, 1, "", "send: no daemon at unix:/nowhere/d.sock: no such file or directory (S3DAEMON_URL says where to look)\n"},
		{"files that look like flags", []string{"-async", "/f"}, here, 1, "", "send: no daemon at unix:/nowhere/d.sock"},
		{"files that look like flags", []string{"./-wait", "L"}, here, 1, "", "send: no daemon at unix:/nowhere/d.sock"},
		{"files that look like flags", []string{"-timeout=1s", "-wait=L"}, here, 1, "", "send: no daemon at unix:/nowhere/d.sock"},
		{"files that look like flags", []string{"-version", "-help"}, here, 1, "", "send: no daemon at unix:/nowhere/d.sock"},
		{"empty file", []string{"", "a/bkt/k"}, here, 1, "", "send: FILE is empty"},
		{"bad URL", []string{"/f", "a/bkt/k"}, env("S3DAEMON_URL=127.0.0.1:15556"), 1, "", `send: S3DAEMON_URL: "127.0.0.1:15556" is not the URL of a daemon`},
		{"bad port", []string{"/f", "a/bkt/k"}, env("S3DAEMON_PORT=x"), 1, "", `send: S3DAEMON_PORT is "x"`},
		{"a space, by the old way", []string{"/my file", "a/bkt/k"}, env("S3DAEMON_PORT=1"), 1, "", `send: the old line protocol cannot carry the name "/my file"`},
		{"a newline, by the old way", []string{"/f", "a/bkt/k\nx"}, env("S3DAEMON_PORT=1"), 1, "", `send: the old line protocol cannot carry the name "a/bkt/k\nx"`},
		{"an empty destination, by the old way", []string{"/f", ""}, env("S3DAEMON_PORT=1"), 1, "", `send: the old line protocol cannot carry the name ""`},
		{"white space at the end, by the old way", []string{"/f", "a/bkt/k\r"}, env("S3DAEMON_PORT=1"), 1, "", `send: the old line protocol cannot carry the name "a/bkt/k\r"`},
		{"listen, bad URL", []string{"-listen", "127.0.0.1:0"}, env("S3DAEMON_URL=x"), 1, "", "send: S3DAEMON_URL: "},
		{"listen, bad number", []string{"-listen", "127.0.0.1:0"}, env("S3DAEMON_MAX_CLIENTS=0"), 1, "", `send: S3DAEMON_MAX_CLIENTS is "0"`},
		{"listen, bad level", []string{"-listen", "127.0.0.1:0"}, env("S3DAEMON_LOG_LEVEL=loud"), 1, "", `send: S3DAEMON_LOG_LEVEL is "loud"`},
		{"listen, bad address", []string{"-listen", "256.0.0.1:0"}, here, 1, "", "send: listen for the old line protocol: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			status := run(context.Background(), test.args, test.getenv, &stdout, &stderr)
			begins := func(got, want string) bool { return strings.HasPrefix(got, want) && (want != "" || got == "") }
			if status != test.status || !begins(stdout.String(), test.stdout) || !begins(stderr.String(), test.stderr) {
				t.Errorf("%q: status %d\nstdout %q\nstderr %q", test.args, status, stdout.String(), stderr.String())
			}
			if !strings.HasPrefix(stderr.String(), "usage") && strings.Count(stderr.String(), "\n") > 1 {
				t.Errorf("more than a line: %q", stderr.String())
			}
		})
	}
}

// FuzzOldServer: the address of the old protocol can be connected to, or it is
// said in one line which variable is to blame.
func FuzzOldServer(f *testing.F) {
	for _, pair := range [][2]string{{"", ""}, {"node7", "15555"}, {"::1", "0"}, {"[::1]", "65535"}, {"fe80::1%eth0", "-1"}, {"a:b", "tcp://h:1"}, {"\n", "1e3"}, {"[]", "99999999999999999999"}} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, host, port string) {
		s, err := oldServer(env("S3DAEMON_HOST="+host, "S3DAEMON_PORT="+port))
		if err != nil {
			if text := err.Error(); !strings.HasPrefix(text, "S3DAEMON_HOST is ") && !strings.HasPrefix(text, "S3DAEMON_PORT is ") || strings.ContainsAny(text, "\r\n\x00") {
				t.Errorf("of %q and %q it is said: %q", host, port, text)
			}
			return
		}
		gotHost, gotPort, err := net.SplitHostPort(s.address())
		if err != nil || gotHost != s.host || gotPort != strconv.Itoa(s.port) || s.port < 0 || s.port > 65535 {
			t.Errorf("%q and %q are the address %q, which is %q and %q: %v", host, port, s.address(), gotHost, gotPort, err)
		}
		if s.chosen != (isSet(host) || isSet(port)) {
			t.Errorf("%q and %q: chosen %v", host, port, s.chosen)
		}
	})
}
