package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

// daemonSays has what the daemon's stand-in answers, by key.
var daemonSays = map[string]http.HandlerFunc{
	"missing": problem(push.Problem{Status: 404, Code: push.FileNotFound, Detail: `there is no file "/f"`}),
	"refused": problem(push.Problem{Status: 502, Code: push.StoreRefused, Detail: "the store refused: no such bucket",
		Store: &push.StoreAnswer{Status: 404, Code: "NoSuchBucket", RequestID: "R1"}}),
	"cancelled": problem(push.Problem{Status: 409, Code: push.WasCancelled, Detail: "the push was cancelled", ID: "1"}),
	"success?":  problem(push.Problem{Status: 500, Detail: "Success\nis what this error begins with"}),
	"long":      problem(push.Problem{Status: 500, Detail: "x" + strings.Repeat("\u00e9", 4000)}),
	"accepted": func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 202, push.Receipt{ID: "1", State: push.Queued})
	},
	"queued": func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, push.Receipt{ID: "1", State: push.Queued})
	},
	"dies":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	"oddity": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "Success", 200) },
}

// transcripts is the old contract, byte for byte: what a program writes into
// its connection, what it reads until the connection closes, and what the
// client shows for the same request. DAEMON stands for the daemon's URL.
var transcripts = []struct {
	name   string
	pieces []string
	reply  string

	// The client, where its arguments can be the request. Over the old
	// protocol it prints the reply, over HTTP what is here. Standard output
	// is empty always.
	status int
	stderr string
}{
	{"a push", []string{"/f a/bkt/k\n"}, "Success", 0, ""},
	{"byte by byte", strings.Split("/f a/bkt/k\n", ""), "Success", 0, ""},
	{"newline alone", []string{"/f a/bkt/k", "\n"}, "Success", 0, ""},
	{"a URI", []string{"/f s3://bkt/k\n"}, "Success", 0, ""},
	{"slashes in the key", []string{"/f a/bkt/k/l//m/\n"}, "Success", 0, ""},
	{"a relative file", []string{"f a/bkt/k\n"}, "Success", 0, ""},
	{"a file like a flag", []string{"-h a/bkt/k\n"}, "Success", 0, ""},
	{"not UTF-8", []string{"/\xff a/bkt/k\n"}, "Success", 0, ""},
	{"no such file", []string{"/f a/bkt/missing\n"}, `there is no file "/f" (file_not_found)`,
		1, "send: there is no file \"/f\" (file_not_found)\n"},
	{"no such bucket", []string{"/f a/bkt/refused\n"}, "the store refused: no such bucket (store_refused, store code NoSuchBucket, store request R1)",
		1, "send: the store refused: no such bucket (store_refused, store code NoSuchBucket, store request R1)\n"},
	{"somebody cancels the push", []string{"/f a/bkt/cancelled\n"}, "the push was cancelled (cancelled)",
		1, "send: the push was cancelled (cancelled)\n"},
	{"an error that looks like success", []string{"/f a/bkt/success?\n"}, "error: Success is what this error begins with",
		1, "send: Success is what this error begins with\n"},
	{"a long error", []string{"/f a/bkt/long\n"}, "x" + strings.Repeat("\u00e9", 2047),
		1, "send: x" + strings.Repeat("\u00e9", 4000) + "\n"},
	{"accepted is not done", []string{"/f a/bkt/accepted\n"},
		"the daemon at DAEMON accepted the push and did not wait for its end (HTTP 202): it is not known to be done",
		1, "send: the daemon at DAEMON accepted the push and did not wait for its end (HTTP 202): it is not known to be done\n"},
	{"queued is not done", []string{"/f a/bkt/queued\n"}, `the daemon at DAEMON answered while the push "1" was "queued", not done`,
		1, "send: the daemon at DAEMON answered while the push \"1\" was \"queued\", not done\n"},
	{"the daemon dies", []string{"/f a/bkt/dies\n"},
		"the daemon at DAEMON went away before it answered, and the push may or may not have reached the store (repeating it is harmless): unexpected EOF",
		1, "send: the daemon at DAEMON went away before it answered, and the push may or may not have reached the store (repeating it is harmless): unexpected EOF\n"},
	{"no daemon but something else", []string{"/f a/bkt/oddity\n"}, `what answers at DAEMON is no s3daemon: HTTP 200 OK "Success"`,
		1, "send: what answers at DAEMON is no s3daemon: HTTP 200 OK \"Success\"\n"},

	// What no client sends that has two words as its arguments.
	{"white space at the end", []string{"/f a/bkt/k \t\r\n"}, "Success", -1, ""},
	{"more after the newline", []string{"/f a/bkt/k\n/g a/bkt/k\n", "and more"}, "Success", -1, ""},
	{"two spaces", []string{"/f  a/bkt/k\n"},
		"the request has 2 spaces and must have one: names with spaces cannot be sent over this port, use the HTTP interface", -1, ""},
	{"a space before", []string{" /f a/bkt/k\n"},
		"the request has 2 spaces and must have one: names with spaces cannot be sent over this port, use the HTTP interface", -1, ""},
	{"one word", []string{"/f\n"}, "the request has one word: send FILE DEST and a newline", -1, ""},
	{"an empty line", []string{"\n"}, "the request has one word: send FILE DEST and a newline", -1, ""},
	{"binary", []string{"\x00\x01\x02\xff\xfe\n"}, "the request has one word: send FILE DEST and a newline", -1, ""},
	{"no newline", []string{"/f a/bkt/k"},
		"the connection ended before the request's newline, so that it may be cut short: send FILE DEST and a newline", -1, ""},
	{"nothing", nil, "", -1, ""},
	{"1 MB without a newline", []string{strings.Repeat("x", 1_000_000)},
		"the request is longer than 65536 bytes: send FILE DEST and a newline", -1, ""},
	{"64 KiB and a newline", []string{"/f a/", strings.Repeat("x", 65536-5), "\n"}, "Success", -1, ""},
	{"a byte more", []string{"/f a/", strings.Repeat("x", 65537-5), "\n"},
		"the request is longer than 65536 bytes: send FILE DEST and a newline", -1, ""},
}

