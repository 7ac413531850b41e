//go:build linux

package main

import (
	"fmt"
	"io"
	"time"
)

// A progress tells on out what has come out so far, and, when a fifth of it has,
// about how long the rest will take: it begins with what takes longest.
type progress struct {
	out   io.Writer
	total int // how often something is timed
	done  int
	begin time.Time
}

// timed tells that something was timed, in front of the line that says what.
func (p *progress) timed() {
	p.done++
	fmt.Fprintf(p.out, "%d of %d", p.done, p.total)
	if 5*p.done >= p.total {
		left := time.Since(p.begin) / time.Duration(p.done) * time.Duration(p.total-p.done)
		fmt.Fprintf(p.out, ", %v left", left.Round(time.Second))
	}
	fmt.Fprint(p.out, ": ")
}

// Write prints text.
func (p *progress) Write(text []byte) (int, error) { return p.out.Write(text) }
