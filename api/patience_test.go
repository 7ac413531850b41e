package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

const somePush = "file=/a&destination=s3://bucket/k"

// TestPatience has every way to say how long to wait for a push, and what comes
// back as preferences that were heeded.
func TestPatience(t *testing.T) {
	const inJSON = `{"file":"/a","destination":"s3://bucket/k"%s}`
	for name, tc := range map[string]struct {
		prefer  string
		async   string // in JSON, then in a form
		wait    time.Duration
		applied string
	}{
		"nothing":                  {"", "", push.Forever, ""},
		"async false":              {"", "false", push.Forever, ""},
		"async true":               {"", "true", 0, ""},
		"respond-async":            {"respond-async", "", 0, "respond-async"},
		"respond-async, false":     {"respond-async", "false", 0, "respond-async"},
		"wait":                     {"wait=10", "", 10 * time.Second, "wait=10"},
		"wait nothing":             {"wait=0", "", 0, "wait=0"},
		"wait and async":           {"wait=10", "true", 10 * time.Second, "wait=10"},
		"both":                     {"wait=10, respond-async", "", 10 * time.Second, "respond-async, wait=10"},
		"something else":           {"handling=strict", "", push.Forever, ""},
		"something else and async": {"wait=soon", "true", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			member, field := "", ""
			if tc.async != "" {
				member, field = `, "async" : `+tc.async+" ", "&async="+tc.async
			}
			for contentType, body := range map[string]string{jsonType: fmt.Sprintf(inJSON, member), formType: somePush + field} {
				r := newRig(t)
				r.receipt = receiptOf(push.Queued)
				resp, got := r.do(t, "POST", "/push", contentType, body, func(req *http.Request) {
					if tc.prefer != "" {
						req.Header.Set("Prefer", tc.prefer)
					}
				})
				if resp.StatusCode != 202 || resp.Header.Get("Location") != "/pushes/"+someID || !strings.Contains(got, `"state":"queued"`) {
					t.Errorf("%s, Location %q\n%s", resp.Status, resp.Header.Get("Location"), got)
				}
				if applied := resp.Header.Get("Preference-Applied"); applied != tc.applied {
					t.Errorf("Preference-Applied %q, want %q", applied, tc.applied)
				}
				if want := (push.Options{Wait: tc.wait}); r.opts != want {
					t.Errorf("options %+v, want %+v", r.opts, want)
				}
			}
		})
	}
}

// TestFormAsync has all that a form can say.
func TestFormAsync(t *testing.T) {
	for value, want := range map[string]time.Duration{"true": 0, "1": 0, "false": push.Forever, "0": push.Forever} {
		r := newRig(t)
		r.receipt = receiptOf(push.Done)
		if resp, body := r.do(t, "POST", "/push", formType, somePush+"&async="+value); resp.StatusCode != 200 || r.opts.Wait != want {
			t.Errorf("async=%s: %s, waits %v\n%s", value, resp.Status, r.opts.Wait, body)
		}
	}
}

