package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lsst-dm/s3daemon/push"
)

// fakePusher answers as the test says. It stands for the store side only; the
// whole way is tested in package main and in e2e.
type fakePusher struct {
	got     push.Request
	opts    push.Options
	receipt push.Receipt
	err     error
	notNow  error
	notes   []string
	fault   any // panics with it
	takes   time.Duration
}

func (f *fakePusher) Push(ctx context.Context, r push.Request, opts push.Options) (push.Receipt, error) {
	if f.fault != nil {
		panic(f.fault)
	}
	f.got, f.opts = r, opts
	select {
	case <-time.After(f.takes):
	case <-ctx.Done(): // its caller has hung up, as far as the daemon knows
		return push.Receipt{}, ctx.Err()
	}
	return f.receipt, f.err
}

func (f *fakePusher) Ready() ([]string, error) { return f.notes, f.notNow }

// rig is the interface on a real socket, with every answer held to openapi.yaml.
type rig struct {
	*fakePusher
	queue   *fakeQueue
	events  fakeEvents
	handler http.Handler
	server  *httptest.Server
	log     lockedBuffer
}

// lockedBuffer is a log that many write.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func newRig(t *testing.T) *rig { return newRigWith(t, func(*Config) {}) }

func newRigWith(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{fakePusher: &fakePusher{}, queue: &fakeQueue{}}
	cfg := r.config()
	change(&cfg)
	r.handler, _ = New(cfg)
	r.server = httptest.NewServer(r.handler)
	t.Cleanup(r.server.Close)
	return r
}

func (r *rig) config() Config {
	registry := prometheus.NewRegistry()
	return Config{
		Pusher: r.fakePusher, Queue: r.queue, Events: &r.events, Version: "1.2.3", Hosts: []string{"Writer.Example"}, OpenAPI: []byte("openapi: 3.1.0\n"), Page: http.HandlerFunc(somePage),
		Scrape: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), Registry: registry,
		Log: slog.New(slog.NewJSONHandler(&r.log, nil)),
	}
}

// contract is openapi.yaml, with what finds a request's route in it.
var contract = sync.OnceValues(func() (*openapi3.T, error) {
	for _, text := range []string{"text/html", "text/event-stream"} {
		openapi3filter.RegisterBodyDecoder(text, openapi3filter.PlainBodyDecoder)
	}
	doc, err := openapi3.NewLoader().LoadFromFile(filepath.Join("..", "openapi.yaml"))
	if err != nil {
		return nil, err
	}
	return doc, doc.Validate(context.Background())
})

var findRoute = sync.OnceValues(func() (routers.Router, error) {
	doc, err := contract()
	if err != nil {
		return nil, err
	}
	anywhere := *doc
	anywhere.Servers = nil // it is served on any port, and under any of its names
	return gorillamux.NewRouter(&anywhere)
})

func document(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := contract()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// do sends a request, checks the answer against openapi.yaml where the document
// has the route, and returns it with its body.
func (r *rig) do(t *testing.T, method, path, contentType, body string, change ...func(*http.Request)) (*http.Response, string) {
	t.Helper()
	return r.doWith(t, http.DefaultClient, method, path, contentType, body, change...)
}

func (r *rig) doWith(t *testing.T, client *http.Client, method, path, contentType, body string, change ...func(*http.Request)) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, r.server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for _, f := range change {
		f(req)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	find, err := findRoute()
	if err != nil {
		t.Fatal(err)
	}
	route, params, err := find.FindRoute(req)
	if err != nil {
		return resp, string(got) // not in the document: 404 and 405
	}
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route},
		Status:                 resp.StatusCode, Header: resp.Header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	if err := openapi3filter.ValidateResponse(t.Context(), input.SetBodyBytes(got)); err != nil {
		t.Errorf("%s %s: the answer is not what openapi.yaml says: %v\n%s", method, path, err, got)
	}
	return resp, string(got)
}

// wantProblem checks that an answer is a problem with that status and code.
func wantProblem(t *testing.T, resp *http.Response, body string, status int, code push.Code) {
	t.Helper()
	if resp.StatusCode != status || resp.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(body, `"code":"`+string(code)+`"`) {
		t.Errorf("answer %s, %s\n%s\nwant %d %s", resp.Status, resp.Header.Get("Content-Type"), body, status, code)
	}
}

const (
	jsonType = "application/json"
	formType = "application/x-www-form-urlencoded"
)

