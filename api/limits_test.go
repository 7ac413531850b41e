package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// admitting is a rig that admits as the test says.
func admitting(t *testing.T, admit func(context.Context) bool) *rig {
	t.Helper()
	r := newRig(t)
	cfg := r.config()
	cfg.Admit = admit
	whole, _ := New(cfg)
	r.server.Config.Handler = whole
	return r
}

// TestNobodyAdmitted asks for everything where as many as may be are served
// already.
func TestNobodyAdmitted(t *testing.T) {
	r := admitting(t, func(context.Context) bool { return false })
	for path, method := range map[string]string{
		"/push": "POST", "/pushes": "GET", "/pushes/" + someID: "DELETE", "/pushes/" + someID + "/retry": "POST", "/openapi.yaml": "GET",
	} {
		resp, body := r.do(t, method, path, formType, somePush)
		wantProblem(t, resp, body, 503, push.TooManyCallers)
		if resp.Header.Get("Retry-After") != "1" || !resp.Close {
			t.Errorf("%s %s: Retry-After %q, close %v", method, path, resp.Header.Get("Retry-After"), resp.Close)
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		for _, method := range []string{"GET", "HEAD"} {
			if resp, _ := r.do(t, method, path, "", ""); resp.StatusCode != 200 {
				t.Errorf("%s %s: %s", method, path, resp.Status)
			}
		}
	}
	if r.got.File != "" || r.queue.asked != "" {
		t.Errorf("pushed %+v, asked the queue to %s", r.got, r.queue.asked)
	}
}

// TestAdmittedWhenWhole: nobody is admitted who has yet to send some of his
// request, or sends too much of it.
func TestAdmittedWhenWhole(t *testing.T) {
	asked := make(chan struct{}, 10)
	r := admitting(t, func(context.Context) bool { asked <- struct{}{}; return true })
	r.receipt = receiptOf(push.Done)
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /push HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Type: "+formType+"\r\nContent-Length: %d\r\n\r\n", len(somePush))
	if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))); err != nil {
		t.Fatal(err)
	}
	select {
	case <-asked:
		t.Fatal("admitted before the body was there")
	default:
	}
	io.WriteString(conn, somePush)
	if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") || len(asked) != 1 {
		t.Errorf("%v, asked %d times, answer %s", err, len(asked), answer)
	}
	<-asked
	resp, text := r.do(t, "POST", "/push", formType, strings.Repeat("x", maxBody+1))
	wantProblem(t, resp, text, 413, push.BodyTooLarge)
	if len(asked) != 0 {
		t.Error("one with a body that is too large was admitted")
	}
}

// TestOps has health and metrics alone, under any name.
func TestOps(t *testing.T) {
	r := newRig(t)
	cfg := r.config()
	cfg.Admit = func(context.Context) bool { return false }
	_, ops := New(cfg)
	r.server.Config.Handler = ops
	anyName := func(req *http.Request) { req.Host = "10.1.2.3:9090" }
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		for _, method := range []string{"GET", "HEAD"} {
			resp, _ := r.do(t, method, path, "", "", anyName)
			if resp.StatusCode != 200 || resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s %s: %s, %v", method, path, resp.Status, resp.Header)
			}
		}
	}
	if _, body := r.do(t, "GET", "/metrics", "", ""); !strings.Contains(body, `s3daemon_http_requests_total{route="/healthz",status="200"} 2`) {
		t.Errorf("the requests are not counted: %s", body)
	}
	for path, method := range map[string]string{
		"/push": "POST", "/pushes": "GET", "/pushes/" + someID: "DELETE", "/pushes/" + someID + "/retry": "POST", "/openapi.yaml": "GET", "/": "GET", "/events": "GET",
		"/healthz/../pushes": "GET", "//pushes": "GET", "/health%7A": "GET",
	} {
		resp, err := http.DefaultTransport.RoundTrip(requestTo(t, r.server, method, path))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 404 {
			t.Errorf("%s %s: %s", method, path, resp.Status)
		}
	}
	resp, body := r.do(t, "POST", "/healthz", "", "")
	wantProblem(t, resp, body, 405, push.MethodNotAllowed)
	r.notNow = push.Errorf(push.ShuttingDown, "the daemon is shutting down")
	resp, body = r.do(t, "GET", "/readyz", "", "", anyName)
	wantProblem(t, resp, body, 503, push.ShuttingDown)
	if r.queue.asked != "" || r.got.File != "" {
		t.Errorf("asked the queue to %s, pushed %+v", r.queue.asked, r.got)
	}
}

