package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

// sorted puts the lines in order, since pushes side by side end in any.
func sorted(text string) string {
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// timeless replaces what the line about all files says of the time.
func timeless(text string) string {
	return regexp.MustCompile(`(files? done, .* in) [0-9.]+ s( \(.*/s\))?`).ReplaceAllString(text, "$1 TIME")
}

// TestFlags has the transcripts of what flags do: what a user types, and what
// comes of it. Pushes of a batch end in any order, so lines are compared sorted.
func TestFlags(t *testing.T) {
	const refused = "the store refused: no such bucket (store_refused, store code NoSuchBucket, store request R1)"
	tests := []struct {
		args           string
		status         int
		stdout, stderr string
		async          int // of the requests
	}{
		{"-label L /f s3://bkt/k", 0, "", "", 0},
		{"-- /f s3://bkt/k", 0, "", "", 0},
		{"/a /b /c s3://bkt/d/", 0, "", "", 0},
		{"/a /fails.1 /missing.1 /cancelled.1 s3://bkt/d/", 1, "", "send: /cancelled.1: the push was cancelled (cancelled)\n" +
			"send: /fails.1: " + refused + "\n" + `send: /missing.1: there is no file "/missing.1" (file_not_found)` + "\n", 0},
		{"-label L /fails.1 s3://bkt/d/", 1, "", "send: /fails.1: " + refused + "\n", 0},
		{"-no-overwrite /f /taken s3://bkt/d/", 1, "", "send: /taken: there is another object (exists)\n", 0},
		{"-label L /taken s3://bkt/d/", 0, "", "", 0},

		{"-async /f s3://bkt/held", 0, "id1\n", "", 1},
		{"-async /held s3://bkt/", 0, "id1\n", "", 1},
		{"-async /missing s3://bkt/", 1, "", "send: /missing: there is no file \"/missing\" (file_not_found)\n", 1},
		{"-async -j 1 /a /held /missing /b s3://bkt/", 1, "id1\t/a\nid2\t/held\nid3\t/b\n", "send: /missing: there is no file \"/missing\" (file_not_found)\n", 4},

		{"-progress /f s3://bkt/steps", 0, "", "send: /f: done, 4.0 MiB in 1.2 s\nsend: 1 of 1 file done, 4.0 MiB in TIME\n", 1},
		{"-progress /waits /fails s3://bkt/", 1, "", "send: /waits: done, 4.0 MiB in 1.2 s\n" +
			"send: /fails: " + refused + "\nsend: 1 of 2 files done, 4.0 MiB in TIME, 1 failed\n", 2},
		{"-progress /missing s3://bkt/", 1, "", "send: /missing: there is no file \"/missing\" (file_not_found)\nsend: 0 of 1 file done, 0 B in TIME, 1 failed\n", 1},
	}
	for _, test := range tests {
		t.Run(test.args, func(t *testing.T) {
			q := newQueue(t, "127.0.0.1:0")
			got := finish(t, command(t, []string{"S3DAEMON_URL=" + q.URL}, strings.Fields(test.args)...))
			got.stderr = timeless(got.stderr)
			want := outcome{test.status, sorted(test.stdout), sorted(test.stderr)}
			if got.stdout, got.stderr = sorted(got.stdout), sorted(got.stderr); got != want {
				t.Errorf("%v\nwant %v", got, want)
			}
			if q.async != test.async {
				t.Errorf("%d of %d requests were asynchronous, want %d", q.async, q.asked, test.async)
			}
		})
	}
}

// TestJSON: receipts and problems are lines of JSON, one for each file, waited
// for or not.
func TestJSON(t *testing.T) {
	q := newQueue(t, "127.0.0.1:0")
	for _, flags := range [][]string{{"-json"}, {"-json", "-progress"}, {"-json", "-async"}} {
		args := append(flags, "-label", "night 12", "/a b", "/fails", "/missing", "s3://bkt/d/")
		got := finish(t, command(t, []string{"S3DAEMON_URL=" + q.URL}, args...))
		var states, codes []string
		for line := range strings.Lines(got.stdout) {
			var o struct {
				State  push.State
				File   string
				Label  string
				Code   push.Code
				Detail string
				ID     string
			}
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			switch {
			case o.Code != "" && o.Detail != "":
				codes = append(codes, string(o.Code))
			case o.State != "" && o.Label == "night 12" && o.ID != "":
				states = append(states, string(o.State)+" "+o.File)
			default:
				t.Errorf("%q is neither a receipt nor a problem", line)
			}
		}
		slices.Sort(codes)
		slices.Sort(states)
		wantStates, wantCodes := []string{"done /a b"}, []string{"file_not_found", "store_refused"}
		if slices.Contains(flags, "-async") {
			wantStates, wantCodes = []string{"queued /a b", "queued /fails"}, []string{"file_not_found"}
		}
		if got.status != 1 || !slices.Equal(states, wantStates) || !slices.Equal(codes, wantCodes) {
			t.Errorf("%q: states %q, codes %q, %v", flags, states, codes, got)
		}
		if n := strings.Count(got.stderr, "(file_not_found)\n") + strings.Count(got.stderr, "store request R1)\n"); n != len(codes) {
			t.Errorf("%q: stderr %q", flags, got.stderr)
		}
	}
}

// TestRefusedAndCutOff: a full queue and connections that break cost no push,
// and none is made twice.
func TestRefusedAndCutOff(t *testing.T) {
	for _, flags := range [][]string{{"-j", "3"}, {"-j", "3", "-async"}, {"-j", "3", "-progress"}} {
		q := newQueue(t, "127.0.0.1:0")
		q.trouble(3, map[string]int{"a": 1, "b": 2})
		got := finish(t, command(t, []string{"S3DAEMON_URL=" + q.URL}, append(flags, "/a", "/b", "/c", "s3://bkt/d/")...))
		if got.status != 0 || strings.Contains(got.stderr, "again") {
			t.Errorf("%q: %v", flags, got)
		}
		if accepted, asked := q.counts(); accepted != 3 || asked != 3+3+3 {
			t.Errorf("%q: %d pushes of %d requests", flags, accepted, asked)
		}
	}
}

// TestSideBySide: -j is how many pushes the daemon sees at once.
func TestSideBySide(t *testing.T) {
	q := newQueue(t, "127.0.0.1:0")
	args := []string{"-j", "7"}
	for i := range 30 {
		args = append(args, fmt.Sprintf("/d/held.%d", i))
	}
	cmd := command(t, []string{"S3DAEMON_URL=" + q.URL}, append(args, "s3://bkt/d/")...)
	got := finish(t, cmd, func() {
		waitFor(t, "seven pushes", func() bool {
			accepted, _ := q.counts()
			return accepted == 7
		})
		close(q.hold)
	})
	if accepted, asked := q.counts(); got != (outcome{}) || accepted != 30 || asked != 30 || q.most != 7 {
		t.Errorf("%v: %d pushes of %d requests, %d at once", got, accepted, asked, q.most)
	}
}

// TestInterruptedBatch: an interrupted send says what goes on without it.
func TestInterruptedBatch(t *testing.T) {
	tests := []struct {
		args, stderr string
	}{
		{"-j 4 /a /held.1 /held.2 /held.3 /held.4 /held.5 s3://bkt/d/",
			"send: interrupted: 1 done, 4 perhaps going on in the daemon, 1 not pushed\n"},
		{"-j 4 -progress /a /held.1 /held.2 /held.3 /held.4 /held.5 s3://bkt/d/",
			"send: /a: done, 4.0 MiB in 1.2 s\nsend: 1 of 6 files done, 4.0 MiB in TIME\n" +
				"send: interrupted: 1 done, 4 going on by themselves in the daemon, 1 not pushed\n"},
	}
	for _, test := range tests {
		q := newQueue(t, "127.0.0.1:0")
		cmd := command(t, []string{"S3DAEMON_URL=" + q.URL}, strings.Fields(test.args)...)
		got := finish(t, cmd, func() {
			waitFor(t, "four pushes to run", func() bool { return q.running() == 4 })
			cmd.Process.Signal(syscall.SIGINT)
		})
		got.stderr = timeless(got.stderr)
		if got != (outcome{1, "", test.stderr}) {
			t.Errorf("%s: %v, want %q", test.args, got, test.stderr)
		}
	}
}

// TestBarrier waits for a label, and tells of what came to nothing.
func TestBarrier(t *testing.T) {
	q := newQueue(t, "127.0.0.1:0")
	env := []string{"S3DAEMON_URL=" + q.URL}
	send := func(args ...string) outcome {
		t.Helper()
		return finish(t, command(t, env, args...))
	}
	if got := send("-async", "-label", "good", "/waits", "/b", "s3://bkt/d/"); got.status != 0 {
		t.Fatal(got)
	}
	if got := send("-async", "-label", "bad", "/fails.1", "/c", "/fails.2", "/cancelled.1", "s3://bkt/d/"); got.status != 0 {
		t.Fatal(got)
	}
	if got := send("-async", "-label", "long", "/held", "s3://bkt/d/"); got.status != 0 {
		t.Fatal(got)
	}
	for _, args := range [][]string{{"-wait", "good"}, {"--wait", "good"}, {"-wait=good"}, {"-timeout", "1h", "-wait", "good"}, {"-wait", "of nobody"}} {
		if got := send(args...); got != (outcome{}) {
			t.Errorf("%q: %v", args, got)
		}
	}
	const refused = "the store refused: no such bucket (store_refused, store code NoSuchBucket, store request R1)\n"
	want := "send: /cancelled.1: the push was cancelled (cancelled)\nsend: /fails.1: " + refused + "send: /fails.2: " + refused
	if got := send("-wait", "bad"); got.status != 1 || got.stdout != "" || sorted(got.stderr) != want {
		t.Errorf("%v, want %q", got, want)
	}
	want = `send: after 10ms one push with the label "long" is still queued or running` + "\n"
	if got := send("-wait", "long", "-timeout", "10ms"); got != (outcome{1, "", want}) {
		t.Errorf("%v, want %q", got, want)
	}
	cmd := command(t, env, "-wait", "long")
	got := finish(t, cmd, func() { cmd.Process.Signal(syscall.SIGTERM) })
	if want := "send: interrupted: what the daemon has accepted goes on without send\n"; got.stderr != "" && got != (outcome{1, "", want}) {
		t.Errorf("%v, want %q", got, want) // without any words where the signal came too early
	}
}

// TestBarrierThroughRestart: the daemon may go away and come back meanwhile.
func TestBarrierThroughRestart(t *testing.T) {
	first := newQueue(t, "127.0.0.1:0")
	address := strings.TrimPrefix(first.URL, "http://")
	env := []string{"S3DAEMON_URL=" + first.URL}
	if got := finish(t, command(t, env, "-async", "-label", "L", "/held", "s3://bkt/")); got.status != 0 {
		t.Fatal(got)
	}
	got := finish(t, command(t, env, "-wait", "L"), func() {
		<-first.lists
		first.Listener.Close()
		first.CloseClientConnections()
		second := newQueue(t, address)
		second.mu.Lock()
		defer second.mu.Unlock()
		second.pushes = append(second.pushes, &queued{Receipt: push.Receipt{ID: "id1", State: push.Queued, Label: "L"}, steps: life("waits")})
	})
	if got != (outcome{}) {
		t.Error(got)
	}
}

// TestManyFiles: thousands of files are pushed, each once, without thousands of
// descriptors.
func TestManyFiles(t *testing.T) {
	q := newQueue(t, "127.0.0.1:0")
	const many = 2000
	args := []string{"-async", "-j", "20"}
	for i := range many {
		args = append(args, fmt.Sprintf("f%d", i))
	}
	got := finish(t, command(t, []string{"S3DAEMON_URL=" + q.URL}, append(args, "s3://bkt/d/")...))
	if n := strings.Count(got.stdout, "\n"); got.status != 0 || n != many || got.stderr != "" {
		t.Errorf("%d lines, %v", n, got)
	}
	if accepted, asked := q.counts(); accepted != many || asked != many || q.most > 20 {
		t.Errorf("%d pushes of %d requests, %d at once", accepted, asked, q.most)
	}
}

// TestFullOutput: ids that nobody can read are no success.
func TestFullOutput(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full")
	}
	defer full.Close()
	q := newQueue(t, "127.0.0.1:0")
	cmd := command(t, []string{"S3DAEMON_URL=" + q.URL}, "-async", "/f", "s3://bkt/k")
	var stderr strings.Builder
	cmd.Stdout, cmd.Stderr = full, &stderr
	if err := cmd.Run(); err == nil || !strings.HasPrefix(stderr.String(), "send: write to standard output: ") {
		t.Errorf("%v, %q", err, stderr.String())
	}
}

// TestRelativeFiles: names mean what they mean where send was started.
func TestRelativeFiles(t *testing.T) {
	q := newQueue(t, "127.0.0.1:0")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, []string{"S3DAEMON_URL=" + q.URL}, "-j", "1", "--", "-async", "./a", "b\nc", "/d/e", "x/bkt/d/")
	cmd.Dir = dir
	if got := finish(t, cmd); got != (outcome{1, "", `send: "b\nc": key "d/b\nc" has an ASCII control character (invalid_destination)` + "\n"}) {
		t.Errorf("a key that S3 cannot hold: %v", got)
	}
	cmd = command(t, []string{"S3DAEMON_URL=" + q.URL}, "-j", "1", "--", "-async", "./a", "/d/e", "x/bkt/d/")
	cmd.Dir = dir
	if got := finish(t, cmd); got != (outcome{}) {
		t.Fatal(got)
	}
	var got []string
	for _, p := range q.pushes {
		got = append(got, p.File+" "+p.Destination)
	}
	want := []string{dir + "/-async x/bkt/d/-async", dir + "/./a x/bkt/d/a", "/d/e x/bkt/d/e"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