func TestRouterAndDocumentAgree(t *testing.T) {
	r := newRig(t)
	var served, described []string
	whole, _ := newAPI(r.config()).routers()
	err := chi.Walk(whole, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		served = append(served, method+" "+route)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range document(t).Paths.Map() {
		for method := range item.Operations() {
			described = append(described, method+" "+path)
		}
	}
	slices.Sort(served)
	slices.Sort(described)
	if !slices.Equal(served, described) {
		t.Errorf("served:    %v\ndescribed: %v", served, described)
	}
}

func TestRequestFieldsAndDocumentAgree(t *testing.T) {
	var described []string
	for name := range document(t).Components.Schemas["Request"].Value.Properties {
		described = append(described, name)
	}
	slices.Sort(described)
	if known := slices.Sorted(slices.Values(fields)); !slices.Equal(known, described) {
		t.Errorf("known:     %v\ndescribed: %v", known, described)
	}
}

func TestPush(t *testing.T) {
	want := push.Request{
		File: "/data/a b.fits", Destination: "s3://bucket/a+b%20c", Label: "night 1", ContentType: "image/fits",
		Metadata: map[string]string{"Camera": "R22"}, Tags: map[string]string{"a b": "c&d"}, StorageClass: "STANDARD",
		Encryption: "aws:kms", KMSKeyID: "alias/a b", Overwrite: new(bool),
	}
	for name, tc := range map[string]struct{ contentType, body string }{
		"json": {jsonType, `{"file":"/data/a b.fits","destination":"s3://bucket/a+b%20c","label":"night 1","content_type":"image/fits",
			"metadata":{"Camera":"R22"},"tags":{"a b":"c&d"},"storage_class":"STANDARD","server_side_encryption":"aws:kms","sse_kms_key_id":"alias/a b","overwrite":false}`},
		"json with charset": {"application/json; charset=UTF-8", `{"file":"/data/a b.fits","destination":"s3://bucket/a+b%20c","label":"night 1","content_type":"image/fits",
			"metadata":{"Camera":"R22"},"tags":{"a b":"c&d"},"storage_class":"STANDARD","server_side_encryption":"aws:kms","sse_kms_key_id":"alias/a b","overwrite":false}`},
		"form": {formType, "file=/data/a+b.fits&destination=s3%3A%2F%2Fbucket%2Fa%2Bb%2520c&label=night%201&content_type=image/fits&metadata.Camera=R22&tags.a%20b=c%26d&storage_class=STANDARD&server_side_encryption=aws:kms&sse_kms_key_id=alias/a+b&overwrite=false"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.receipt = push.Receipt{ID: "id", State: push.Done, Attempts: 1, Parts: 1}
			resp, body := r.do(t, "POST", "/push", tc.contentType, tc.body)
			if resp.StatusCode != 200 || !strings.HasSuffix(body, "}\n") {
				t.Errorf("%s\n%s", resp.Status, body)
			}
			if g := r.got; g.File != want.File || g.Destination != want.Destination || g.Label != want.Label || g.ContentType != want.ContentType ||
				!maps.Equal(g.Metadata, want.Metadata) || !maps.Equal(g.Tags, want.Tags) || g.StorageClass != want.StorageClass || g.Encryption != want.Encryption || g.KMSKeyID != want.KMSKeyID || !g.CreateOnly() {
				t.Errorf("pushed %+v", g)
			}
		})
	}
}

// TestTraceparent: what is valid is kept with the push, and nothing else is an
// error.
func TestTraceparent(t *testing.T) {
	r := newRig(t)
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	r.receipt = push.Receipt{ID: "id", State: push.Done, Attempts: 1, Parts: 1, Traceparent: good}
	for given, want := range map[string]string{"": "", good: good, "00-me-too-01": ""} {
		resp, body := r.do(t, "POST", "/push", jsonType, `{"file":"/data/a","destination":"s3://bucket/a"}`, func(req *http.Request) {
			if given != "" {
				req.Header.Set("TraceParent", given)
			}
		})
		if resp.StatusCode != 200 || !strings.Contains(body, `"traceparent":"`+good+`"`) || r.opts.Traceparent != want {
			t.Errorf("%q: %s, pushed with %+v\n%s", given, resp.Status, r.opts, body)
		}
	}
}

