//go:build linux

package main

import (
	"context"
	"slices"
	"time"
)

// grace is how much longer than asked for a job may be idle.
const grace = time.Second

// A rota has jobs take turns: each is prepared, idle, and measured. While some
// are idle another is prepared, if that will be over before the first of them
// is due. One that was kept waiting all the same is prepared again, and then
// nothing comes between.
type rota struct {
	idle             time.Duration
	prepare, measure func(context.Context, *job) error

	waiting []*job // idle, in the order in which they are due
}

// turns is what the rota knows of a job.
type turns struct {
	due      time.Time     // the idle time is over
	prepares time.Duration // that it is expected to take
	measures time.Duration // that it is expected to take
	alone    bool          // nothing is prepared while it is idle
}

// run gives each job so many turns, round by round.
func (r *rota) run(ctx context.Context, jobs []*job, rounds int) error {
	var todo []*job
	for {
		if len(todo) == 0 && rounds > 0 {
			todo = slices.Clone(jobs)
			rounds--
		}
		if i, start := r.pick(todo); i >= 0 {
			j := todo[i]
			todo = slices.Delete(todo, i, i+1)
			if err := r.ready(ctx, j, start); err != nil {
				return err
			}
			continue
		}
		if len(r.waiting) == 0 {
			return nil
		}
		j := r.waiting[0]
		r.waiting = r.waiting[1:]
		if err := sleepUntil(ctx, j.due); err != nil {
			return err
		}
		if time.Since(j.due) > grace {
			j.alone = true
			todo = append(todo, j)
			continue
		}
		if err := timed(ctx, j, r.measure, &j.measures); err != nil {
			return err
		}
		j.alone = false
	}
}

// ready prepares a job, from start on.
func (r *rota) ready(ctx context.Context, j *job, start time.Time) error {
	err := sleepUntil(ctx, start)
	if err == nil {
		err = timed(ctx, j, r.prepare, &j.prepares)
	}
	j.due = time.Now().Add(r.idle)
	r.waiting = append(r.waiting, j)
	return err
}

// pick returns which job is to be prepared next, and when, or a negative number
// where there is time for none: the one that takes longest, for which there
// will be none later.
func (r *rota) pick(todo []*job) (best int, start time.Time) {
	best = -1
	for i, j := range todo {
		if at, ok := r.fits(j); ok && (best < 0 || j.prepares > todo[best].prepares) {
			best, start = i, at
		}
	}
	return best, start
}

// fits reports whether, and from when on, a job can be prepared such that no
// other is kept waiting by it, nor it by another.
func (r *rota) fits(j *job) (start time.Time, ok bool) {
	now := time.Now()
	if len(r.waiting) == 0 {
		return now, true
	}
	first, last := r.waiting[0], r.waiting[len(r.waiting)-1]
	if j.alone || first.alone || slices.Contains(r.waiting, j) {
		return now, false
	}
	start = last.due.Add(last.measures - r.idle - j.prepares)
	if start.Before(now) {
		start = now
	}
	return start, !start.Add(j.prepares).After(first.due)
}

// timed calls do, and has what it took be expected of the next time.
func timed(ctx context.Context, j *job, do func(context.Context, *job) error, took *time.Duration) error {
	begin := time.Now()
	err := do(ctx, j)
	*took = time.Since(begin)
	return err
}

func sleepUntil(ctx context.Context, t time.Time) error {
	select {
	case <-time.After(time.Until(t)):
		return ctx.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
