//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestLimits compares the limits with those of the goals.
func TestLimits(t *testing.T) {
	want := map[string]float64{
		"200ms/single": 0.344, "200ms/burst": 3.08, "200ms/large": 8.79, "200ms/many": 1.8, "200ms/burst-lossy-tls": 3.08,
		"20ms/single-stock": 0.164, "20ms/burst-nobbr": 2.9,
	}
	for _, b := range allCases() {
		if w, ok := want[b.id()]; ok && math.Abs(b.limit().Seconds()-w) > 0.0005 {
			t.Errorf("%s: the limit is %v, not %v s", b.id(), b.limit(), w)
		}
		delete(want, b.id())
	}
	for id := range want {
		t.Errorf("there is no case %s", id)
	}
}

func TestCases(t *testing.T) {
	all := allCases()
	ids := map[string]bench{}
	for _, b := range all {
		if _, ok := ids[b.id()]; ok {
			t.Errorf("two cases are %s", b.id())
		}
		ids[b.id()] = b
	}
	for _, b := range all {
		if b.Bound != 0 && b.Bound < 1 || b.SendBuffer == 0 || b.HostBuffer == 0 || b.Measured.Files == 0 || (len(b.Before) > 0) == b.Fresh {
			t.Errorf("%s is not whole: %+v", b.id(), b)
		}
		if b.TLS != (b.Of == thePlain) || b.NoBBR != (b.Of == netHTTP) {
			t.Errorf("%s is compared with the wrong thing", b.id())
		}
		if !b.TLS {
			continue
		}
		plain := ids[b.plainID()]
		if plain.Name == "" || plain.TLS || plain.Measured != b.Measured || !slices.Equal(plain.Before, b.Before) || plain.Loss != b.Loss {
			t.Errorf("%s has no such case without TLS", b.id())
		}
	}
	for _, list := range [][]string{inQuick, netHTTPInQuick} {
		for _, id := range list {
			if b, ok := ids[id]; !ok || b.Full {
				t.Errorf("%s is no case of the quick run", id)
			}
		}
	}
	for _, tt := range []struct {
		o    options
		want int
	}{
		{options{full: true}, len(all)},
		{options{}, len(longCases) - 1 + len(inQuick)}, // one has no bound
		{options{pattern: regexp.MustCompile(`^20ms/single$`)}, 1},
		{options{full: true, pattern: regexp.MustCompile(`nothing`)}, 0},
	} {
		if got := tt.o.cases(allCases()); len(got) != tt.want {
			t.Errorf("%+v: %d cases, not %d", tt.o, len(got), tt.want)
		}
	}
}

func TestReport(t *testing.T) {
	short := bench{Name: "a", Measured: burst{1, 125_000_000}, Bound: 1.2} // limit: 1 s
	over := short
	over.Name, over.TLS, over.Bound, over.Of = "a-tls", true, 1.1, thePlain
	refused := short
	refused.Name, refused.NoBBR, refused.Bound, refused.Of = "a-nobbr", true, 1, netHTTP
	alone := over
	alone.Name = "b-tls"
	of := func(b bench, who string, times ...time.Duration) *job {
		return &job{bench: b, who: contestant{name: who}, times: times, idle: 31 * time.Second}
	}
	told := short
	told.Name, told.Bound = "c", 0
	const ms = time.Millisecond
	r := newReport(options{rounds: 3, idle: 30 * time.Second}, []bench{short, over, refused, alone, told}, []*job{
		of(refused, "ours", 2000*ms), // the host's settings put it first
		of(refused, "net/http", 1900*ms),
		of(short, "ours", 1150*ms, 1900*ms, 1100*ms),
		of(short, "peer", 3*time.Second, 5*time.Second),
		of(over, "ours", 1250*ms),
		of(alone, "ours", 1250*ms),
		of(told, "ours", 9000*ms),
	})
	for i, want := range []struct {
		ratio, value float64
		verdict      string
	}{
		{1.15, 1.15, "met"},
		{1.25, 1.25 / 1.15, "met (1.09)"},
		{2, 2 / 1.9, "missed (1.05)"},
		{1.25, 0, "not compared"},
		{9, 9, "not judged"},
	} {
		w := r.Rows[i]
		if math.Abs(w.Results[0].Ratio-want.ratio) > 1e-9 || math.Abs(w.Value-want.value) > 1e-9 || w.verdict() != want.verdict {
			t.Errorf("%s: ratio %v, value %v, %s", w.Case, w.Results[0].Ratio, w.Value, w.verdict())
		}
	}
	if r.missed() != 1 {
		t.Errorf("%d missed", r.missed())
	}
	var text bytes.Buffer
	r.print(&text)
	for _, want := range []string{"1.150 (1.100 to 1.900)", "4.000 (3.000 to 5.000)  4.00", "1.00 of net/http", "longest idle time was 31.0 s", "after 30s idle"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text has no %q:\n%s", want, &text)
		}
	}
	o := options{check: true}
	if err := o.deliver(r, io.Discard); err == nil || !strings.Contains(err.Error(), "bounds missed: 1") {
		t.Errorf("with -check: %v", err)
	}
}