func TestBadRequests(t *testing.T) {
	big := `{"file":"/a","destination":"s3://bucket/k","label":"` + strings.Repeat("x", 10<<20) + `"}`
	for name, tc := range map[string]struct {
		method, contentType, body string
		status                    int
		code                      push.Code
		says                      string
	}{
		"empty body":            {"POST", jsonType, "", 400, push.InvalidBody, "one JSON object"},
		"null":                  {"POST", jsonType, "null", 400, push.InvalidBody, "one JSON object"},
		"array":                 {"POST", jsonType, "[]", 400, push.InvalidBody, "one JSON object"},
		"string":                {"POST", jsonType, `"x"`, 400, push.InvalidBody, "one JSON object"},
		"not JSON":              {"POST", jsonType, "{file: 1}", 400, push.InvalidBody, "at byte"},
		"cut short":             {"POST", jsonType, `{"file":"/a"`, 400, push.InvalidBody, "JSON"},
		"two values":            {"POST", jsonType, `{"file":"/a","destination":"s3://bucket/k"}{}`, 400, push.InvalidBody, "after top-level value"},
		"not UTF-8":             {"POST", jsonType, "{\"file\":\"/\xff\",\"destination\":\"s3://bucket/k\"}", 400, push.InvalidBody, "UTF-8"},
		"unknown field":         {"POST", jsonType, `{"file":"/a","destination":"s3://bucket/k","colour":"red"}`, 400, push.UnknownField, `colour`},
		"field in capitals":     {"POST", jsonType, `{"File":"/a","destination":"s3://bucket/k"}`, 400, push.UnknownField, "File"},
		"file a number":         {"POST", jsonType, `{"file":7,"destination":"s3://bucket/k"}`, 400, push.InvalidField, "a string, not a number"},
		"file an array":         {"POST", jsonType, `{"file":["/a"],"destination":"s3://bucket/k"}`, 400, push.InvalidField, "a string, not an array"},
		"metadata a string":     {"POST", jsonType, `{"file":"/a","destination":"s3://bucket/k","metadata":"x"}`, 400, push.InvalidField, "an object of strings"},
		"tag a bool":            {"POST", jsonType, `{"file":"/a","destination":"s3://bucket/k","tags":{"x":true}}`, 400, push.InvalidField, "an object of strings"},
		"field null":            {"POST", jsonType, `{"file":null,"destination":"s3://bucket/k"}`, 400, push.InvalidField, "null"},
		"tag null":              {"POST", jsonType, `{"file":"/a","destination":"s3://bucket/k","tags":{"x":null}}`, 400, push.InvalidField, "null"},
		"JSON field twice":      {"POST", jsonType, `{"file":"/a","file":"/b","destination":"s3://bucket/k"}`, 400, push.InvalidField, "twice"},
		"half a character":      {"POST", jsonType, `{"file":"/a","destination":"s3://bucket/\ud800"}`, 400, push.InvalidBody, "surrogate"},
		"deep nesting":          {"POST", jsonType, strings.Repeat(`{"file":`, 20000), 413, push.BodyTooLarge, "body"},
		"10 MB body":            {"POST", jsonType, big, 413, push.BodyTooLarge, "send the file's path"},
		"10 MB form":            {"POST", formType, "file=" + strings.Repeat("x", 10<<20), 413, push.BodyTooLarge, "send the file's path"},
		"unknown form field":    {"POST", formType, "file=/a&destination=s3://bucket/k&colour=red", 400, push.UnknownField, "colour"},
		"form field twice":      {"POST", formType, "file=/a&file=/b&destination=s3://bucket/k", 400, push.InvalidField, "2 times"},
		"bad escape":            {"POST", formType, "file=%zz", 400, push.InvalidBody, "urlencode"},
		"JSON async text":       {"POST", jsonType, `{"file":"/a","destination":"s3://bucket/k","async":"true"}`, 400, push.InvalidField, "without quotes"},
		"JSON async number":     {"POST", jsonType, `{"file":"/a","destination":"s3://bucket/k","async":1}`, 400, push.InvalidField, "true or false"},
		"JSON async null":       {"POST", jsonType, `{"file":"/a","destination":"s3://bucket/k","async":null}`, 400, push.InvalidField, "null"},
		"JSON async twice":      {"POST", jsonType, `{"file":"/a","destination":"s3://bucket/k","async":true,"async":true}`, 400, push.InvalidField, "twice"},
		"JSON async capital":    {"POST", jsonType, `{"file":"/a","destination":"s3://bucket/k","Async":true}`, 400, push.UnknownField, "Async"},
		"form async yes":        {"POST", formType, "file=/a&destination=s3://bucket/k&async=yes", 400, push.InvalidField, `not \"yes\"`},
		"form async TRUE":       {"POST", formType, "file=/a&destination=s3://bucket/k&async=TRUE", 400, push.InvalidField, "true or false"},
		"form async empty":      {"POST", formType, "file=/a&destination=s3://bucket/k&async=", 400, push.InvalidField, "true or false"},
		"form async twice":      {"POST", formType, "file=/a&destination=s3://bucket/k&async=1&async=1", 400, push.InvalidField, "2 times"},
		"JSON overwrite text":   {"POST", jsonType, `{"file":"/a","destination":"s3://bucket/k","overwrite":"false"}`, 400, push.InvalidField, "true or false"},
		"JSON overwrite number": {"POST", jsonType, `{"file":"/a","destination":"s3://bucket/k","overwrite":0}`, 400, push.InvalidField, "true or false"},
		"JSON overwrite null":   {"POST", jsonType, `{"file":"/a","destination":"s3://bucket/k","overwrite":null}`, 400, push.InvalidField, "null"},
		"form overwrite 0":      {"POST", formType, "file=/a&destination=s3://bucket/k&overwrite=0", 400, push.InvalidField, `not \"0\"`},
		"form overwrite empty":  {"POST", formType, "file=/a&destination=s3://bucket/k&overwrite=", 400, push.InvalidField, "true or false"},
		"form overwrite twice":  {"POST", formType, "file=/a&destination=s3://bucket/k&overwrite=true&overwrite=true", 400, push.InvalidField, "2 times"},
		"semicolon":             {"POST", formType, "file=/a;destination=s3://bucket/k", 400, push.InvalidBody, "urlencode"},
		"no media type":         {"POST", "", `{"file":"/a"}`, 415, push.UnsupportedMedia, "application/json"},
		"text":                  {"POST", "text/plain", `{"file":"/a"}`, 415, push.UnsupportedMedia, "application/json"},
		"multipart form":        {"POST", "multipart/form-data; boundary=x", "--x--", 415, push.UnsupportedMedia, "curl -d"},
		"latin 1":               {"POST", "application/json; charset=latin1", "{}", 415, push.UnsupportedMedia, "UTF-8"},
		"malformed media":       {"POST", "application/json; charset", "{}", 415, push.UnsupportedMedia, "UTF-8"},
		"GET":                   {"GET", "", "", 405, push.MethodNotAllowed, "POST"},
		"PUT":                   {"PUT", jsonType, "{}", 405, push.MethodNotAllowed, "POST"},
		"invented method":       {"BREW", jsonType, "{}", 405, push.MethodNotAllowed, "POST"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			resp, body := r.do(t, tc.method, "/push", tc.contentType, tc.body)
			wantProblem(t, resp, body, tc.status, tc.code)
			if !strings.Contains(body, tc.says) {
				t.Errorf("the detail does not say %q: %s", tc.says, body)
			}
			if tc.status == 405 && resp.Header.Get("Allow") != "POST" {
				t.Errorf("Allow: %q", resp.Header.Get("Allow"))
			}
			if r.got.File != "" {
				t.Errorf("pushed %+v", r.got)
			}
		})
	}
}