func requestTo(t *testing.T, server *httptest.Server, method, path string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// TestCompressedBody decompresses nothing.
func TestCompressedBody(t *testing.T) {
	for coding, status := range map[string]int{"gzip": 415, "GZIP": 415, "deflate, identity": 415, "br": 415, "identity": 200, "Identity": 200} {
		r := newRig(t)
		r.receipt = receiptOf(push.Done)
		resp, body := r.do(t, "POST", "/push", formType, somePush, func(req *http.Request) { req.Header.Set("Content-Encoding", coding) })
		if resp.StatusCode != status {
			t.Errorf("%s: %s", coding, resp.Status)
		}
		if status == 415 {
			wantProblem(t, resp, body, status, push.UnsupportedMedia)
			if resp.Header.Get("Accept-Encoding") != "identity" || r.got.File != "" {
				t.Errorf("%s: Accept-Encoding %q, pushed %+v", coding, resp.Header.Get("Accept-Encoding"), r.got)
			}
		}
	}
}

// TestRequestsInDoubt sends what may end elsewhere for somebody else, with
// another request behind it, which must be no request.
func TestRequestsInDoubt(t *testing.T) {
	const behind = "DELETE /pushes/" + someID + " HTTP/1.1\r\nHost: localhost\r\n\r\n"
	const chunked = "7\r\n{\"file\"\r\n0\r\n\r\n"
	for name, tc := range map[string]struct {
		request string
		status  string
	}{
		"chunked":               {"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, "400"},
		"chunked, and a length": {"POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, "400"},
		"HTTP/1.0":              {"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200"},
		"HTTP/1.0, chunked":     {"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n", "200"},
		"HTTP/2":                {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "403"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.receipt = receiptOf(push.Done)
			conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute))
			io.WriteString(conn, tc.request+behind)
			answer, _ := io.ReadAll(conn) // which may end in a reset, for what was not read
			if got := strings.Count(string(answer), "HTTP/1."); got != 1 || !strings.Contains(string(answer), " "+tc.status+" ") {
				t.Errorf("%d answers: %s", got, answer)
			}
			if r.queue.asked != "" {
				t.Errorf("what stood behind it had the queue asked to %s", r.queue.asked)
			}
		})
	}
}

// TestPanicBehindAnAnswer lets a handler fail when its answer has been begun:
// there is no second one, the connection breaks, and the log has it.
func TestPanicBehindAnAnswer(t *testing.T) {
	r := newRig(t)
	cfg := r.config()
	cfg.Scrape = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "half of it")
		http.NewResponseController(w).Flush()
		panic("no such luck")
	})
	whole, _ := New(cfg)
	r.server.Config.Handler = whole
	resp, err := http.Get(r.server.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err == nil || string(got) != "half of it" {
		t.Errorf("the answer ends with %v: %s", err, got)
	}
	if resp, _ := r.do(t, "GET", "/healthz", "", ""); resp.StatusCode != 200 {
		t.Errorf("after it: %s", resp.Status)
	}
	r.server.Close() // when all is logged
	if log := r.log.String(); strings.Count(log, "no such luck") != 1 || !strings.Contains(log, `"id":"`) {
		t.Errorf("the log: %s", log)
	}
}

// donePusher has each push done, for many at once.
type donePusher struct{ *fakePusher }

func (donePusher) Push(context.Context, push.Request, push.Options) (push.Receipt, error) {
	return receiptOf(push.Done), nil
}

// TestLargeBodies has as many large bodies without their end as there may be:
// one more waits, or is told to come again; small ones are read as ever, and
// what the large ones held comes back.
func TestLargeBodies(t *testing.T) {
	r := newRig(t)
	cfg := r.config()
	cfg.Pusher = donePusher{r.fakePusher}
	a := newAPI(cfg)
	whole, _ := a.routers()
	r.server.Config.Handler = whole
	left := func() int {
		a.bodies.mu.Lock()
		defer a.bodies.mu.Unlock()
		return a.bodies.left
	}
	large := `{"file":"/a","destination":"s3://bucket/k"` + strings.Repeat(" ", 2*smallBody) + "}"
	request := fmt.Sprintf("POST /push HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", jsonType, len(large), large)
	var held []net.Conn
	for range largeBodies / (maxBody + bytes.MinRead) {
		conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, request[:len(request)-1])
		held = append(held, conn)
	}
	for left() >= maxBody+bytes.MinRead {
		runtime.Gosched()
	}
	if resp, body := r.do(t, "POST", "/push", formType, somePush); resp.StatusCode != 200 {
		t.Errorf("a small one is answered %s\n%s", resp.Status, body)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	one := httptest.NewRequest("POST", "/push", strings.NewReader(large)).WithContext(over)
	one.Host = "localhost"
	one.Header.Set("Content-Type", jsonType)
	answer := httptest.NewRecorder()
	whole.ServeHTTP(answer, one)
	wantProblem(t, answer.Result(), answer.Body.String(), 503, push.TooManyCallers)

	served := make(chan string, 1)
	go func() {
		resp, err := http.Post(r.server.URL+"/push", jsonType, strings.NewReader(large))
		if err != nil {
			served <- err.Error()
			return
		}
		resp.Body.Close()
		served <- resp.Status
	}()
	held[0].Close() // whose bytes are the other's then
	if status := <-served; status != "200 OK" {
		t.Errorf("one who has waited is answered %s", status)
	}
	for _, conn := range held[1:] {
		io.WriteString(conn, request[len(request)-1:])
	}
	for _, conn := range held[1:] {
		if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
			t.Errorf("a large one: %v, %s", err, answer)
		}
	}
	if n := left(); n != largeBodies {
		t.Errorf("%d bytes are left, want %d", n, largeBodies)
	}
}