// TestNotes checks what is told of a table that does not speak for itself.
func TestNotes(t *testing.T) {
	for _, tt := range []struct {
		busy, late, complete float64
		want                 string
	}{
		{mostBusy, mostLate, 0, ""},
		{mostBusy, mostLate, 0.5, "taken off for daemons, not for the peer"},
		{0.75, mostLate, 0, "of its processors 75 % were taken"},
		{mostBusy, 0.25, 0, "of one push 25 % of the packets were late"},
	} {
		r := report{Busy: tt.busy, Rows: []row{{Results: []result{{Who: "ours", Complete: tt.complete}, {Who: "peer", Late: tt.late}}}}}
		notes := r.notes()[1:]
		if tt.want == "" && len(notes) > 0 || tt.want != "" && (len(notes) != 1 || !strings.Contains(notes[0], tt.want)) {
			t.Errorf("%+v: %q", tt, notes)
		}
	}
}

// A pusherFunc is a pusher that has nothing to stop.
type pusherFunc func(ctx context.Context, file string, size int64, n int) error

func (f pusherFunc) push(ctx context.Context, file string, size int64, n int) error {
	return f(ctx, file, size, n)
}

func (pusherFunc) stop() error { return nil }

// TestPushThatHangs checks that it ends all the same, and says why.
func TestPushThatHangs(t *testing.T) {
	b := &bed{buckets: t.TempDir()}
	if err := os.Mkdir(filepath.Join(b.buckets, bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		j := &job{bed: b, pusher: pusherFunc(func(ctx context.Context, _ string, _ int64, n int) error {
			return atOnce(ctx, n, func(ctx context.Context, _ int) error {
				<-ctx.Done()
				return ctx.Err()
			})
		})}
		if _, err := (contest{}).push(t.Context(), j, twenty); err == nil || !strings.Contains(err.Error(), "more than 5m0s") {
			t.Error(err)
		}
	})
}

// TestDelivered checks that a push which says that it has succeeded is not
// believed.
func TestDelivered(t *testing.T) {
	b := &bed{buckets: t.TempDir()}
	dir := filepath.Join(b.buckets, bucket)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(sizes ...int) pusher {
		return pusherFunc(func(context.Context, string, int64, int) error {
			var err error
			for i, size := range sizes {
				err = errors.Join(err, os.WriteFile(filepath.Join(dir, key(i)), make([]byte, size), 0o600))
			}
			return err
		})
	}
	for _, tt := range []struct {
		pusher pusher
		want   string // of the error; empty: there is none
	}{
		{put(5, 5), ""},
		{put(5), "object 0001 of 2 is not in the store"}, // nor what was pushed before
		{put(5, 4), "object 0001 has 4 bytes"},
	} {
		_, err := contest{}.push(t.Context(), &job{bed: b, pusher: tt.pusher}, burst{2, 5})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, not %q", err, tt.want)
		}
	}
}

func TestParseMetrics(t *testing.T) {
	got := parseMetrics("# HELP a b 1\na 1\nb{x=\"y z\"} 2.5\n\nc NaN\n# EOF 3\n")
	if got["a"] != 1 || got[`b{x="y z"}`] != 2.5 || len(got) != 3 {
		t.Errorf("%v", got)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"x"}, {"-n", "-1"}, {"-idle", "-1s"}, {"-peer-daemon", "x"}, {"-run", "("}} {
		var stderr bytes.Buffer
		if err := run(t.Context(), args, io.Discard, &stderr); !errors.As(err, new(usageError)) || stderr.Len() == 0 {
			t.Errorf("%v: %v, %q", args, err, &stderr)
		}
	}
}