func TestOtherRoutes(t *testing.T) {
	r := newRig(t)
	resp, body := r.do(t, "GET", "/healthz", "", "")
	if resp.StatusCode != 200 || !strings.Contains(body, `"status":"ok","version":"1.2.3","uptime_seconds":`) {
		t.Errorf("healthz: %s %s", resp.Status, body)
	}
	if resp, body := r.do(t, "GET", "/readyz", "", ""); resp.StatusCode != 200 || strings.Contains(body, "notes") {
		t.Errorf("readyz: %s %s", resp.Status, body)
	}
	r.notes = []string{"a journal that could not be read was moved aside"}
	if resp, body := r.do(t, "GET", "/readyz", "", ""); resp.StatusCode != 200 || !strings.Contains(body, `"notes":["a journal that could not be read was moved aside"]`) {
		t.Errorf("readyz with a note: %s %s", resp.Status, body)
	}
	if resp, body := r.do(t, "GET", "/healthz", "", ""); resp.StatusCode != 200 || strings.Contains(body, "notes") {
		t.Errorf("healthz with a note: %s %s", resp.Status, body)
	}
	if resp, body := r.do(t, "GET", "/openapi.yaml", "", ""); resp.StatusCode != 200 || body != "openapi: 3.1.0\n" {
		t.Errorf("openapi.yaml: %s %s", resp.Status, body)
	}
	if resp, body := r.do(t, "GET", "/metrics", "", ""); resp.StatusCode != 200 || !strings.Contains(body, `s3daemon_http_requests_total{route="/healthz",status="200"} 2`) {
		t.Errorf("metrics: %s %s", resp.Status, body)
	}
	resp, body = r.do(t, "GET", "/nothing", "", "")
	wantProblem(t, resp, body, 404, push.NotFound)
	resp, body = r.do(t, "DELETE", "/healthz", "", "")
	wantProblem(t, resp, body, 405, push.MethodNotAllowed)
	if resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow: %q", resp.Header.Get("Allow"))
	}

	r.notNow = push.Errorf(push.ShuttingDown, "the daemon is shutting down")
	resp, body = r.do(t, "GET", "/readyz", "", "")
	wantProblem(t, resp, body, 503, push.ShuttingDown)
	if resp.Header.Get("Retry-After") != "5" || !resp.Close {
		t.Errorf("Retry-After %q, close %v", resp.Header.Get("Retry-After"), resp.Close)
	}
	if resp, _ := r.do(t, "GET", "/healthz", "", ""); resp.StatusCode != 200 {
		t.Errorf("healthz while shutting down: %s", resp.Status)
	}
}