// TestAnswersToPush has what a push can come to, with the headers that go with
// it.
func TestAnswersToPush(t *testing.T) {
	notAccepted := push.Receipt{}
	for name, tc := range map[string]struct {
		receipt    push.Receipt
		err        error
		status     int
		says       string
		retryAfter string
	}{
		"done":               {receiptOf(push.Done), nil, 200, `"state":"done"`, ""},
		"queued":             {receiptOf(push.Queued), nil, 202, `"state":"queued"`, ""},
		"running":            {receiptOf(push.Running), nil, 202, `"sent_bytes":3`, ""},
		"failed":             {receiptOf(push.Failed), push.Errorf(push.FileChanged, "the file changed"), 409, `"code":"file_changed","id":"` + someID + `"`, ""},
		"gone":               {receiptOf(push.Failed), push.Errorf(push.FileNotFound, "there is no file"), 404, `"id":"` + someID + `"`, ""},
		"cancelled":          {receiptOf(push.Cancelled), push.Errorf(push.WasCancelled, "somebody cancelled it"), 409, `"code":"cancelled","id":"` + someID + `"`, ""},
		"unreachable":        {receiptOf(push.Failed), push.Errorf(push.StoreUnreachable, "no answer"), 504, `"id":"` + someID + `"`, ""},
		"stays":              {receiptOf(push.Queued), push.Errorf(push.ShuttingDown, "the daemon stops"), 503, `"id":"` + someID + `"`, "5"},
		"shutting down":      {notAccepted, push.Errorf(push.ShuttingDown, "the daemon stops"), 503, `"code":"shutting_down"}`, "5"},
		"queue full":         {notAccepted, &push.Error{Code: push.QueueFull, Detail: "full", RetryAfter: 90*time.Second + 1}, 429, `"queue_full"`, "91"},
		"queue full, moment": {notAccepted, &push.Error{Code: push.QueueFull, Detail: "full", RetryAfter: time.Nanosecond}, 429, `"queue_full"`, "1"},
		"queue full, unsaid": {notAccepted, &push.Error{Code: push.QueueFull, Detail: "full"}, 429, `"queue_full"`, "5"},
		"journal":            {notAccepted, &push.Error{Code: push.JournalUnavailable, Detail: "disk full", RetryAfter: 2 * time.Second}, 503, `"journal_unavailable"`, "2"},
		"another body":       {notAccepted, push.Errorf(push.IdempotencyReused, "used before"), 422, `"idempotency_key_reused"`, ""},
		"failed, no error":   {receiptOf(push.Failed), nil, 500, `"code":"internal"`, ""},
		"cancelled, no err":  {receiptOf(push.Cancelled), nil, 500, `"code":"internal"`, ""},
		"file":               {notAccepted, push.Errorf(push.FileNotRegular, "a directory"), 422, `"file_not_regular"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.receipt, r.err = tc.receipt, tc.err
			resp, body := r.do(t, "POST", "/push", formType, somePush, func(req *http.Request) { req.Header.Set("Prefer", "wait=10") })
			if resp.StatusCode != tc.status || !strings.Contains(body, tc.says) {
				t.Errorf("%s, want %d and %s in\n%s", resp.Status, tc.status, tc.says, body)
			}
			location, applied := "", ""
			if tc.receipt.ID != "" {
				location, applied = "/pushes/"+someID, "wait=10"
			}
			h := resp.Header
			if h.Get("Location") != location || h.Get("Preference-Applied") != applied || h.Get("Retry-After") != tc.retryAfter {
				t.Errorf("Location %q, Preference-Applied %q, Retry-After %q", h.Get("Location"), h.Get("Preference-Applied"), h.Get("Retry-After"))
			}
			if stops := strings.Contains(body, "shutting_down"); resp.Close != stops {
				t.Errorf("close %v, shutting down %v", resp.Close, stops)
			}
		})
	}
}

func TestIdempotencyKeyArrives(t *testing.T) {
	r := newRig(t)
	r.receipt = receiptOf(push.Done)
	key := func(lines ...string) func(*http.Request) {
		return func(req *http.Request) { req.Header["Idempotency-Key"] = lines }
	}
	resp, body := r.do(t, "POST", "/push", formType, somePush, key(`"night 12"`))
	wantProblem(t, resp, body, 400, push.InvalidParameter)
	resp, body = r.do(t, "POST", "/push", formType, somePush, key("a", "b"))
	wantProblem(t, resp, body, 400, push.InvalidParameter)
	if r.got.File != "" || !strings.Contains(r.log.String(), "Idempotency-Key") {
		t.Errorf("pushed %+v, log %s", r.got, r.log.String())
	}
	if resp, body := r.do(t, "POST", "/push", formType, somePush, key(`"k-1"`)); resp.StatusCode != 200 {
		t.Errorf("%s\n%s", resp.Status, body)
	}
	if want := (push.Options{Wait: push.Forever, IdempotencyKey: "k-1"}); r.opts != want {
		t.Errorf("options %+v, want %+v", r.opts, want)
	}
}
