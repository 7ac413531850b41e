package batch

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/client"
)

// fake is a daemon whose answers a test gives.
type fake struct {
	submit func(ctx context.Context, s client.Submission, nth int) (client.Answer, error)
	get    func(ctx context.Context, id string, wait time.Duration, nth int) (client.Answer, error)
	list   func(ctx context.Context, q client.Query, nth int) (push.Page, error)

	mu          sync.Mutex
	submissions []client.Submission // guarded by mu
	gets, lists int                 // guarded by mu
}

func (f *fake) Submit(ctx context.Context, s client.Submission) (client.Answer, error) {
	f.mu.Lock()
	f.submissions = append(f.submissions, s)
	nth := 0
	for _, other := range f.submissions {
		if other.File == s.File {
			nth++
		}
	}
	f.mu.Unlock()
	return f.submit(ctx, s, nth)
}

func (f *fake) Get(ctx context.Context, id string, wait time.Duration) (client.Answer, error) {
	f.mu.Lock()
	f.gets++
	nth := f.gets
	f.mu.Unlock()
	return f.get(ctx, id, wait, nth)
}

func (f *fake) List(ctx context.Context, q client.Query) (push.Page, error) {
	f.mu.Lock()
	f.lists++
	nth := f.lists
	f.mu.Unlock()
	return f.list(ctx, q, nth)
}

// aMinute is the patience of most tests.
var aMinute = Patience{For: time.Minute}

// keys returns the different Idempotency-Keys that were sent.
func (f *fake) keys() []string {
	var keys []string
	for _, s := range f.submissions {
		keys = append(keys, s.Key)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Answers that a daemon gives, as package client returns them.

func is(state push.State) client.Answer {
	return client.Answer{Receipt: push.Receipt{ID: "7", State: state}, Body: []byte(`{"id":"7"}`)}
}

func problem(code push.Code, id string, retryAfter time.Duration) error {
	return &client.ProblemError{Err: &push.Error{Code: code, Detail: "no", RetryAfter: retryAfter}, ID: id, Body: []byte(`{"detail":"no"}`)}
}

// refusal is an answer after which nothing was done.
func refusal(code push.Code, id string, retryAfter time.Duration) error {
	return fmt.Errorf("%w%w", client.ErrNotTaken, problem(code, id, retryAfter))
}

var (
	gone = &client.UnreachableError{Where: "there", Err: context.DeadlineExceeded}
	lost = &client.LostError{Where: "there", Push: true, Err: context.DeadlineExceeded}
)

// observed keeps what an Observer is told.
type observed struct {
	mu       sync.Mutex
	news     int       // guarded by mu
	outcomes []Outcome // guarded by mu
}

func (o *observed) News(Item, push.Receipt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.news++
}

func (o *observed) Ended(outcome Outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.outcomes = append(o.outcomes, outcome)
}

// items returns n of them.
func items(n int) []Item {
	list := make([]Item, n)
	for i := range list {
		list[i] = Item{Index: i, Name: fmt.Sprint(i), File: fmt.Sprintf("/%d", i), Destination: fmt.Sprintf("s3://bkt/%d", i)}
	}
	return list
}
