package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

const someID = "01a2099f-a374-7d75-988c-bfa863fc1e8f"

// fakeQueue answers as the test says, and keeps what it was asked.
type fakeQueue struct {
	asked   string // the method
	id      push.ID
	filter  push.Filter
	wait    time.Duration
	receipt push.Receipt
	page    push.Page
	err     error
	waiting chan struct{} // if not nil: closed by who waits, until his context ends
}

func (f *fakeQueue) Get(ctx context.Context, id push.ID, wait time.Duration) (push.Receipt, error) {
	f.asked, f.id, f.wait = "get", id, wait
	f.hold(ctx)
	return f.receipt, f.err
}

func (f *fakeQueue) List(ctx context.Context, filter push.Filter, wait time.Duration) (push.Page, error) {
	f.asked, f.filter, f.wait = "list", filter, max(f.wait, wait)
	f.hold(ctx)
	return f.page, f.err
}

func (f *fakeQueue) Cancel(_ context.Context, id push.ID) (push.Receipt, error) {
	f.asked, f.id = "cancel", id
	return f.receipt, f.err
}

func (f *fakeQueue) Retry(_ context.Context, id push.ID) (push.Receipt, error) {
	f.asked, f.id = "retry", id
	return f.receipt, f.err
}

func (f *fakeQueue) hold(ctx context.Context) {
	if f.waiting != nil {
		close(f.waiting)
		<-ctx.Done()
	}
}