func TestFailures(t *testing.T) {
	r := newRig(t)
	body := `{"file":"/a","destination":"s3://bucket/k"}`
	r.receipt.ID = "0191"
	r.err = &push.Error{Code: push.StoreRefused, Detail: "no <such> bucket", Err: errors.New("hidden cause"),
		Store: &push.StoreAnswer{Status: 404, Code: "NoSuchBucket", RequestID: "req-1"}}
	resp, got := r.do(t, "POST", "/push", jsonType, body)
	want := `{"title":"Bad Gateway","status":502,"detail":"no <such> bucket","code":"store_refused","id":"0191","store":{"status":404,"code":"NoSuchBucket","request_id":"req-1"}}` + "\n"
	if resp.StatusCode != 502 || got != want {
		t.Errorf("%s\n%s\nwant\n%s", resp.Status, got, want)
	}

	r.err = errors.New("a secret of the inside")
	resp, got = r.do(t, "POST", "/push", jsonType, body)
	wantProblem(t, resp, got, 500, push.Internal)
	if strings.Contains(got, "secret") || !strings.Contains(r.log.String(), "a secret of the inside") {
		t.Errorf("the cause belongs into the log, not into %s", got)
	}

	r.fault = "no such luck"
	resp, got = r.do(t, "POST", "/push", jsonType, body)
	wantProblem(t, resp, got, 500, push.Internal)
	if strings.Contains(got, "luck") || !strings.Contains(r.log.String(), "no such luck") {
		t.Errorf("the cause of a panic belongs into the log, not into %s", got)
	}
	r.fault, r.err = nil, nil
	r.receipt.Attempts, r.receipt.Parts, r.receipt.State = 1, 1, push.Done
	if resp, _ := r.do(t, "POST", "/push", jsonType, body); resp.StatusCode != 200 {
		t.Errorf("after a panic: %s", resp.Status)
	}
}

// TestEveryCodeHasAStatus reads the codes from the source of package push, so
// that a new one cannot be forgotten.
func TestEveryCodeHasAStatus(t *testing.T) {
	source, err := os.ReadFile(filepath.Join("..", "push", "error.go"))
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(filepath.Join("..", "openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(source)) {
		_, rest, ok := strings.Cut(line, `Code = "`)
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, `"`)
		code := push.Code(name)
		n++
		if statusOf[code] == 0 {
			t.Errorf("%s has no status", code)
		}
		if code != push.NotFound && code != push.MethodNotAllowed && !strings.Contains(string(document), "`"+name+"`") {
			t.Errorf("%s is not in openapi.yaml", code)
		}
	}
	if n != len(statusOf) || n < 20 {
		t.Errorf("%d codes, %d statuses", n, len(statusOf))
	}
}

