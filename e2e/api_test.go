package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// answer is an HTTP answer of the daemon's, read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// receipt and problem are spelled out here, not imported: what a stranger's
// program relies on must not change along with the daemon's types.
type receipt struct {
	ID          string `json:"id"`
	State       string `json:"state"`
	File        string `json:"file"`
	Destination string `json:"destination"`
	Bucket      string `json:"bucket"`
	Key         string `json:"key"`
	Size        int64  `json:"size"`
	ETag        string `json:"etag"`
	Checksum    *struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"value"`
	} `json:"checksum"`
	Verified *struct {
		What      string `json:"what"`
		Algorithm string `json:"algorithm"`
		By        string `json:"by"`
		Value     string `json:"value"`
	} `json:"verified"`
	VersionID  string    `json:"version_id"`
	Attempts   int       `json:"attempts"`
	Parts      int       `json:"parts"`
	AcceptedAt time.Time `json:"accepted_at"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
	Seconds    float64   `json:"seconds"`
	Timing     *struct {
		Queued  float64 `json:"queued"`
		Connect float64 `json:"connect"`
		Send    float64 `json:"send"`
		Store   float64 `json:"store"`
	} `json:"timing"`
	Label          string          `json:"label"`
	Traceparent    string          `json:"traceparent"`
	FailedAttempts []failedAttempt `json:"failed_attempts"`
	SentBytes      int64           `json:"sent_bytes"`
	RetryAt        time.Time       `json:"retry_at"`
	Problem        *problem        `json:"problem"`
}

type failedAttempt struct {
	At        time.Time `json:"at"`
	Seconds   float64   `json:"seconds"`
	Operation string    `json:"operation"`
	Part      int       `json:"part"`
	Reason    string    `json:"reason"`
	Detail    string    `json:"detail"`
}

type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	ID     string `json:"id"`
	Store  *struct {
		Status    int    `json:"status"`
		Code      string `json:"code"`
		Message   string `json:"message"`
		RequestID string `json:"request_id"`
	} `json:"store"`
}

// send sends a request through the client given and reads the answer, which
// must be one that openapi.yaml describes and must not have the secret key.
func (d *daemon) send(client *http.Client, req *http.Request) (answer, error) {
	a, err := d.sendUnchecked(client, req)
	if err != nil {
		return a, err
	}
	if err := checkContract(req, a); err != nil {
		return a, fmt.Errorf("%s %s: the answer is not as openapi.yaml has it: %w\n%d %v\n%s", req.Method, req.URL, err, a.status, a.header, tail(a.body, 2000))
	}
	return a, nil
}

// sendUnchecked is send for the many answers of one kind of which some are held
// to openapi.yaml: that takes much longer than the daemon does.
func (d *daemon) sendUnchecked(client *http.Client, req *http.Request) (answer, error) {
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, fmt.Errorf("%s %s: read the answer: %w", req.Method, req.URL, err)
	}
	a := answer{resp.StatusCode, resp.Header, body}
	if d.secret != "" && bytes.Contains(body, []byte(d.secret)) {
		return a, fmt.Errorf("%s %s: the answer has the secret key: %s", req.Method, req.URL, body)
	}
	return a, nil
}

// do sends a request to the first listener and fails the test where there is
// no proper answer.
func (d *daemon) do(t testing.TB, req *http.Request) answer {
	t.Helper()
	a, err := d.send(d.client, req)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// base is the first listener's URL. Over a Unix socket the name in it is only
// the Host header.
func (d *daemon) base() string {
	if d.url != "" {
		return d.url
	}
	return "http://localhost"
}

// request makes a request to the daemon.
func (d *daemon) request(ctx context.Context, method, path, contentType, body string) *http.Request {
	req, err := http.NewRequestWithContext(ctx, method, d.base()+path, strings.NewReader(body))
	if err != nil {
		panic(err) // the tests' own constants
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	return req
}

func (d *daemon) get(t testing.TB, path string) answer {
	t.Helper()
	return d.do(t, d.request(context.Background(), "GET", path, "", ""))
}

// pushJSON posts fields as JSON.
func (d *daemon) pushJSON(t testing.TB, fields map[string]any) answer {
	t.Helper()
	body, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return d.do(t, d.request(context.Background(), "POST", "/push", "application/json", string(body)))
}

// pushForm posts a form to the letter.
func (d *daemon) pushForm(t testing.TB, form string) answer {
	t.Helper()
	return d.do(t, d.request(context.Background(), "POST", "/push", "application/x-www-form-urlencoded", form))
}

// push pushes a file, as most tests do.
func (d *daemon) push(t testing.TB, file, destination string) answer {
	t.Helper()
	return d.pushForm(t, url.Values{"file": {file}, "destination": {destination}}.Encode())
}

// tryPush is push for goroutines of a test's, and with a context.
func (d *daemon) tryPush(ctx context.Context, file, destination string) (answer, error) {
	form := url.Values{"file": {file}, "destination": {destination}}.Encode()
	return d.send(d.client, d.request(ctx, "POST", "/push", "application/x-www-form-urlencoded", form))
}

// done returns the receipt of an answer that must be 200.
func (a answer) done(t testing.TB) receipt {
	t.Helper()
	r, err := a.tryDone()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (a answer) tryDone() (r receipt, err error) {
	if a.status != http.StatusOK {
		return r, fmt.Errorf("the answer is %d, want 200: %s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &r); err != nil {
		return r, fmt.Errorf("the answer is no receipt: %w: %s", err, a.body)
	}
	if r.State != "done" {
		return r, fmt.Errorf("the answer is 200 with the state %q: %s", r.State, a.body)
	}
	return r, nil
}

// refused returns the problem of an answer that must have that status and
// code, and a detail for people.
func (a answer) refused(t testing.TB, status int, code string) problem {
	t.Helper()
	if a.status != status {
		t.Fatalf("the answer is %d, want %d: %s", a.status, status, a.body)
	}
	p, err := a.problem()
	if err != nil {
		t.Fatal(err)
	}
	if p.Code != code {
		t.Fatalf("the answer is %s, want the code %s", a.body, code)
	}
	return p
}

// problem returns the problem of an answer that must be one, with a detail for
// people.
func (a answer) problem() (p problem, err error) {
	if err := json.Unmarshal(a.body, &p); err != nil {
		return p, fmt.Errorf("the answer is %d and no problem: %w: %s", a.status, err, a.body)
	}
	if a.status < 400 || p.Status != a.status || p.Code == "" || p.Detail == "" || strings.ContainsAny(p.Detail, "\n\r") {
		return p, fmt.Errorf("the answer is %d with %s, want a problem with that status, a code and a detail of one line", a.status, a.body)
	}
	return p, nil
}
