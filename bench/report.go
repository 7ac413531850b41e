//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// The goals. A push through the daemon may cost this much CPU time and memory;
// one through the listener this much more.
const (
	goalCPUPerPush   = 0.30 // ms, small files
	goalCPUPerGB     = 0.90 // s, large files, the store echoing CRC64NVME
	goalCPUPerGBMD5  = 2.60 // s, large files, with MD5
	goalRatio        = 2.2  // times the bare PUT's CPU for a GB
	goalPeakMB       = 40.0 // resident
	goalListenerCPU  = 0.2  // ms of the listener's own, a push
	goalListenerTime = 1.0  // ms added to the median push of a lone caller
	goalWatched      = 3.0  // % that is lost to one who looks at the status page
)

// A report is everything that one call of the benchmark found out.
type report struct {
	Go        string           `json:"go"`
	CPUs      int              `json:"cpus"`
	Runs      int              `json:"runs"`
	Workloads []workloadReport `json:"workloads"`
	Listener  []listenerReport `json:"listener,omitempty"`
	Watched   []watchedReport  `json:"watched,omitempty"`
	Verdicts  []verdict        `json:"verdicts"`
}

// A workloadReport has the runs of a workload in the order they were made:
// the first of Daemon, then of Against, then of Bare, then the second of each.
type workloadReport struct {
	workload
	Daemon  []measurement `json:"daemon"`
	Against []measurement `json:"against,omitempty"` // of another build
	Bare    []measurement `json:"bare"`
	Ratio   spread        `json:"cpu_daemon_to_bare"` // of the runs made together
}

// A listenerReport has the runs of the comparison for one number of callers.
type listenerReport struct {
	workload
	Runs []listenerRun `json:"runs"`
}

// A verdict compares a median with its goal.
type verdict struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Goal  float64 `json:"goal"` // at most
	Unit  string  `json:"unit"`
	Met   bool    `json:"met"`
}

// A spread is how a figure varies from run to run.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf returns the spread of a figure of the runs, of which there is at
// least one.
func spreadOf[T any](runs []T, figure func(T) float64) spread {
	v := make([]float64, len(runs))
	for i, r := range runs {
		v[i] = figure(r)
	}
	slices.Sort(v)
	mid := len(v) / 2
	median := v[mid]
	if len(v)%2 == 0 {
		median = (v[mid-1] + v[mid]) / 2
	}
	return spread{Median: median, Min: v[0], Max: v[len(v)-1]}
}

// ratioOf returns the spread of a's CPU time to b's, run by run.
func ratioOf(a, b []measurement) spread { return ratiosOf(a, b, cpuPerPush) }

// ratiosOf returns the spread of a figure of a to that of b, run by run: runs made
// right after each other met the same machine.
func ratiosOf(a, b []measurement, figure func(measurement) float64) spread {
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = figure(a[i]) / figure(b[i])
	}
	return spreadOf(ratios, func(r float64) float64 { return r })
}

// judge adds the verdicts on everything that the report has.
func (r *report) judge() {
	add := func(what string, value, goal float64, unit string) {
		r.Verdicts = append(r.Verdicts, verdict{What: what, Value: value, Goal: goal, Unit: unit, Met: value <= goal})
	}
	for _, w := range r.Workloads {
		switch w.Name {
		case small:
			add("CPU a small push", spreadOf(w.Daemon, cpuPerPush).Median, goalCPUPerPush, "ms")
		case large:
			add("CPU a GB, "+w.Name, spreadOf(w.Daemon, cpuPerGB).Median, goalCPUPerGB, "s")
			add("CPU a GB, "+w.Name+", times the bare PUT", w.Ratio.Median, goalRatio, "")
		case largeMD5, largeSilent:
			add("CPU a GB, "+w.Name, spreadOf(w.Daemon, cpuPerGB).Median, goalCPUPerGBMD5, "s")
		}
		add("peak memory, "+w.Name, spreadOf(w.Daemon, peakMB).Median, goalPeakMB, "MB")
	}
	for _, w := range r.Watched {
		if w.PerSecond > 0 {
			add(fmt.Sprintf("CPU added by the status page at %d pushes/s", w.PerSecond), 100*(w.CPU.Median-1), goalWatched, "%")
		} else {
			add("pushes/s lost to the status page", 100*(1-w.Rate.Median), goalWatched, "%")
		}
	}
	for _, l := range r.Listener {
		add(fmt.Sprintf("CPU of the listener a push, callers: %d", l.Callers),
			spreadOf(l.Runs, func(r listenerRun) float64 { return r.CPUPerPush }).Median, goalListenerCPU, "ms")
		// With more callers than processors every microsecond of work is waited
		// for by all of them, so that only a lone one shows what a push takes.
		if l.Callers == 1 {
			add("time that the listener adds to a push",
				spreadOf(l.Runs, func(r listenerRun) float64 { return r.AddedMillis }).Median, goalListenerTime, "ms")
		}
	}
}

// missed counts the goals that were not met.
func (r *report) missed() int {
	n := 0
	for _, v := range r.Verdicts {
		if !v.Met {
			n++
		}
	}
	return n
}

func cpuPerPush(m measurement) float64 { return m.CPUPerPush }
func perSecond(m measurement) float64  { return m.PushesPerSec }
func cpuPerGB(m measurement) float64   { return m.CPUPerGB }
func peakMB(m measurement) float64     { return m.PeakMB }

// A row is one line of a table: a figure and how exactly to print it.
type row[T any] struct {
	name   string
	digits int
	figure func(T) float64
}