// TestGuard has what browsers send on behalf of pages of other origins, and
// what callers send that are none.
func TestGuard(t *testing.T) {
	header := func(pairs ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				r.Header.Set(pairs[i], pairs[i+1])
			}
		}
	}
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	own := func(r *http.Request) { r.Header.Set("Origin", "http://"+r.URL.Host) }
	for name, tc := range map[string]struct {
		change func(*http.Request)
		code   push.Code // empty: served
	}{
		"curl":                     {header(), ""},
		"localhost":                {host("localhost:15556"), ""},
		"LOCALHOST":                {host("LocalHost"), ""},
		"another loopback address": {host("127.0.0.2:1"), ""},
		"IPv6 loopback":            {host("[::1]:15556"), ""},
		"IPv6 loopback, no port":   {host("[::1]"), ""},
		"configured name":          {host("writer.example:80"), ""},
		"same origin":              {own, ""},
		"same origin, new browser": {header("Sec-Fetch-Site", "same-origin"), ""},
		"typed by the user":        {header("Sec-Fetch-Site", "none"), ""},
		"page of another site":     {header("Origin", "http://evil.example", "Sec-Fetch-Site", "cross-site"), push.CrossOrigin},
		"page of another port":     {header("Origin", "http://127.0.0.1:1", "Sec-Fetch-Site", "same-site"), push.CrossOrigin},
		"old browser":              {header("Origin", "http://evil.example"), push.CrossOrigin},
		"sandboxed page":           {header("Origin", "null"), push.CrossOrigin},
		"rebound name":             {host("evil.example"), push.ForeignHost},
		"rebound name, same origin": {func(r *http.Request) {
			r.Host = "evil.example:15556"
			r.Header.Set("Origin", "http://evil.example:15556")
		}, push.ForeignHost},
		"name that begins like ours":  {host("localhost.evil.example"), push.ForeignHost},
		"name that ends like ours":    {host("evil-localhost"), push.ForeignHost},
		"address of another host":     {host("192.0.2.1"), push.ForeignHost},
		"address that is not one":     {host("127.0.0.1.evil.example"), push.ForeignHost},
		"subdomain of the configured": {host("x.writer.example"), push.ForeignHost},
		"trailing dot":                {host("localhost.:15556"), push.ForeignHost},
		"configured, trailing dot":    {host("writer.example."), push.ForeignHost},
		"rebound name, trailing dot":  {host("evil.example."), push.ForeignHost},
		"decimal address":             {host("2130706433:15556"), push.ForeignHost},
		"hexadecimal address":         {host("0x7f000001"), push.ForeignHost},
		"hexadecimal parts":           {host("0x7f.1"), push.ForeignHost},
		"octal address":               {host("0177.0.0.1"), push.ForeignHost},
		"short address":               {host("127.1"), push.ForeignHost},
		"any address":                 {host("0.0.0.0:15556"), push.ForeignHost},
		"any address of IPv6":         {host("[::]:15556"), push.ForeignHost},
		"IPv6 loopback with a zone":   {host("[::1%25lo]:15556"), ""},
		"IPv4 loopback as IPv6":       {host("[::ffff:127.0.0.1]"), ""},
		"another address with a zone": {host("[fe80::1%25lo]"), push.ForeignHost},
		"a name for a port":           {host("localhost:evil.example"), push.ForeignHost},
		"an empty port":               {host("localhost:"), ""},
		"two ports":                   {host("localhost:80:80"), push.ForeignHost},
		"two names":                   {host("localhost,evil.example"), push.ForeignHost},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.receipt = push.Receipt{State: push.Done, Attempts: 1, Parts: 1}
			resp, body := r.do(t, "POST", "/push", formType, "file=/a&destination=s3://bucket/k", tc.change)
			if tc.code != "" {
				wantProblem(t, resp, body, 403, tc.code)
				if r.got.File != "" {
					t.Errorf("pushed %+v", r.got)
				}
			} else if resp.StatusCode != 200 {
				t.Errorf("%s\n%s", resp.Status, body)
			}
			for _, route := range everyRoute { // also where nothing can be done
				if tc.code == "" || route.method == "HEAD" {
					continue
				}
				resp, body := r.do(t, route.method, route.path, "", "", tc.change)
				wantProblem(t, resp, body, 403, tc.code)
			}
		})
	}
}

// TestStrangeHosts has what no client of Go's would send.
func TestStrangeHosts(t *testing.T) {
	r := newRig(t)
	for _, host := range []string{
		"localhost@evil.example", "localhost:80@evil.example", "evil@localhost", "evil:x@localhost:80", `localhost\.evil.example`, "localhost/evil.example",
		"localhost?evil.example", "localhost#evil.example", "localhost evil.example", " localhost", "localhost ", "lo\x00calhost", "[localhost]:80", "[127.0.0.1",
		"[::1", "::1]:80x", "127.0.0.1:80:evil.example", "127.0.0.1%00.evil.example", "127.0.0.1%2eevil.example", "http://localhost", "*", ".", ":80", "[]:80", "l\u043ecalhost", "",
	} {
		req := httptest.NewRequest("GET", "/healthz", nil)
		req.Host = host
		answer := httptest.NewRecorder()
		r.handler.ServeHTTP(answer, req)
		if answer.Code != http.StatusForbidden {
			t.Errorf("%q: %d", host, answer.Code)
		}
	}
}

