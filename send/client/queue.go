package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

const (
	// maxPageBytes bounds a page of pageSize receipts, each with names that are
	// as long as they can be and need six bytes of JSON for each of theirs.
	maxPageBytes = 8 << 20
	pageSize     = 100

	// grace is how much longer than it was asked to wait a daemon may take for
	// its answer, before it counts as gone.
	grace = 30 * time.Second
)

// errSilent is why the waiting for an answer ends that should have come.
var errSilent = errors.New("it does not answer")

// Submission is a push to ask for.
type Submission struct {
	File        string // an absolute path on the daemon's host
	Destination string
	Label       string // may be empty
	CreateOnly  bool   // an object that exists stays as it is
	// Key is the Idempotency-Key: asking again with the same one is asking for
	// the same push. Empty: without.
	Key string
	// Async asks for the receipt once the push is accepted. Otherwise the daemon
	// answers when the push has ended.
	Async bool
}

// Answer is what the daemon says of a push.
type Answer struct {
	Receipt push.Receipt
	Body    []byte // the receipt in JSON, as the daemon sent it
}

// Submit asks the daemon for a push. It returns a receipt in any state, done or
// not; a push that failed is an error, as is one that was not accepted.
// Cancelling ctx ends the waiting, not the push.
func (d *Daemon) Submit(ctx context.Context, s Submission) (Answer, error) {
	form := url.Values{"file": {s.File}, "destination": {s.Destination}}
	if s.Label != "" {
		form.Set("label", s.Label)
	}
	if s.CreateOnly {
		form.Set("overwrite", "false")
	}
	header := keyLine(s.Key)
	if !s.Async {
		return d.receipt(d.ask(ctx, d.post(header, form), maxAnswerBytes))
	}
	return d.receipt(d.askWithin(ctx, 0, d.post(header+"Prefer: respond-async\r\n", form), maxAnswerBytes))
}

// Get returns the receipt of a push, in any state. With a wait it is that of
// the end, where the push ends in time.
func (d *Daemon) Get(ctx context.Context, id string, wait time.Duration) (Answer, error) {
	route := "/pushes/" + url.PathEscape(id)
	if wait > 0 {
		route += "?wait=" + wait.String()
	}
	return d.receipt(d.askWithin(ctx, wait, d.get(route), maxAnswerBytes))
}

// Query says which pushes List is to return.
type Query struct {
	Label  string       // exactly this; all where empty
	States []push.State // any of these; all where empty
	Cursor string       // the Next of the page before; empty for the first
	Limit  int          // receipts in the page, as many as are good for one answer where 0
	// Wait is for how long to wait until no push with the label is pending.
	Wait time.Duration
}

// List returns a page of pushes, newest first.
func (d *Daemon) List(ctx context.Context, q Query) (push.Page, error) {
	values := url.Values{"limit": {strconv.Itoa(pageSize)}}
	if q.Limit > 0 && q.Limit < pageSize {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Label != "" {
		values.Set("label", q.Label)
	}
	if len(q.States) > 0 {
		names := make([]string, len(q.States))
		for i, s := range q.States {
			names[i] = string(s)
		}
		values.Set("state", strings.Join(names, ","))
	}
	if q.Cursor != "" {
		values.Set("cursor", q.Cursor)
	}
	if q.Wait > 0 {
		values.Set("wait", q.Wait.String())
	}
	r, err := d.askWithin(ctx, q.Wait, d.get("/pushes?"+values.Encode()), maxPageBytes)
	if err != nil {
		return push.Page{}, err
	}
	if r.status != http.StatusOK || r.media != "application/json" {
		return push.Page{}, d.refusal(r)
	}
	var page struct {
		push.Page
		Pending *int `json:"pending"` // without it, there is no knowing what is pending
	}
	if err := json.Unmarshal(r.body, &page); err != nil {
		return push.Page{}, fmt.Errorf("the answer of the daemon at %s is no list of pushes: %w", d.where, err)
	}
	if page.Pending == nil {
		return push.Page{}, fmt.Errorf("the answer of the daemon at %s is no list of pushes: it does not say how many are pending", d.where)
	}
	page.Page.Pending = *page.Pending
	return page.Page, nil
}

// askWithin is ask for answers that must come within a time: what the daemon
// was asked to wait, and grace.
func (d *Daemon) askWithin(ctx context.Context, wait time.Duration, request []byte, most int64) (reply, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, wait+grace, errSilent)
	defer cancel()
	r, err := d.ask(bounded, request, most)
	if err != nil && ctx.Err() == nil && errors.Is(err, errSilent) {
		err = d.lost(ctx, request, errSilent)
	}
	return r, err
}

// receipt reads the answer to a question about one push.
func (d *Daemon) receipt(r reply, err error) (Answer, error) {
	if err != nil {
		return Answer{}, err
	}
	if r.media != "application/json" || r.status != http.StatusOK && r.status != http.StatusAccepted {
		return Answer{}, d.refusal(r)
	}
	a := Answer{Body: r.body}
	if err := json.Unmarshal(r.body, &a.Receipt); err != nil {
		return Answer{}, fmt.Errorf("the answer of the daemon at %s is no receipt: %w", d.where, err)
	}
	if s := a.Receipt.State; a.Receipt.ID == "" || !s.Ended() && s != push.Queued && s != push.Running {
		return Answer{}, fmt.Errorf("the answer of the daemon at %s is no receipt: its id is %s and its state %s",
			d.where, push.Quote(a.Receipt.ID), push.Quote(string(s)))
	}
	return a, nil
}
