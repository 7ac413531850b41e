//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// A pusher has files reach the store.
type pusher interface {
	// push puts n copies of a file of that size under key(0) to key(n-1), all
	// at once, and returns when the store has them.
	push(ctx context.Context, file string, size int64, n int) error
	stop() error
}

// A contestant is a kind of pusher: a column of the table.
type contestant struct {
	name string
	open func(ctx context.Context, b bench, on *bed) (pusher, error)
	path string           // of the daemon; empty: it is none
	in   func(bench) bool // the cases that it takes part in
}

// A job is a contestant in a case.
type job struct {
	bench
	who    contestant
	bed    *bed
	pusher pusher
	due    time.Time // the idle time is over

	complete time.Duration // what is taken off
	times    []time.Duration
	idle     time.Duration // the longest that there was
	dropped  int64         // packets, while it was timed
}

// A contest runs the jobs of a host's settings.
type contest struct {
	files    map[int64]string // by size
	rounds   int
	idle     time.Duration
	progress io.Writer
	verbose  bool
}

// run runs all jobs in turns, round by round. While one is idle others push,
// each over the link of its own case; where two of them share it, that is
// idle too from the point of view of their connections. The idle time is a
// little longer than asked for where another job takes its time.
func (c contest) run(ctx context.Context, jobs []*job) error {
	var waiting []*job // idle, in the order in which they are due
	for round := range c.rounds {
		for i, j := range jobs {
			// None is prepared again before it was measured, or while
			// another is due.
			for len(waiting) > 0 && (slices.Contains(waiting, j) || !time.Now().Before(waiting[0].due)) {
				if err := c.measure(ctx, waiting[0]); err != nil {
					return err
				}
				waiting = waiting[1:]
			}
			fmt.Fprintf(c.progress, "round %d of %d, %d of %d: %s, %s\n", round+1, c.rounds, i+1, len(jobs), j.id(), j.who.name)
			if err := c.prepare(ctx, j); err != nil {
				return j.wrap(err)
			}
			waiting = append(waiting, j)
		}
	}
	for _, j := range waiting {
		if err := c.measure(ctx, j); err != nil {
			return err
		}
	}
	return nil
}

func (j *job) wrap(err error) error { return fmt.Errorf("%s, %s: %w", j.id(), j.who.name, err) }

// prepare does what comes before the idle time.
func (c contest) prepare(ctx context.Context, j *job) error {
	if j.Fresh && j.pusher != nil {
		if err := j.stop(); err != nil {
			return err
		}
	}
	if j.pusher == nil {
		if err := c.open(ctx, j); err != nil {
			return err
		}
	}
	for range j.Repeat {
		if err := c.push(ctx, j, j.Before); err != nil {
			return err
		}
	}
	j.due = time.Now().Add(c.idle)
	return nil
}

// open starts the job's pusher.
func (c contest) open(ctx context.Context, j *job) error {
	var err error
	if j.Complete && j.who.path != "" {
		if j.complete, err = completeTime(ctx, j.who.path, j.bed, c.files[j.Measured.Size], j.Measured.Size); err != nil {
			return err
		}
	}
	j.pusher, err = j.who.open(ctx, j.bench, j.bed)
	return err
}

func (c contest) push(ctx context.Context, j *job, b burst) error {
	if err := j.pusher.push(ctx, c.files[b.Size], b.Size, b.Files); err != nil {
		return err
	}
	return j.bed.empty()
}

// measure waits until the job is due and times it.
func (c contest) measure(ctx context.Context, j *job) error {
	select {
	case <-time.After(time.Until(j.due)):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	j.idle = max(j.idle, c.idle+time.Since(j.due))
	before := j.bed.link.Near.Sent()
	begin := time.Now()
	err := j.pusher.push(ctx, c.files[j.Measured.Size], j.Measured.Size, j.Measured.Files)
	took := time.Since(begin) - j.complete
	if err = errors.Join(err, j.bed.empty()); err != nil {
		return j.wrap(err)
	}
	after := j.bed.link.Near.Sent()
	j.times = append(j.times, took)
	j.dropped += after.Overflows - before.Overflows + after.Losses - before.Losses
	fmt.Fprintf(c.progress, "  %s, %s: %.3f s, %.2f of the limit\n", j.id(), j.who.name, took.Seconds(), took.Seconds()/j.limit().Seconds())
	return c.explain(ctx, j)
}

// explain prints what a daemon says of its connections, if that is wanted.
func (c contest) explain(ctx context.Context, j *job) error {
	d, ok := j.pusher.(*daemon)
	if !ok || !c.verbose {
		return nil
	}
	facts, err := d.metrics(ctx)
	if err != nil {
		return j.wrap(err)
	}
	var lines []string
	for name, v := range facts {
		if strings.HasPrefix(name, "s3daemon_pool_") || strings.HasPrefix(name, "s3daemon_tcp_") {
			lines = append(lines, fmt.Sprintf("    %s %g\n", name, v))
		}
	}
	slices.Sort(lines)
	_, err = io.WriteString(c.progress, strings.Join(lines, ""))
	return err
}

func (j *job) stop() error {
	if j.pusher == nil {
		return nil
	}
	err := j.pusher.stop()
	j.pusher = nil
	return err
}

// key names the i-th object of a burst.
func key(i int) string { return fmt.Sprintf("%04d", i) }

// atOnce calls one with 0 to n-1 at the same time. The first error ends the
// others.
func atOnce(ctx context.Context, n int, one func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := one(ctx, i); err != nil {
				cancel(fmt.Errorf("file %d of %d: %w", i+1, n, err))
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
