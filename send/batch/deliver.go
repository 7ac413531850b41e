package batch

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/client"
)

const (
	// longPoll is for how long the daemon is asked to hold its answer where
	// nothing but the end is of interest.
	longPoll = time.Minute
	// pace is the time from one question about a push to the next at least, so
	// that a daemon which answers at once is not asked all the time.
	pace = 200 * time.Millisecond
)

// deliver asks for the push until there is an outcome. Without one it returns
// an error and how far the push has come.
func (r *run) deliver(ctx context.Context, item Item) (Outcome, phase, error) {
	if ctx.Err() != nil {
		return Outcome{}, untouched, context.Cause(ctx)
	}
	s := client.Submission{
		File: item.File, Destination: item.Destination, Label: r.Label, Key: rand.Text(),
		CreateOnly: r.CreateOnly, Async: r.Async || r.Watch > 0,
	}
	last := untouched
	a, err := persist(ctx, &r.patience, func() (client.Answer, error) {
		a, err := r.Daemon.Submit(ctx, s)
		last = last.after(err)
		return a, err
	})
	for err == nil && !r.Async && !a.Receipt.State.Ended() {
		r.Observer.News(item, a.Receipt)
		a, err = r.look(ctx, a.Receipt.ID)
	}
	if problem, is := errors.AsType[*client.ProblemError](err); is && !isGaveUp(err) {
		return Outcome{Item: item, JSON: problem.Body, Err: problem}, last, nil
	}
	if err != nil {
		return Outcome{}, last, err
	}
	return conclude(item, a), last, nil
}

// look waits for news of an accepted push.
func (r *run) look(ctx context.Context, id string) (client.Answer, error) {
	wait := r.Watch
	if wait == 0 {
		wait = longPoll
	}
	return paced(ctx, func() (client.Answer, error) {
		return persist(ctx, &r.patience, func() (client.Answer, error) { return r.Daemon.Get(ctx, id, wait) })
	}, func(a client.Answer) bool { return a.Receipt.State.Ended() })
}

// paced calls ask, and takes pace for it at least unless the answer is what was
// waited for.
func paced[T any](ctx context.Context, ask func() (T, error), settled func(T) bool) (T, error) {
	begun := time.Now()
	answer, err := ask()
	if err == nil && !settled(answer) {
		err = sleep(ctx, pace-time.Since(begun))
	}
	return answer, err
}

// conclude turns the last answer about a push into its outcome.
func conclude(item Item, a client.Answer) Outcome {
	o := Outcome{Item: item, Receipt: a.Receipt, JSON: a.Body}
	if s := a.Receipt.State; s == push.Failed || s == push.Cancelled {
		problem := Problem(a.Receipt)
		o.Err, o.JSON = problem, problem.Body
	}
	return o
}

// Problem is why a push ended that failed or was cancelled.
func Problem(r push.Receipt) *client.ProblemError {
	p := push.Problem{Code: push.WasCancelled, Detail: "the push was cancelled"}
	if r.State == push.Failed {
		p = push.Problem{Code: push.Internal, Detail: "the push failed, and the daemon does not say why"}
	}
	if r.Problem != nil {
		p = *r.Problem
	}
	p.ID = r.ID
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return &client.ProblemError{
		Err: &push.Error{Code: p.Code, Detail: p.Detail, Store: p.Store},
		ID:  p.ID, Body: body,
	}
}
