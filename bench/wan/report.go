//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A report is everything that one call of the benchmark found out.
type report struct {
	Rounds int     `json:"rounds"`
	Idle   float64 `json:"idle_seconds"`
	Busy   float64 `json:"busy_at_start"` // share of the processors
	Rows   []row   `json:"cases"`
}

// A row is a case and what has come out.
type row struct {
	Case    string   `json:"case"`
	Limit   float64  `json:"limit_seconds"`
	Results []result `json:"results"`         // ours first
	Bound   float64  `json:"bound,omitempty"` // 0: there is none
	Of      string   `json:"bound_of"`
	Value   float64  `json:"value,omitempty"` // to be compared with the bound; 0: what it is of was not measured
}

// A result is what a contestant has needed, in seconds.
type result struct {
	Who      string    `json:"who"`
	Median   float64   `json:"median"`
	Ratio    float64   `json:"ratio_to_limit"` // of the median
	Min      float64   `json:"min"`
	Max      float64   `json:"max"`
	All      []float64 `json:"all"`
	Complete float64   `json:"complete,omitempty"` // of the store, taken off
	Idle     float64   `json:"longest_idle"`
	Dropped  int64     `json:"packets_dropped"` // in all
	Late     float64   `json:"packets_late"`    // share of all, in the push that had most of them
}

// mostLate and mostBusy are shares of the packets and of the processors beyond
// which there is nothing to judge by: a real link does not wait for a processor.
const (
	mostLate = 0.01
	mostBusy = 0.2
)

// newReport puts together what the jobs have found out, in the order of the
// cases.
func newReport(o options, cases []bench, jobs []*job) *report {
	r := &report{Rounds: o.rounds, Idle: o.idle.Seconds()}
	for _, b := range cases {
		w := row{Case: b.id(), Limit: b.limit().Seconds(), Bound: b.Bound}
		for _, j := range jobs {
			if j.id() == b.id() {
				w.Results = append(w.Results, newResult(j))
			}
		}
		r.Rows = append(r.Rows, w)
	}
	for i, b := range cases {
		r.judge(&r.Rows[i], b)
	}
	return r
}

func newResult(j *job) result {
	all := make([]float64, len(j.times))
	for i, t := range j.times {
		all[i] = t.Seconds()
	}
	sorted := slices.Sorted(slices.Values(all))
	return result{
		Who:      j.who.name,
		Median:   median(sorted),
		Ratio:    median(sorted) / j.limit().Seconds(),
		Min:      sorted[0],
		Max:      sorted[len(sorted)-1],
		All:      all,
		Complete: j.complete.Seconds(),
		Idle:     j.idle.Seconds(),
		Dropped:  j.dropped,
		Late:     j.late,
	}
}

// median is that of sorted values, of which there is at least one.
func median(sorted []float64) float64 {
	mid := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[mid-1] + sorted[mid]) / 2
	}
	return sorted[mid]
}

// judge compares our median with what the case's bound is of.
func (r *report) judge(w *row, b bench) {
	ours := w.Results[0].Median
	switch b.Of {
	case theLimit:
		w.Of, w.Value = "limit", w.Results[0].Ratio
	case thePlain:
		w.Of = "plain"
		for _, plain := range r.Rows {
			if plain.Case == b.plainID() {
				w.Value = ours / plain.Results[0].Median
			}
		}
	case netHTTP:
		w.Of = "net/http"
		if other, ok := w.of("net/http"); ok {
			w.Value = ours / other.Median
		}
	}
}

// of returns the result of a contestant.
func (w row) of(who string) (result, bool) {
	i := slices.IndexFunc(w.Results, func(r result) bool { return r.Who == who })
	if i < 0 {
		return result{}, false
	}
	return w.Results[i], true
}

func (w row) met() bool { return w.Bound == 0 || w.Value <= w.Bound }

// missed counts the bounds that were not met.
func (r *report) missed() int {
	n := 0
	for _, w := range r.Rows {
		if !w.met() {
			n++
		}
	}
	return n
}

// others are the contestants beside ours, in their order.
func (r *report) others() []string {
	var names []string
	for _, w := range r.Rows {
		for _, res := range w.Results[1:] {
			if !slices.Contains(names, res.Who) {
				names = append(names, res.Who)
			}
		}
	}
	return names
}

// print prints the table.
func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "Medians of %d, with the least and the most, in seconds, after %v idle, and their ratios to the limit.\n\n",
		r.Rounds, time.Duration(r.Idle*float64(time.Second)))
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	others := r.others()
	head := []string{"case", "limit", "ours", "ratio", "at most", ""}
	for _, who := range others {
		head = append(head, who, "ratio")
	}
	fmt.Fprintln(tw, strings.Join(head, "\t"))
	for _, w := range r.Rows {
		cells := append([]string{w.Case, fmt.Sprintf("%.3f", w.Limit)}, w.Results[0].cells()...)
		cells = append(cells, w.bound(), w.verdict())
		for _, who := range others {
			if res, ok := w.of(who); ok {
				cells = append(cells, res.cells()...)
			} else {
				cells = append(cells, "", "")
			}
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	tw.Flush()
	fmt.Fprintln(out)
	for _, note := range r.notes() {
		fmt.Fprintln(out, note)
	}
}

// notes are what is to be known to who reads the table.
func (r *report) notes() []string {
	notes := []string{fmt.Sprintf("The longest idle time was %.1f s.", r.most(func(res result) float64 { return res.Idle }))}
	for _, w := range r.Rows {
		if peer, ok := w.of("peer"); ok && w.Results[0].Complete > 0 && peer.Complete == 0 {
			notes = append(notes, fmt.Sprintf("%s: the store's own time for CompleteMultipartUpload is taken off for daemons, not for the peer.", w.Case))
		}
	}
	if late := r.most(func(res result) float64 { return res.Late }); late > mostLate {
		notes = append(notes, fmt.Sprintf("The machine was too busy to judge by this: of one push %.0f %% of the packets were late.", 100*late))
	}
	if r.Busy > mostBusy {
		notes = append(notes, fmt.Sprintf("The machine was too busy to judge by this: of its processors %.0f %% were taken before the start.", 100*r.Busy))
	}
	return notes
}

// most returns the largest that any result has of something.
func (r *report) most(of func(result) float64) float64 {
	var most float64
	for _, w := range r.Rows {
		for _, res := range w.Results {
			most = max(most, of(res))
		}
	}
	return most
}

func (w row) bound() string {
	switch {
	case w.Bound == 0:
		return ""
	case w.Of == "limit":
		return fmt.Sprintf("%.2f", w.Bound)
	}
	return fmt.Sprintf("%.2f of %s", w.Bound, w.Of)
}

func (w row) verdict() string {
	switch {
	case w.Bound == 0:
		return "not judged"
	case w.Value == 0:
		return "not compared"
	case !w.met():
		return fmt.Sprintf("missed (%.2f)", w.Value)
	case w.Of != "limit":
		return fmt.Sprintf("met (%.2f)", w.Value)
	}
	return "met"
}

// cells are what a result has in the table.
func (r result) cells() []string {
	return []string{fmt.Sprintf("%.3f (%.3f to %.3f)", r.Median, r.Min, r.Max), fmt.Sprintf("%.2f", r.Ratio)}
}