// TestWholeRun runs cases that are like the real ones but small, with all
// contestants, and leaves the host's variables alone.
func TestWholeRun(t *testing.T) {
	allowed, err := os.ReadFile(allowedFile)
	if os.Geteuid() != 0 || err != nil || !strings.Contains(string(allowed), "cubic") {
		t.Skip("it needs root, and a host that allows cubic")
	}
	changed, err := openRecord(filepath.Join(t.TempDir(), "record"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer changed.close() //nolint:errcheck // TestRecord looks at it
	dir, err := changed.makeDir("/dev/shm")
	if err != nil {
		t.Skip(err)
	}
	fileDir, err := changed.makeDir("")
	if err != nil {
		t.Fatal(err)
	}
	plain := bench{
		Name: "tiny", Before: []burst{{1, 200_000}}, Measured: burst{3, 500_000},
		RTT: 10 * time.Millisecond, SendBuffer: 4 << 20, Bound: 1000,
	}
	over := plain
	over.Name, over.TLS, over.Of = "tiny-tls", true, thePlain
	parts := plain
	parts.Name, parts.Measured, parts.Complete = "parts", burst{1, 40 << 20}, true
	cases := []bench{plain, over, parts}

	// The peer puts files where the store has them.
	peer := "echo {bucket} {key} {endpoint} >> " + dir + "/peer; for to in " + dir + "/bed-*/buckets/{bucket}; do cp {file} $to/{key}; done"
	o := options{pattern: regexp.MustCompile(""), rounds: 2, idle: time.Millisecond, peer: peer}
	if err := o.build(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	o.against = o.daemon
	files, err := makeFiles(fileDir, cases)
	if err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	c := contest{files: files, rounds: o.rounds, idle: o.idle, progress: o.newProgress(cases, &told), verbose: true}
	jobs, err := o.runOn(t.Context(), c, cases, dir)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) && strings.Contains(err.Error(), "tun") {
		t.Skipf("no link can be made here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, &told)
	}
	if !strings.Contains(told.String(), "22 of 22, 0s left: ") {
		t.Errorf("it was told:\n%s", &told)
	}
	r := newReport(o, cases, jobs)
	for i, want := range [][]string{{"ours", "before", "net/http", "peer"}, {"ours", "before", "peer"}, {"ours", "before", "net/http", "peer"}} {
		w := r.Rows[i]
		var who []string
		for _, res := range w.Results {
			who = append(who, res.Who)
			if len(res.All) != o.rounds || (res.Complete > 0) != (w.Case == parts.id() && (res.Who == "ours" || res.Who == "before")) {
				t.Errorf("%s, %s: %+v", w.Case, res.Who, res)
			}
			if res.Who != "peer" && res.Complete == 0 && res.Min < w.Limit {
				t.Errorf("%s, %s: %v s, the limit is %v s", w.Case, res.Who, res.Min, w.Limit)
			}
		}
		if fmt.Sprint(who) != fmt.Sprint(want) {
			t.Errorf("%s: %v", w.Case, who)
		}
		if !w.met() || w.Value == 0 {
			t.Errorf("%s: %v, at most %v", w.Case, w.Value, w.Bound)
		}
	}
	// Of the two cases of 1 and 3 files and the one of 1 and 1, each twice.
	lines, err := os.ReadFile(filepath.Join(dir, "peer"))
	if got := strings.Count(string(lines), "wan 0000 http"); err != nil || got != 12 || strings.Count(string(lines), "\n") != 20 {
		t.Errorf("the peer was run for:\n%s%v", lines, err)
	}
	o.peer = "true"
	if _, err := o.runOn(t.Context(), c, cases[:1], dir); err == nil || !strings.Contains(err.Error(), "10ms/tiny, peer: object 0000 of 1 is not in the store") {
		t.Errorf("of a peer that does nothing: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "bed-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := json.NewEncoder(io.Discard).Encode(r); err != nil {
		t.Error(err)
	}
}