// mustID returns the id of that text.
func mustID(t *testing.T, text string) push.ID {
	t.Helper()
	id, err := push.ParseID(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// receiptOf returns a receipt in that state, with what such a push has.
func receiptOf(state push.State) push.Receipt {
	at := time.Date(2026, 11, 23, 18, 16, 26, 0, time.UTC)
	r := push.Receipt{ID: someID, State: state, File: "/a", Destination: "s3://bucket/k", Bucket: "bucket", Key: "k", Size: 5, AcceptedAt: at}
	if state == push.Running {
		r.StartedAt, r.SentBytes = at, 3
	}
	if state.Ended() {
		r.StartedAt, r.FinishedAt, r.Seconds = at, at.Add(time.Second), 1
	}
	if state == push.Failed {
		r.Problem = push.Errorf(push.FileChanged, "the file changed").Problem()
	}
	return r
}

func TestGet(t *testing.T) {
	for _, state := range states {
		r := newRig(t)
		r.queue.receipt = receiptOf(state)
		resp, body := r.do(t, "GET", "/pushes/"+someID, "", "")
		if resp.StatusCode != 200 || !strings.Contains(body, `"state":"`+string(state)+`"`) {
			t.Errorf("%s: %s\n%s", state, resp.Status, body)
		}
		if r.queue.asked != "get" || r.queue.id != mustID(t, someID) || r.queue.wait != 0 {
			t.Errorf("%s: asked %s %v %v", state, r.queue.asked, r.queue.id, r.queue.wait)
		}
	}
	r := newRig(t)
	r.queue.receipt = receiptOf(push.Queued)
	r.do(t, "GET", "/pushes/"+someID+"?wait=30s", "", "")
	if r.queue.wait != 30*time.Second {
		t.Errorf("waits %v", r.queue.wait)
	}
	// Escapes and capitals make no other id of it.
	resp, body := r.do(t, "GET", "/pushes/"+strings.ToUpper(strings.ReplaceAll(someID, "-", "%2D")), "", "")
	if resp.StatusCode != 200 || r.queue.id != mustID(t, someID) {
		t.Errorf("%s, id %v\n%s", resp.Status, r.queue.id, body)
	}
}

// TestNoSuchPush has paths that name no push, and a push that is not known.
func TestNoSuchPush(t *testing.T) {
	for _, path := range []string{
		"/pushes/x", "/pushes/" + someID[:35], "/pushes/" + someID + "0", "/pushes/%2e%2e", "/pushes/a%2Fb", "/pushes/%00%ff", "/pushes/" + strings.Repeat("0", 36),
	} {
		for _, method := range []string{"GET", "DELETE", "POST"} {
			r := newRig(t)
			url := path
			if method == "POST" {
				url += "/retry"
			}
			resp, body := r.do(t, method, url, "", "")
			wantProblem(t, resp, body, 404, push.PushNotFound)
			if r.queue.asked != "" {
				t.Errorf("%s %s asked for %s", method, url, r.queue.asked)
			}
		}
	}
	r := newRig(t)
	r.queue.err = push.Errorf(push.PushNotFound, "no push has the id %s", someID)
	resp, body := r.do(t, "GET", "/pushes/"+someID, "", "")
	wantProblem(t, resp, body, 404, push.PushNotFound)
	if strings.Contains(body, `"id"`) {
		t.Errorf("the id of no push stands in %s", body)
	}
	for _, path := range []string{"/pushes/", "/pushes/" + someID + "/", "/pushes/" + someID + "/retry/", "/pushes/" + someID + "/cancel"} {
		resp, body := r.do(t, "GET", path, "", "")
		wantProblem(t, resp, body, 404, push.NotFound)
	}
}

func TestList(t *testing.T) {
	r := newRig(t)
	if resp, body := r.do(t, "GET", "/pushes", "", ""); resp.StatusCode != 200 || body != `{"pushes":[],"pending":0}`+"\n" {
		t.Errorf("nothing: %s %s", resp.Status, body)
	}
	failed := receiptOf(push.Failed)
	r.queue.page = push.Page{Pushes: []push.Receipt{receiptOf(push.Queued), failed}, Next: someID, Pending: 7}
	resp, body := r.do(t, "GET", "/pushes?state=queued,failed&label=night+12&limit=2&cursor="+someID+"&wait=60s", "", "")
	if resp.StatusCode != 200 || !strings.Contains(body, `"next":"`+someID+`","pending":7}`) || !strings.Contains(body, `"problem":{"title":"Conflict","status":409,`) {
		t.Errorf("%s %s", resp.Status, body)
	}
	want := push.Filter{States: []push.State{push.Queued, push.Failed}, Label: "night 12", Limit: 2, Before: mustID(t, someID)}
	if !reflect.DeepEqual(r.queue.filter, want) || r.queue.wait != time.Minute {
		t.Errorf("asked for %+v, wait %v", r.queue.filter, r.queue.wait)
	}
	if p := r.queue.page.Pushes[1].Problem; p.Status != 0 || p.Title != "" {
		t.Errorf("the queue's own problem was changed to %+v", p)
	}
}

// TestProblemInReceipt: a receipt's problem is as complete as one that is an
// answer, also with a code that this daemon does not know.
func TestProblemInReceipt(t *testing.T) {
	r := newRig(t)
	r.queue.receipt = receiptOf(push.Queued)
	r.queue.receipt.RetryAt = time.Date(2026, 11, 23, 19, 0, 0, 0, time.UTC)
	shared := &push.Problem{Detail: "no", Code: push.StoreRefused, Store: &push.StoreAnswer{Status: 503, Code: "SlowDown"}}
	r.queue.receipt.Problem = shared
	_, body := r.do(t, "GET", "/pushes/"+someID, "", "")
	if want := `"problem":{"title":"Bad Gateway","status":502,"detail":"no","code":"store_refused","store":{"status":503,"code":"SlowDown"}}`; !strings.Contains(body, want) {
		t.Errorf("%s\nwant %s", body, want)
	}
	if shared.Status != 0 || shared.Title != "" {
		t.Errorf("the queue's own problem was changed to %+v", shared)
	}
	shared.Code = "of_a_newer_daemon"
	if _, body := r.do(t, "GET", "/pushes/"+someID, "", ""); !strings.Contains(body, `"status":500,"detail":"no","code":"of_a_newer_daemon"`) {
		t.Errorf("%s", body)
	}
}

func TestCancel(t *testing.T) {
	for state, status := range map[push.State]int{push.Cancelled: 200, push.Done: 200, push.Running: 202, push.Queued: 202} {
		r := newRig(t)
		r.queue.receipt = receiptOf(state)
		resp, body := r.do(t, "DELETE", "/pushes/"+someID, "", "")
		if resp.StatusCode != status || !strings.Contains(body, `"state":"`+string(state)+`"`) || resp.Header.Get("Location") != "/pushes/"+someID {
			t.Errorf("%s: %s\n%s", state, resp.Status, body)
		}
		if r.queue.asked != "cancel" || r.queue.id != mustID(t, someID) {
			t.Errorf("%s: asked %s %v", state, r.queue.asked, r.queue.id)
		}
	}
}

func TestRetry(t *testing.T) {
	r := newRig(t)
	r.queue.receipt = receiptOf(push.Queued)
	for _, body := range []string{"", "{}", "x=1"} { // what curl -d sends is not needed, and does no harm
		resp, got := r.do(t, "POST", "/pushes/"+someID+"/retry", formType, body)
		if resp.StatusCode != 202 || !strings.Contains(got, `"state":"queued"`) || resp.Header.Get("Location") != "/pushes/"+someID {
			t.Errorf("%s\n%s", resp.Status, got)
		}
	}
	if r.queue.asked != "retry" || r.queue.id != mustID(t, someID) {
		t.Errorf("asked %s %v", r.queue.asked, r.queue.id)
	}
}

// TestErrorsOfTheQueue has what each route can answer with; openapi.yaml must
// have it too.
func TestErrorsOfTheQueue(t *testing.T) {
	routes := map[string]struct {
		method, path string
		codes        map[push.Code]int
	}{
		"list": {"GET", "/pushes", nil},
		"get":  {"GET", "/pushes/" + someID, nil},
		"cancel": {"DELETE", "/pushes/" + someID, map[push.Code]int{
			push.PushEnded: 409,
		}},
		"retry": {"POST", "/pushes/" + someID + "/retry", map[push.Code]int{
			push.PushNotFailed: 409, push.Superseded: 409, push.FileChanged: 409, push.FileNotFound: 404, push.FileUnreadable: 403,
			push.FileNotAllowed: 403, push.DestinationNotAllowed: 403, push.FileNotRegular: 422, push.FileTooLarge: 413, push.QueueFull: 429,
		}},
	}
	anywhere := map[push.Code]int{push.ShuttingDown: 503, push.JournalUnavailable: 503, push.Internal: 500}
	for name, route := range routes {
		t.Run(name, func(t *testing.T) {
			for _, codes := range []map[push.Code]int{anywhere, route.codes} {
				for code, status := range codes {
					r := newRig(t)
					r.queue.err = push.Errorf(code, "no")
					resp, body := r.do(t, route.method, route.path, "", "")
					wantProblem(t, resp, body, status, code)
					if withID := strings.Contains(body, `"id":"`+someID+`"`); withID != (name != "list") {
						t.Errorf("%s: the id in %s", code, body)
					}
					if wants := status == 503 || status == 429; wants != (resp.Header.Get("Retry-After") == "5") {
						t.Errorf("%s: Retry-After %q", code, resp.Header.Get("Retry-After"))
					}
				}
			}
			r := newRig(t)
			r.queue.err = errors.New("a secret of the inside")
			resp, body := r.do(t, route.method, route.path, "", "")
			wantProblem(t, resp, body, 500, push.Internal)
			if strings.Contains(body, "secret") {
				t.Errorf("the cause is shown: %s", body)
			}
		})
	}
}

// TestBadQueries: what is not understood never reaches the queue.
func TestBadQueries(t *testing.T) {
	for name, tc := range map[string]struct{ method, path, says string }{
		"list":          {"GET", "/pushes?colour=red", "cursor, label, limit, state, text, wait"},
		"list, twice":   {"GET", "/pushes?limit=1&limit=1", "2 times"},
		"get":           {"GET", "/pushes/" + someID + "?limit=1", "there is wait"},
		"get, wait":     {"GET", "/pushes/" + someID + "?wait=2h", "at most an hour"},
		"cancel":        {"DELETE", "/pushes/" + someID + "?wait=1", "has none"},
		"retry":         {"POST", "/pushes/" + someID + "/retry?force=1", "has none"},
		"broken escape": {"GET", "/pushes?label=%zz", "data-urlencode"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			resp, body := r.do(t, tc.method, tc.path, "", "")
			wantProblem(t, resp, body, 400, push.InvalidParameter)
			if !strings.Contains(body, tc.says) || r.queue.asked != "" || !strings.Contains(r.log.String(), "request not understood") {
				t.Errorf("asked %q, want %q in %s", r.queue.asked, tc.says, body)
			}
		})
	}
}

func TestAllow(t *testing.T) {
	r := newRig(t)
	for path, allow := range map[string]string{
		"/pushes": "GET, HEAD", "/pushes/" + someID: "GET, HEAD, DELETE", "/pushes/a%2Fb": "GET, HEAD, DELETE", "/pushes/" + someID + "/retry": "POST", "/events": "GET, HEAD", "/": "GET, HEAD",
	} {
		resp, body := r.do(t, "PUT", path, "", "")
		wantProblem(t, resp, body, 405, push.MethodNotAllowed)
		if got := resp.Header.Get("Allow"); got != allow || !strings.Contains(body, strings.ReplaceAll(allow, ", ", " or ")) {
			t.Errorf("%s: Allow %q, want %q\n%s", path, got, allow, body)
		}
	}
}

// TestPagesMayNotChange: the guard stands before what changes pushes too.
func TestPagesMayNotChange(t *testing.T) {
	r := newRig(t)
	for method, path := range map[string]string{"DELETE": "/pushes/" + someID, "POST": "/pushes/" + someID + "/retry"} {
		resp, body := r.do(t, method, path, "", "", func(req *http.Request) { req.Header.Set("Origin", "http://evil.example") })
		wantProblem(t, resp, body, 403, push.CrossOrigin)
	}
	if r.queue.asked != "" {
		t.Errorf("a page of another origin had the queue asked to %s", r.queue.asked)
	}
}

// TestCallerWhoHangsUp stops waiting, also if he sent a body that nobody needs.
func TestCallerWhoHangsUp(t *testing.T) {
	for _, path := range []string{"/pushes?wait=1h", "/pushes/" + someID + "?wait=1h"} {
		for name, head := range map[string]string{"no body": "\r\n", "body": "Content-Length: 2\r\n\r\n{}"} {
			t.Run(path+" "+name, func(t *testing.T) {
				r := newRig(t)
				r.queue.waiting = make(chan struct{})
				ended := make(chan struct{})
				handler, _ := New(r.config())
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					handler.ServeHTTP(w, req)
					close(ended)
				}))
				defer server.Close()
				conn, err := net.Dial("tcp", server.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n"+head)
				<-r.queue.waiting
				conn.Close()
				<-ended
			})
		}
	}
}