// rowsOf returns the rows of a workload's table. What small files make of
// bytes says nothing.
func rowsOf(w workload) []row[measurement] {
	rate := []row[measurement]{{"pushes/s", 1, func(m measurement) float64 { return m.PushesPerSec }}}
	cpu := []row[measurement]{{"CPU a push, ms", 3, cpuPerPush}}
	if w.Name != small {
		rate = append(rate, row[measurement]{"MB/s", 0, func(m measurement) float64 { return m.MBPerSec }})
		cpu = append(cpu, row[measurement]{"CPU a GB, s", 3, cpuPerGB})
	}
	return slices.Concat(rate, []row[measurement]{
		{"p50, ms", 2, func(m measurement) float64 { return m.P50Millis }},
		{"p99, ms", 2, func(m measurement) float64 { return m.P99Millis }},
	}, cpu, []row[measurement]{
		{"peak memory, MB", 1, peakMB},
		{"connections to the store", 0, func(m measurement) float64 { return float64(m.Connections) }},
	})
}

var watchedRows = []row[measurement]{
	{"pushes/s", 1, perSecond},
	{"p50, ms", 2, func(m measurement) float64 { return m.P50Millis }},
	{"p99, ms", 2, func(m measurement) float64 { return m.P99Millis }},
	{"CPU a push, ms", 3, cpuPerPush},
}

var listenerRows = []row[listenerRun]{
	{"pushes/s, direct", 1, func(r listenerRun) float64 { return r.DirectPerSec }},
	{"pushes/s, listener", 1, func(r listenerRun) float64 { return r.ListenerPerSec }},
	{"p50 direct, ms", 2, func(r listenerRun) float64 { return r.DirectMillis }},
	{"p50 listener, ms", 2, func(r listenerRun) float64 { return r.ListenerMillis }},
	{"p50 added, ms", 2, func(r listenerRun) float64 { return r.AddedMillis }},
	{"listener's CPU a push, ms", 3, func(r listenerRun) float64 { return r.CPUPerPush }},
	{"listener's peak, MB", 1, func(r listenerRun) float64 { return r.PeakMB }},
}

// print writes the report for a person.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %d CPUs. Each figure: median (least to most) of %d runs.\n", r.Go, r.CPUs, r.Runs)
	for _, wl := range r.Workloads {
		heads, columns := []string{"daemon"}, [][]measurement{wl.Daemon}
		if wl.Against != nil {
			heads, columns = append(heads, "other daemon"), append(columns, wl.Against)
		}
		heads, columns = append(heads, "bare PUT"), append(columns, wl.Bare)
		table(w, title(wl.workload), heads, rowsOf(wl.workload), columns)
		fmt.Fprintf(w, "  daemon's CPU to the bare PUT's: %s\n", wl.Ratio.text(2))
		if wl.Against != nil {
			fmt.Fprintf(w, "  daemon's CPU to the other daemon's: %s\n", ratioOf(wl.Daemon, wl.Against).text(2))
		}
	}
	for _, l := range r.Listener {
		table(w, title(l.workload), []string{"through send -listen"}, listenerRows, [][]listenerRun{l.Runs})
	}
	for _, wr := range r.Watched {
		heads := []string{"nobody looks", fmt.Sprintf("%d at the status page", wr.Watchers)}
		table(w, title(wr.workload), heads, watchedRows, [][]measurement{wr.Without, wr.With})
		fmt.Fprintf(w, "  with to without, of %d pairs: CPU %s, pushes/s %s\n", len(wr.With), wr.CPU.text(3), wr.Rate.text(3))
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, v := range r.Verdicts {
		word := "met"
		if !v.Met {
			word = "MISSED"
		}
		value, goal := number(v.Value, 2), number(v.Goal, 2)
		fmt.Fprintf(tw, "%s\t%s\t%s\tgoal: at most %s\n", word, v.What, strings.TrimSpace(value+" "+v.Unit), strings.TrimSpace(goal+" "+v.Unit))
	}
	tw.Flush()
}

func title(w workload) string {
	text := fmt.Sprintf("%s: %s pushes of %s B at %d callers", w.Name, number(float64(w.Pushes), 0), number(float64(w.Size), 0), w.Callers)
	if w.PerSecond > 0 {
		text += fmt.Sprintf(", %s a second", number(float64(w.PerSecond), 0))
	}
	return text
}

// table writes one table, with a column for each set of runs.
func table[T any](w io.Writer, title string, heads []string, rows []row[T], columns [][]T) {
	fmt.Fprintf(w, "\n%s\n", title)
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(tw, "  \t%s\n", strings.Join(heads, "\t"))
	for _, r := range rows {
		cells := make([]string, len(columns))
		for i, runs := range columns {
			cells[i] = spreadOf(runs, r.figure).text(r.digits)
		}
		fmt.Fprintf(tw, "  %s\t%s\n", r.name, strings.Join(cells, "\t"))
	}
	tw.Flush()
}

func (s spread) text(digits int) string {
	if s.Min == s.Max {
		return number(s.Median, digits)
	}
	return fmt.Sprintf("%s (%s to %s)", number(s.Median, digits), number(s.Min, digits), number(s.Max, digits))
}

// number writes v with so many digits after the point, and its thousands
// apart.
func number(v float64, digits int) string {
	text := fmt.Sprintf("%.*f", digits, v)
	whole, rest := text, ""
	if i := strings.IndexByte(text, '.'); i >= 0 {
		whole, rest = text[:i], text[i:]
	}
	first := 0
	if strings.HasPrefix(whole, "-") {
		first = 1
	}
	for i := len(whole) - 3; i > first; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	return whole + rest
}
