package client

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/lsst-dm/s3daemon/push"
)

// judge turns an answer into the outcome of the push. Only one answer is
// success: 200 with a receipt in state done. A 202 in particular is not.
func (d *Daemon) judge(r reply) error {
	if r.status == http.StatusOK && r.media == "application/json" {
		var receipt struct { // of push.Receipt, what is of interest
			ID    string     `json:"id"`
			State push.State `json:"state"`
		}
		if err := json.Unmarshal(r.body, &receipt); err != nil {
			return fmt.Errorf("the answer of the daemon at %s is no receipt: %w", d.where, err)
		}
		if receipt.State != push.Done {
			return fmt.Errorf("the daemon at %s answered while the push %s was %s, not done",
				d.where, push.Quote(receipt.ID), push.Quote(string(receipt.State)))
		}
		return nil
	}
	if r.status == http.StatusAccepted && r.media != "application/problem+json" {
		return fmt.Errorf("the daemon at %s accepted the push and did not wait for its end (HTTP 202): it is not known to be done", d.where)
	}
	return d.refusal(r)
}

// refusal is the error of an answer that is not what was asked for: a problem,
// or what no daemon says.
func (d *Daemon) refusal(r reply) error {
	if r.media == "application/problem+json" {
		var p push.Problem
		if err := json.Unmarshal(r.body, &p); err == nil && p.Detail != "" {
			return refused(r.status, &ProblemError{
				Err: &push.Error{Code: p.Code, Detail: p.Detail, Store: p.Store, RetryAfter: r.retryAfter},
				ID:  p.ID, Body: r.body,
			})
		}
	}
	return refused(r.status, fmt.Errorf("what answers at %s is no s3daemon: HTTP %s %s", d.where, r.text, push.Quote(push.OneLine(string(r.body)))))
}

// ProblemError is a problem that the daemon answered with.
type ProblemError struct {
	Err  *push.Error
	ID   string // of the push, where there is one
	Body []byte // the problem in JSON, as the daemon sent it
}

// Error returns the problem's detail.
func (e *ProblemError) Error() string { return e.Err.Error() }

// Unwrap returns the problem.
func (e *ProblemError) Unwrap() error { return e.Err }

// refused adds ErrNotTaken to the error of an answer that says so: 429 and 503
// are said instead of doing anything.
func refused(status int, err error) error {
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		return &notTaken{err}
	}
	return err
}

// notTaken is an error of the kind ErrNotTaken with the text of its cause.
type notTaken struct{ error }

func (e *notTaken) Unwrap() []error { return []error{e.error, ErrNotTaken} }