// TestReading has what browsers send when a page has them read something, and a
// person has.
func TestReading(t *testing.T) {
	from := func(site, mode, dest string, more ...string) []string {
		return append([]string{"Sec-Fetch-Site", site, "Sec-Fetch-Mode", mode, "Sec-Fetch-Dest", dest}, more...)
	}
	const origin = "http://evil.example"
	for name, tc := range map[string]struct {
		method  string
		headers []string
		in      bool
	}{
		"typed, or a bookmark":             {"GET", from("none", "navigate", "document", "Sec-Fetch-User", "?1"), true},
		"a link on another page":           {"GET", from("cross-site", "navigate", "document", "Sec-Fetch-User", "?1"), true},
		"a link on another port":           {"GET", from("same-site", "navigate", "document"), true},
		"our own page":                     {"GET", from("same-origin", "cors", "empty"), true},
		"our own page's image":             {"GET", from("same-origin", "no-cors", "image"), true},
		"an image":                         {"GET", from("cross-site", "no-cors", "image"), false},
		"a script":                         {"GET", from("cross-site", "no-cors", "script"), false},
		"a style sheet of another port":    {"GET", from("same-site", "no-cors", "style"), false},
		"a frame":                          {"GET", from("cross-site", "navigate", "iframe"), false},
		"an object":                        {"GET", from("cross-site", "navigate", "object"), false},
		"fetch":                            {"GET", from("cross-site", "cors", "empty", "Origin", origin), false},
		"fetch without cors":               {"GET", from("cross-site", "no-cors", "empty"), false},
		"HEAD by fetch":                    {"HEAD", from("cross-site", "no-cors", "empty"), false},
		"an event source":                  {"GET", from("cross-site", "cors", "empty", "Origin", origin, "Accept", "text/event-stream"), false},
		"a web socket":                     {"GET", from("cross-site", "websocket", "empty", "Origin", origin, "Connection", "Upgrade", "Upgrade", "websocket"), false},
		"a web socket of an old browser":   {"GET", []string{"Origin", origin, "Connection", "Upgrade", "Upgrade", "websocket"}, false},
		"fetch of an old browser":          {"GET", []string{"Origin", origin}, false},
		"a page in a sandbox":              {"GET", []string{"Origin", "null"}, false},
		"a preflight":                      {"OPTIONS", from("cross-site", "cors", "empty", "Origin", origin, "Access-Control-Request-Method", "POST"), false},
		"a preflight to a private network": {"OPTIONS", []string{"Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Private-Network", "true"}, false},
		"a form that leads here":           {"POST", from("cross-site", "navigate", "document", "Sec-Fetch-User", "?1", "Origin", origin), false},
		"a form without an origin":         {"POST", from("cross-site", "navigate", "document"), false},
		"a prefetch by a page":             {"GET", from("cross-site", "navigate", "document", "Sec-Purpose", "prefetch"), false},
		"a prerender by a page":            {"GET", from("cross-site", "navigate", "document", "Sec-Purpose", "prefetch;prerender", "Purpose", "prefetch"), false},
		"a prefetch by an older browser":   {"GET", from("same-site", "navigate", "document", "Purpose", "prefetch"), false},
		"our own page's prefetch":          {"GET", from("same-origin", "navigate", "document", "Sec-Purpose", "prefetch"), true},
		"typed, and got in advance":        {"GET", from("none", "navigate", "document", "Sec-Purpose", "prefetch;prerender"), true},
		"a link that says an origin":       {"GET", from("cross-site", "navigate", "document", "Origin", origin), false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.queue.receipt = push.Receipt{State: push.Done, Attempts: 1, Parts: 1}
			for _, route := range everyRoute {
				resp, body := r.do(t, tc.method, route.path, "", "", func(req *http.Request) {
					for i := 0; i < len(tc.headers); i += 2 {
						req.Header.Set(tc.headers[i], tc.headers[i+1])
					}
				})
				if tc.in != (resp.StatusCode != http.StatusForbidden) {
					t.Errorf("%s %s: %s", tc.method, route.path, resp.Status)
				}
				if !tc.in && tc.method != "HEAD" {
					wantProblem(t, resp, body, 403, push.CrossOrigin)
				}
			}
		})
	}
}

// TestHeaders: every answer has those that keep pages of other origins off it,
// and none that would let one in.
func TestHeaders(t *testing.T) {
	r := newRig(t)
	r.queue.receipt = push.Receipt{State: push.Done, Attempts: 1, Parts: 1}
	for _, route := range everyRoute {
		for _, host := range []string{"localhost", "evil.example"} {
			resp, _ := r.do(t, route.method, route.path, "", "", func(req *http.Request) { req.Host = host })
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
				"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Cross-Origin-Resource-Policy": "same-origin",
				"Cross-Origin-Opener-Policy": "same-origin",
			} {
				if name == "Content-Security-Policy" && route.path == pagePath && resp.StatusCode == http.StatusOK {
					want = pagePolicy
				}
				if got := resp.Header.Values(name); len(got) != 1 || got[0] != want {
					t.Errorf("%s %s of %s: %s %q", route.method, route.path, host, name, got)
				}
			}
			for name := range resp.Header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s %s: the answer has %s", route.method, route.path, name)
				}
			}
		}
	}
}