// goesOn has those after which S3DAEMON_RETRY_FOR has the client ask on.
var goesOn = []string{"accepted is not done", "queued is not done", "the daemon dies"}

func TestTranscripts(t *testing.T) {
	daemon := newStandIn(t, "127.0.0.1:0", daemonSays)
	l := startListener(t, "S3DAEMON_URL="+daemon.URL)
	before := l.descriptors(t)
	_, port, _ := strings.Cut(l.address, ":")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	python, _ := exec.LookPath("python3")
	script, err := filepath.Abs("testdata/legacy_client.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range transcripts {
		reply := strings.ReplaceAll(test.reply, "DAEMON", daemon.URL)
		t.Run(test.name+"/socket", func(t *testing.T) {
			conn := dial(t, l.address)
			say(t, conn, test.pieces...)
			if !strings.Contains(strings.Join(test.pieces, ""), "\n") {
				conn.CloseWrite()
			}
			if got := hear(t, conn); got != reply {
				t.Errorf("%.300q, want %.300q", got, reply)
			}
		})
		if test.status < 0 {
			continue
		}
		file, destination, _ := strings.Cut(strings.TrimSuffix(strings.Join(test.pieces, ""), "\n"), " ")
		oldStderr := ""
		if test.status != 0 {
			oldStderr = reply + "\n"
		}
		check := func(t *testing.T, cmd *exec.Cmd, want outcome) {
			cmd.Dir = dir
			if got := finish(t, cmd); got != want {
				t.Errorf("%v, want %v", got, want)
			}
		}
		t.Run(test.name+"/client", func(t *testing.T) {
			check(t, command(t, []string{"S3DAEMON_URL=" + daemon.URL}, file, destination),
				outcome{test.status, "", strings.ReplaceAll(test.stderr, "DAEMON", daemon.URL)})
		})
		if !slices.Contains(goesOn, test.name) {
			t.Run(test.name+"/patient client", func(t *testing.T) {
				check(t, command(t, []string{"S3DAEMON_URL=" + daemon.URL, "S3DAEMON_RETRY_FOR=1h"}, file, destination),
					outcome{test.status, "", strings.ReplaceAll(test.stderr, "DAEMON", daemon.URL)})
			})
		}
		t.Run(test.name+"/client, old way", func(t *testing.T) {
			check(t, command(t, []string{"S3DAEMON_PORT=" + port}, file, destination), outcome{test.status, "", oldStderr})
		})
		t.Run(test.name+"/Python", func(t *testing.T) {
			if python == "" {
				t.Skip("no python3")
			}
			cmd := exec.Command(python, script, file, destination)
			cmd.Env = append(os.Environ(), "S3DAEMON_PORT="+port, "PIECES=3")
			check(t, cmd, outcome{test.status, "", strings.TrimSuffix(oldStderr, "\n")})
		})
	}
	waitFor(t, "the listener's descriptors to be back", func() bool { return l.descriptors(t) <= before })
}

// TestFileNames: over HTTP the client carries every name, and makes relative
// ones absolute without touching them otherwise.
func TestFileNames(t *testing.T) {
	daemon := newStandIn(t, "127.0.0.1:0", nil)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ file, destination, want string }{
		{"/data/a.fits", "a/bkt/k", "/data/a.fits"},
		{"a.fits", "s3://bkt/k", dir + "/a.fits"},
		{"./link/../a.fits", "s3://bkt/k", dir + "/./link/../a.fits"},
		{"my file & more=1%20+.fits", "a/bkt/my key", dir + "/my file & more=1%20+.fits"},
		{"/\xff\xfe", "a/bkt/\u00e9", "/\xff\xfe"},
		{"-listen.fits", "a/bkt/k", dir + "/-listen.fits"},
	}
	for _, test := range tests {
		cmd := command(t, []string{"S3DAEMON_URL=" + daemon.URL}, test.file, test.destination)
		cmd.Dir = dir
		if got := finish(t, cmd); got != (outcome{}) {
			t.Errorf("%q: %+v", test.file, got)
			continue
		}
		if got := <-daemon.asked; got.File != test.want || got.Destination != test.destination {
			t.Errorf("%q, %q arrived as %q, %q", test.file, test.destination, got.File, got.Destination)
		}
	}
}
