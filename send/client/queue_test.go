package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

const queued = `{"id":"7","state":"queued","file":"/f","sent_bytes":3}`

// question is what a daemon was asked for.
type question struct{ method, url, prefer, key, form string }

// recorder answers everything with the same, and keeps what it was asked.
func recorder(t *testing.T, status int, media, body string) (*Daemon, *question) {
	t.Helper()
	q := new(question)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		form, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		*q = question{r.Method, r.URL.RequestURI(), r.Header.Get("Prefer"), r.Header.Get("Idempotency-Key"), string(form)}
		if status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "7")
		}
		answer(status, media, body)(w, r)
	}))
	t.Cleanup(server.Close)
	daemon, err := New(server.URL+"/under", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(daemon.Close)
	return daemon, q
}

func TestSubmitAsks(t *testing.T) {
	tests := []struct {
		name string
		s    Submission
		want question
	}{
		{"waiting", Submission{File: "/f", Destination: "s3://bkt/k"},
			question{"POST", "/under/push", "", "", "destination=s3%3A%2F%2Fbkt%2Fk&file=%2Ff"}},
		{"all", Submission{File: "/\xff", Destination: "s3://bkt/k", Label: "night 12", Key: "K1", CreateOnly: true, Async: true},
			question{"POST", "/under/push", "respond-async", `"K1"`, "destination=s3%3A%2F%2Fbkt%2Fk&file=%2F%FF&label=night+12&overwrite=false"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			daemon, got := recorder(t, 202, "application/json", queued)
			a, err := daemon.Submit(t.Context(), test.s)
			if err != nil || a.Receipt.ID != "7" || a.Receipt.State != push.Queued || a.Receipt.SentBytes != 3 || string(a.Body) != queued {
				t.Errorf("%+v, %v", a, err)
			}
			if *got != test.want {
				t.Errorf("asked %q, want %q", *got, test.want)
			}
		})
	}
}

func TestGetAndListAsk(t *testing.T) {
	daemon, got := recorder(t, 200, "application/json", done)
	for wait, want := range map[time.Duration]string{
		0:                      "/under/pushes/a%20b%2F7",
		200 * time.Millisecond: "/under/pushes/a%20b%2F7?wait=200ms",
		time.Minute:            "/under/pushes/a%20b%2F7?wait=1m0s",
	} {
		if a, err := daemon.Get(t.Context(), "a b/7", wait); err != nil || a.Receipt.State != push.Done {
			t.Errorf("%+v, %v", a, err)
		}
		if *got != (question{method: "GET", url: want}) {
			t.Errorf("wait %v: asked %q", wait, *got)
		}
	}

	daemon, got = recorder(t, 200, "application/json", `{"pushes":[`+queued+`],"next":"C","pending":3}`)
	for _, test := range []struct {
		q    Query
		want string
	}{
		{Query{}, "limit=100"},
		{Query{Label: "a&b", Limit: 1, Wait: time.Minute}, "label=a%26b&limit=1&wait=1m0s"},
		{Query{States: []push.State{push.Failed, push.Cancelled}, Cursor: "C/"}, "cursor=C%2F&limit=100&state=failed%2Ccancelled"},
	} {
		page, err := daemon.List(t.Context(), test.q)
		if err != nil || len(page.Pushes) != 1 || page.Next != "C" || page.Pending != 3 {
			t.Errorf("%+v, %v", page, err)
		}
		if *got != (question{method: "GET", url: "/under/pushes?" + test.want}) {
			t.Errorf("%+v: asked %q", test.q, *got)
		}
	}
}

// TestQueueAnswers has what is neither a receipt nor a list.
func TestQueueAnswers(t *testing.T) {
	const json, problem = "application/json", "application/problem+json"
	const full = `{"status":429,"code":"queue_full","detail":"100000 pushes wait"}`
	tests := []struct {
		name        string
		status      int
		media, body string
		want        string // how the error of all three begins; %s is where the daemon is
		notTaken    bool
	}{
		{"full", 429, problem, full, "100000 pushes wait (queue_full)", true},
		{"shutting down, with the push in the journal", 503, problem, `{"status":503,"code":"shutting_down","detail":"later","id":"7"}`,
			"later (shutting_down)", true},
		{"not found", 404, problem, `{"status":404,"code":"push_not_found","detail":"no such push"}`, "no such push (push_not_found)", false},
		{"empty", 200, json, "", "the answer of the daemon at %s is no ", false},
		{"another object", 200, json, `{"status":"ok"}`, "the answer of the daemon at %s is no ", false},
		{"a state that there is not", 200, json, `{"id":"7","state":"lost"}`, "the answer of the daemon at %s is no ", false},
		{"a web page", 200, "text/html", "<html>", "what answers at %s is no s3daemon: HTTP 200 OK", false},
		{"another status", 201, json, queued, "what answers at %s is no s3daemon: HTTP 201 Created", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			daemon, _ := recorder(t, test.status, test.media, test.body)
			_, submit := daemon.Submit(t.Context(), Submission{File: "/f", Destination: "s3://bkt/k"})
			_, get := daemon.Get(t.Context(), "7", 0)
			_, list := daemon.List(t.Context(), Query{})
			for _, err := range []error{submit, get, list} {
				if err == nil {
					t.Error("success")
					continue
				}
				if want := strings.ReplaceAll(test.want, "%s", daemon.String()); !strings.HasPrefix(Explain(err), want) {
					t.Errorf("%s, want %s", Explain(err), want)
				}
				if errors.Is(err, ErrNotTaken) != test.notTaken {
					t.Errorf("ErrNotTaken: %v", !test.notTaken)
				}
				p, is := errors.AsType[*ProblemError](err)
				if is != (test.media == problem) || is && (string(p.Body) != test.body || (p.ID == "7") != (test.status == 503)) {
					t.Errorf("problem %+v", p)
				}
				if is && p.Err.RetryAfter != map[bool]time.Duration{true: 7 * time.Second}[test.status == 429] {
					t.Errorf("retry after %v", p.Err.RetryAfter)
				}
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "5": 5 * time.Second, "65535": 65535 * time.Second, "65536": 0, "-1": 0, "1.5": 0, "Wed, 21 Oct 2026 07:28:00 GMT": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

// TestSilentDaemon: a daemon that says nothing is not waited for, except for
// the end of a push, which may take any time.
func TestSilentDaemon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		daemon := &Daemon{where: "there", dial: func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go io.Copy(io.Discard, theirs)
			return ours, nil
		}}
		ask := map[string]func(context.Context) error{
			"get": func(ctx context.Context) error { _, err := daemon.Get(ctx, "7", time.Minute); return err },
			"list": func(ctx context.Context) error {
				_, err := daemon.List(ctx, Query{Wait: time.Minute})
				return err
			},
			"submit": func(ctx context.Context) error { _, err := daemon.Submit(ctx, Submission{Async: true}); return err },
		}
		for name, ask := range ask {
			begun := time.Now()
			err := ask(t.Context())
			lost, is := errors.AsType[*LostError](err)
			if !is || lost.Push != (name == "submit") || !errors.Is(err, errSilent) || time.Since(begun) > 2*time.Minute {
				t.Errorf("%s: %v after %v", name, err, time.Since(begun))
			}
			// Who does not want to wait that long is told that, and not that
			// the daemon is gone.
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err = ask(ctx)
			if _, is := errors.AsType[*LostError](err); is || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s, interrupted: %v", name, err)
			}
			cancel()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		if _, err := daemon.Submit(ctx, Submission{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for the end: %v", err)
		}
	})
}