// TestHostOnOtherListeners asks over a Unix socket, where any Host will do, and
// without a Host, which only HTTP/1.0 can.
func TestHostOnOtherListeners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	whole, _ := New(r.config())
	server := &http.Server{Handler: whole}
	go server.Serve(l)
	defer server.Close()
	for network, addr := range map[string]string{"unix": path, "tcp": r.server.Listener.Addr().String()} {
		conn, err := net.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		request := "GET /healthz HTTP/1.0\r\n\r\n"
		if network == "unix" {
			request = "GET /healthz HTTP/1.1\r\nHost: s3daemon\r\nConnection: close\r\n\r\n"
		}
		io.WriteString(conn, request)
		answer, err := io.ReadAll(conn)
		if err != nil || !strings.Contains(string(answer), "200 OK") {
			t.Errorf("%s: %v\n%s", network, err, answer)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(true, []byte(`{"file":"/a","destination":"s3://bucket/k","metadata":{"a":"b"}}`))
	f.Add(false, []byte("file=/a&destination=s3://bucket/k&tags.x=y"))
	f.Add(true, []byte(`{"file":"/a","destination":"s3://bucket/k","async":true}`))
	f.Add(false, []byte("file=/a&destination=s3://bucket/k&async=1"))
	f.Fuzz(func(t *testing.T, isJSON bool, body []byte) {
		decode := decodeForm
		if isJSON {
			decode = decodeJSON
		}
		req, err := decode(body)
		if err != nil {
			var known *push.Error
			if !errors.As(err, &known) || statusOf[known.Code] != 400 || strings.ContainsAny(known.Detail, "\r\n") {
				t.Fatalf("error %v of type %T", err, err)
			}
			return
		}
		if _, err := req.Check(); err == nil && (req.File == "" || req.Destination == "") {
			t.Fatalf("nothing to push is accepted: %+v", req)
		}
	})
}

// TestBodyThatDoesNotCome declares a body and does not send it, wherever such a
// request can go. Each must be answered, or cut off, and soon.
func TestBodyThatDoesNotCome(t *testing.T) {
	usual := bodyTimeout
	t.Cleanup(func() { bodyTimeout = usual })
	bodyTimeout = 100 * time.Millisecond
	r := newRig(t)
	for name, head := range map[string]string{
		"JSON":         "POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n",
		"half of it":   "POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"file",
		"text":         "POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n",
		"chunked":      "POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n",
		"no route":     "POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n",
		"foreign host": "POST /push HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 10\r\n",
		"list":         "GET /pushes?wait=1h HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n",
		"one push":     "GET /pushes/" + someID + "?wait=1h HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n",
		"retry":        "POST /pushes/" + someID + "/retry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n",
		"cancel":       "DELETE /pushes/" + someID + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n",
		"health":       "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if !strings.Contains(head, "\r\n\r\n") {
				head += "\r\n"
			}
			io.WriteString(conn, head)
			conn.SetReadDeadline(time.Now().Add(30 * time.Second))
			// To its end: the connection must not stay open either.
			answer, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 ") {
				t.Errorf("%v, answer %q", err, answer)
			}
			if name == "JSON" && !strings.Contains(string(answer), "did not arrive within") {
				t.Errorf("answer %q", answer)
			}
		})
	}
}

// TestSlowAnswer takes longer to answer than a body may take to come.
func TestSlowAnswer(t *testing.T) {
	usual := bodyTimeout
	t.Cleanup(func() { bodyTimeout = usual })
	bodyTimeout = 100 * time.Millisecond
	r := newRig(t)
	r.receipt = push.Receipt{State: push.Done, Attempts: 1, Parts: 1}
	r.takes = 5 * bodyTimeout
	for range 2 { // the connection is good for another
		if resp, body := r.do(t, "POST", "/push", formType, "file=/a&destination=s3://bucket/k"); resp.StatusCode != 200 {
			t.Errorf("%s %s", resp.Status, body)
		}
	}
}

func TestHead(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/", "/healthz", "/readyz", "/metrics", "/events", "/pushes?wait=1h", "/pushes/" + someID + "?wait=1h"} {
		r.queue.wait = -1
		resp, err := http.Head(r.server.URL + path)
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("HEAD %s: %v, %v", path, resp, err)
		}
		if strings.HasPrefix(path, "/pushes") && r.queue.wait != 0 {
			t.Errorf("HEAD %s waits %v", path, r.queue.wait)
		}
	}
}

// TestCallerWhoDoesNotListen sends 10 MB before he reads, as many clients do:
// he must hear the answer, not a broken connection.
func TestCallerWhoDoesNotListen(t *testing.T) {
	r := newRig(t)
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const size = 10 << 20
	fmt.Fprintf(conn, "POST /push HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", size)
	if _, err := conn.Write(make([]byte, size)); err != nil {
		t.Errorf("send: %v", err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 413 ") {
		t.Errorf("%v, answer %q", err, answer)
	}
}
