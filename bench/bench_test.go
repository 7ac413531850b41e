//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain lets the test binary be the children that the benchmark makes of
// itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "store" || os.Args[1] == "bare") {
		if err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestWholeRun runs everything once, briefly, against the daemon and the
// listener of this source tree, and looks at figures that must hold on any
// machine.
func TestWholeRun(t *testing.T) {
	o := options{workloads: []string{listener}}
	if err := o.build(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}

	t.Run("report", func(t *testing.T) {
		var stdout, stderr bytes.Buffer
		args := []string{"-quick", "-json", "-daemon", o.daemon, "-against", o.daemon, "-send", o.send}
		if err := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr); err != nil {
			t.Fatalf("%v\n%s", err, &stderr)
		}
		var r report
		dec := json.NewDecoder(&stdout)
		dec.DisallowUnknownFields()
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		checkReport(t, r)
		var text bytes.Buffer
		r.print(&text)
		for _, want := range []string{"bare PUT", "other daemon", "through send -listen", "1 at the status page", "goal: at most"} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("the text has no %q:\n%s", want, &text)
			}
		}
	})

	t.Run("a push that fails ends it", func(t *testing.T) {
		gone := []string{filepath.Join(t.TempDir(), "gone")}
		w := workload{Name: small, Pushes: 4, Callers: 2, Size: 1}
		_, err := measureDaemon(t.Context(), o.daemon, w, gone)
		if err == nil || !strings.Contains(err.Error(), "file_not_found") {
			t.Errorf("error is %v, want the daemon's own: file_not_found", err)
		}
	})
}

// checkReport checks a report of a quick run with -against.
func checkReport(t *testing.T, r report) {
	t.Helper()
	if len(r.Workloads) != 4 || len(r.Listener) != 2 {
		t.Fatalf("%d workloads and %d comparisons with the listener, want 4 and 2", len(r.Workloads), len(r.Listener))
	}
	for _, w := range r.Workloads {
		if w.Ratio.Min <= 0 || w.Ratio.Median < w.Ratio.Min || w.Ratio.Max < w.Ratio.Median {
			t.Errorf("%s: the ratio is %+v", w.Name, w.Ratio)
		}
		for subject, runs := range map[string][]measurement{"daemon": w.Daemon, "other": w.Against, "bare": w.Bare} {
			if len(runs) != r.Runs {
				t.Fatalf("%s, %s: %d runs, want %d", w.Name, subject, len(runs), r.Runs)
			}
			for _, m := range runs {
				sane := m.Pushes == w.Pushes && m.Bytes == int64(w.Pushes)*w.Size && m.Seconds > 0 &&
					m.PushesPerSec > 0 && m.MBPerSec > 0 && m.P50Millis > 0 && m.P99Millis >= m.P50Millis &&
					m.CPUPerPush > 0 && m.CPUPerGB > 0 && m.PeakMB > 1 && m.Connections > 0 && m.Connections <= 25
				if !sane {
					t.Errorf("%s, %s: %+v", w.Name, subject, m)
				}
			}
		}
	}
	for _, l := range r.Listener {
		for _, run := range l.Runs {
			if run.Pushes != l.Pushes || run.CPUPerPush <= 0 || run.PeakMB <= 1 || run.DirectPerSec <= 0 || run.ListenerPerSec <= 0 {
				t.Errorf("listener at %d callers: %+v", l.Callers, run)
			}
		}
	}
	if len(r.Watched) != 2 || r.Watched[0].PerSecond == 0 || r.Watched[1].PerSecond != 0 {
		t.Fatalf("watched: %+v", r.Watched)
	}
	for _, w := range r.Watched {
		if w.CPU.Median <= 0 || w.Rate.Median <= 0 || len(w.With) != 1 || len(w.Without) != 1 || w.With[0].CPUPerPush <= 0 {
			t.Errorf("watched at %d a second: %+v", w.PerSecond, w)
		}
		if most := float64(w.PerSecond) * 1.2; w.PerSecond > 0 && (w.With[0].PushesPerSec > most || w.Without[0].PushesPerSec > most) {
			t.Errorf("at %d a second there were %v and %v", w.PerSecond, w.With[0].PushesPerSec, w.Without[0].PushesPerSec)
		}
	}
	if len(r.Verdicts) != 14 {
		t.Errorf("%d verdicts, want 14: %+v", len(r.Verdicts), r.Verdicts)
	}
}

func TestParse(t *testing.T) {
	tests := []struct {
		args string
		want string // in what the user is told; empty: accepted
	}{
		{"", ""},
		{"-quick -workloads large,large-md5,large-silent", ""},
		{"-workloads small,huge", `"huge"`},
		{"-n 0", "must be at least 1"},
		{"-small-size 0", "workload small"},
		{"-large-callers 0", "workload large"},
		{"-listener-pushes 0", "workload listener"},
		{"-watchers 0", "must be at least 1"},
		{"-watched-pushes 0", "workload watched"},
		{"-watched-rate -1", "workload watched"},
		{"now", `"now"`},
		{"-nonsense", "-nonsense"},
	}
	for _, tt := range tests {
		var stderr bytes.Buffer
		_, err := parse(strings.Fields(tt.args), &stderr)
		if tt.want == "" && err != nil {
			t.Errorf("parse(%q): %v", tt.args, err)
		}
		if tt.want != "" && (!errors.As(err, new(usageError)) || !strings.Contains(stderr.String(), tt.want)) {
			t.Errorf("parse(%q): error %v, and the user is told %q", tt.args, err, &stderr)
		}
	}
}

func TestDeliver(t *testing.T) {
	r := &report{Listener: []listenerReport{{
		workload: workload{Callers: 1},
		Runs:     []listenerRun{{CPUPerPush: 0.1, AddedMillis: 7}},
	}}}
	r.judge()
	if n := r.missed(); n != 1 {
		t.Fatalf("%d goals missed, want 1: %+v", n, r.Verdicts)
	}
	var out bytes.Buffer
	if err := (options{}).deliver(r, &out); err != nil {
		t.Errorf("without -check: %v", err)
	}
	if !strings.Contains(out.String(), "MISSED  time that the listener adds to a push") {
		t.Errorf("no word of what was missed:\n%s", &out)
	}
	if err := (options{check: true, asJSON: true}).deliver(r, io.Discard); err == nil {
		t.Error("with -check a missed goal is no error")
	}
}
