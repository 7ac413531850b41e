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

	"github.com/lsst-dm/s3daemon/internal/link"
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
	turns

	complete time.Duration // what is taken off
	times    []time.Duration
	idle     time.Duration // the longest that there was
	dropped  int64         // packets, while it was timed
	late     float64       // the share of packets that left late, in the push that had most of them
}

// A contest runs the jobs of a host's settings.
type contest struct {
	files    map[int64]string // by size
	rounds   int
	idle     time.Duration
	progress *progress
	verbose  bool
}

// pushTimeout bounds how long what is pushed at once may take.
const pushTimeout = 5 * time.Minute

// run runs all jobs in turns. While one is idle others push, each over the link
// of its own case; where two of them share it, that is idle too from the point
// of view of their connections.
func (c contest) run(ctx context.Context, jobs []*job) error {
	for _, j := range jobs {
		j.turns = j.expected()
	}
	r := rota{idle: c.idle, prepare: c.prepare, measure: c.measure}
	return r.run(ctx, jobs, c.rounds)
}

// expected is what a job's first turn is expected to take, rather too much than
// too little. What it does take is known from then on.
func (j *job) expected() turns {
	const start, complete, warm = time.Second, 5 * time.Second, 5 * time.Second
	slower := time.Duration(2)
	if j.who.path == "" {
		slower = 12
	}
	t := turns{prepares: start, measures: slower * j.limit()}
	for _, before := range j.Before {
		t.prepares += slower * limit(j.RTT, before)
	}
	if j.Complete {
		t.prepares += complete
	}
	if j.Fresh {
		t.prepares += warm
	}
	return t
}

// wrap has an error say whose it is.
func (j *job) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s, %s: %w", j.id(), j.who.name, err)
}

// prepare does what comes before the idle time.
func (c contest) prepare(ctx context.Context, j *job) error { return j.wrap(c.prepareJob(ctx, j)) }

func (c contest) prepareJob(ctx context.Context, j *job) error {
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
	for _, before := range j.Before {
		if _, err := c.push(ctx, j, before); err != nil {
			return err
		}
	}
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

// push pushes files, has the store be asked whether it got them, and returns
// how long that has taken before.
func (c contest) push(ctx context.Context, j *job, b burst) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pushTimeout, fmt.Errorf("it has taken more than %v", pushTimeout))
	defer cancel()
	begin := time.Now()
	err = j.pusher.push(ctx, c.files[b.Size], b.Size, b.Files)
	took = time.Since(begin)
	if err == nil {
		err = j.bed.has(b.Files, b.Size)
	}
	return took, errors.Join(err, j.bed.empty())
}

// measure times a job.
func (c contest) measure(ctx context.Context, j *job) error {
	j.idle = max(j.idle, c.idle+time.Since(j.due))
	before := j.bed.link.Sent()
	took, err := c.push(ctx, j, j.Measured)
	if err != nil {
		return j.wrap(err)
	}
	took -= j.complete
	j.times = append(j.times, took)
	j.count(before, j.bed.link.Sent())
	c.progress.timed()
	fmt.Fprintf(c.progress, "%s, %s: %.3f s, %.2f of the limit\n", j.id(), j.who.name, took.Seconds(), took.Seconds()/j.limit().Seconds())
	return c.explain(ctx, j)
}

// count keeps account of what the link has done to the packets of one push.
func (j *job) count(before, after link.Counts) {
	j.dropped += after.Overflows - before.Overflows + after.Losses - before.Losses
	if n := after.Packets - before.Packets; n > 0 {
		j.late = max(j.late, float64(after.Late-before.Late)/float64(n))
	}
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
