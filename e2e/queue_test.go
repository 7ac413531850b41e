package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// page is a list of pushes, as a stranger's program reads it.
type page struct {
	Pushes  []receipt `json:"pushes"`
	Next    string    `json:"next"`
	Pending int       `json:"pending"`
}

// wish is a push as a caller may want it, beyond file and destination.
type wish struct {
	prefer string // the Prefer header; "" for none
	key    string // the Idempotency-Key header
	label  string
	trace  string // the traceparent header
}

// async is the wish of most of these tests.
var async = wish{prefer: "respond-async"}

func (w wish) labelled(label string) wish { w.label = label; return w }
func (w wish) keyed(key string) wish      { w.key = key; return w }

// tryPushAs pushes a file as wished.
func (d *daemon) tryPushAs(ctx context.Context, w wish, file, destination string) (answer, error) {
	req, err := d.requestAs(ctx, w, file, destination)
	if err != nil {
		return answer{}, err
	}
	return d.send(d.client, req)
}

// requestAs makes the request of a push as wished.
func (d *daemon) requestAs(ctx context.Context, w wish, file, destination string) (*http.Request, error) {
	fields := map[string]string{"file": file, "destination": destination}
	if w.label != "" {
		fields["label"] = w.label
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	req := d.request(ctx, "POST", "/push", "application/json", string(body))
	if w.prefer != "" {
		req.Header.Set("Prefer", w.prefer)
	}
	if w.key != "" {
		req.Header.Set("Idempotency-Key", w.key)
	}
	if w.trace != "" {
		req.Header.Set("traceparent", w.trace)
	}
	return req, nil
}

func (d *daemon) pushAs(t testing.TB, w wish, file, destination string) answer {
	t.Helper()
	a, err := d.tryPushAs(context.Background(), w, file, destination)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// pushAsync pushes a file that nobody waits for, and returns the receipt of
// its acceptance.
func (d *daemon) pushAsync(t testing.TB, file, destination string) receipt {
	t.Helper()
	return d.pushAs(t, async, file, destination).accepted(t)
}

// accepted returns the receipt of an answer that must be 202.
func (a answer) accepted(t testing.TB) receipt {
	t.Helper()
	r, err := a.tryAccepted()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (a answer) tryAccepted() (r receipt, err error) {
	if a.status != http.StatusAccepted {
		return r, fmt.Errorf("the answer is %d, want 202: %s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &r); err != nil {
		return r, fmt.Errorf("the answer is no receipt: %w: %s", err, a.body)
	}
	if r.ID == "" || a.header.Get("Location") != "/pushes/"+r.ID {
		return r, fmt.Errorf("the answer has the location %q and the receipt %s", a.header.Get("Location"), a.body)
	}
	if ended(r.State) {
		return r, fmt.Errorf("the answer is 202 with the state %q: %s", r.State, a.body)
	}
	return r, nil
}

// ended reports whether a state is one of the last.
func ended(state string) bool { return state == "done" || state == "failed" || state == "cancelled" }

// receiptOf returns the receipt of an answer that must be 200, in any state.
func (a answer) receiptOf(t testing.TB) (r receipt) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("the answer is %d, want 200: %s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &r); err != nil {
		t.Fatalf("the answer is no receipt: %v: %s", err, a.body)
	}
	return r
}

// pushOf asks how a push stands.
func (d *daemon) pushOf(t testing.TB, id string) receipt {
	t.Helper()
	return d.get(t, "/pushes/"+id).receiptOf(t)
}

// endOf waits for the end of a push.
func (d *daemon) endOf(t testing.TB, id string) receipt {
	t.Helper()
	r := d.get(t, "/pushes/"+id+"?wait="+patience.String()).receiptOf(t)
	if !ended(r.State) {
		t.Fatalf("the push did not end within %v: %+v", patience, r)
	}
	return r
}

// doneOf waits for the end of a push, which must be a good one.
func (d *daemon) doneOf(t testing.TB, id string) receipt {
	t.Helper()
	r := d.endOf(t, id)
	if r.State != "done" {
		t.Fatalf("the push is %s, want done: %+v, %+v", r.State, r, r.Problem)
	}
	return r
}

// pageOf asks for a list of pushes; the query is what stands behind the '?'.
func (d *daemon) pageOf(t testing.TB, query string) (p page) {
	t.Helper()
	p, err := d.tryPageOf(query)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (d *daemon) tryPageOf(query string) (p page, err error) {
	a, err := d.send(d.client, d.request(context.Background(), "GET", "/pushes?"+query, "", ""))
	if err != nil {
		return p, err
	}
	if a.status != http.StatusOK {
		return p, fmt.Errorf("GET /pushes?%s: %d: %s", query, a.status, a.body)
	}
	return p, json.Unmarshal(a.body, &p)
}

// listOf asks for all pages of a list, which must be newest first and have no
// push twice.
func (d *daemon) listOf(t testing.TB, query string) (all []receipt) {
	t.Helper()
	cursor := ""
	for {
		p := d.pageOf(t, query+"&limit=1000"+cursor)
		for _, r := range p.Pushes {
			if n := len(all); n > 0 && r.ID >= all[n-1].ID {
				t.Fatalf("the list has %s after %s", r.ID, all[n-1].ID)
			}
			all = append(all, r)
		}
		if p.Next == "" {
			return all
		}
		cursor = "&cursor=" + url.QueryEscape(p.Next)
	}
}

// barrier waits until nothing with that label (or nothing at all, for "") is
// under way. Only a limit that is far too long ends it.
func (d *daemon) barrier(t testing.TB, label string) {
	t.Helper()
	if err := d.tryBarrier(label, 5*patience); err != nil {
		t.Fatal(err)
	}
}

var errPending = errors.New("there are pushes that have not ended")

func (d *daemon) tryBarrier(label string, limit time.Duration) error {
	query := url.Values{"wait": {limit.String()}, "limit": {"1"}}
	if label != "" {
		query.Set("label", label)
	}
	p, err := d.tryPageOf(query.Encode())
	if err == nil && p.Pending > 0 {
		err = fmt.Errorf("after %v: %w: %d", limit, errPending, p.Pending)
	}
	return err
}

// cancel asks for a push not to be delivered.
func (d *daemon) cancel(t testing.TB, id string) answer {
	t.Helper()
	return d.do(t, d.request(context.Background(), "DELETE", "/pushes/"+id, "", ""))
}

// retry asks for a push to be put back.
func (d *daemon) retry(t testing.TB, id string) answer {
	t.Helper()
	return d.do(t, d.request(context.Background(), "POST", "/pushes/"+id+"/retry", "", ""))
}

// queueDepth returns how many pushes are in a state, as the metrics have it.
func (d *daemon) queueDepth(state string) int {
	d.t.Helper()
	return int(d.metric(fmt.Sprintf("s3daemon_queue_depth{state=%q}", state)))
}
