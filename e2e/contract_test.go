package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// contract is openapi.yaml of this checkout.
type contract struct {
	router  routers.Router
	problem *openapi3.Schema
	events  map[string]*openapi3.Schema // of the data of /events
}

var loadContract = sync.OnceValues(func() (*contract, error) {
	for _, text := range []string{"text/html", "text/event-stream"} {
		openapi3filter.RegisterBodyDecoder(text, openapi3filter.PlainBodyDecoder)
	}
	doc, err := openapi3.NewLoader().LoadFromFile(filepath.Join(repoDir, "openapi.yaml"))
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return nil, err
	}
	doc.Servers = nil // it is served on any port, and under any of its names
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		return nil, err
	}
	ref := doc.Components.Schemas["Problem"]
	if ref == nil {
		return nil, errors.New("there is no schema Problem")
	}
	events := make(map[string]*openapi3.Schema)
	for event, name := range map[string]string{"status": "StatusEvent", "pushes": "PushesEvent", "history": "HistoryEvent"} {
		ref := doc.Components.Schemas[name]
		if ref == nil {
			return nil, fmt.Errorf("there is no schema %s", name)
		}
		events[event] = ref.Value
	}
	return &contract{router, ref.Value, events}, nil
})

// checkContract reports how an answer differs from what openapi.yaml has for
// the request. An answer to a request that is not in there can only be a
// problem.
func checkContract(req *http.Request, a answer) error {
	c, err := loadContract()
	if err != nil {
		return fmt.Errorf("openapi.yaml: %w", err)
	}
	route, params, err := c.router.FindRoute(req)
	if err != nil {
		return c.checkProblem(a)
	}
	options := &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true}
	return openapi3filter.ValidateResponse(req.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request: req, Route: route, PathParams: params, Options: options,
		},
		Status:  a.status,
		Header:  a.header,
		Body:    io.NopCloser(bytes.NewReader(a.body)),
		Options: options,
	})
}

func (c *contract) checkProblem(a answer) error {
	if media, _, _ := mime.ParseMediaType(a.header.Get("Content-Type")); a.status < 400 || media != "application/problem+json" {
		return fmt.Errorf("the request is none of its operations, and the answer no problem but a %d of type %q", a.status, media)
	}
	value, err := openapi3filter.JSONBodyDecoder(bytes.NewReader(a.body), nil, nil, nil)
	if err != nil {
		return err
	}
	return c.problem.VisitJSON(value, openapi3.EnableJSONSchema2020(), openapi3.MultiErrors())
}

// checkEvent reports how the data of an event differs from what openapi.yaml has
// for it.
func checkEvent(name, data string) error {
	c, err := loadContract()
	if err != nil {
		return fmt.Errorf("openapi.yaml: %w", err)
	}
	schema := c.events[name]
	if schema == nil {
		return fmt.Errorf("there is no event %q", name)
	}
	value, err := openapi3filter.JSONBodyDecoder(strings.NewReader(data), nil, nil, nil)
	if err != nil {
		return err
	}
	return schema.VisitJSON(value, openapi3.EnableJSONSchema2020(), openapi3.MultiErrors())
}

// What checks every answer must itself be able to say no.
func TestContractIsChecked(t *testing.T) {
	if _, err := loadContract(); err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	const health = `{"status":"ok","version":"1","uptime_seconds":1}`
	tests := []struct {
		name         string
		method, path string
		status       int
		contentType  string
		body         string
		ok           bool
	}{
		{"health", "GET", "/healthz", 200, "application/json", health, true},
		{"with a charset", "GET", "/healthz", 200, "application/json; charset=utf-8", health, true},
		{"unknown member", "GET", "/healthz", 200, "application/json", `{"status":"ok","version":"1","uptime_seconds":1,"x":2}`, false},
		{"missing member", "GET", "/healthz", 200, "application/json", `{"status":"ok","version":"1"}`, false},
		{"wrong type", "GET", "/healthz", 200, "application/json", `{"status":"ok","version":1,"uptime_seconds":1}`, false},
		{"wrong enum", "GET", "/healthz", 200, "application/json", `{"status":"fine","version":"1","uptime_seconds":1}`, false},
		{"below minimum", "GET", "/healthz", 200, "application/json", `{"status":"ok","version":"1","uptime_seconds":-1}`, false},
		{"no JSON", "GET", "/healthz", 200, "application/json", `ok`, false},
		{"other media type", "GET", "/healthz", 200, "text/html", health, false},
		{"undocumented status", "GET", "/healthz", 418, "application/json", health, false},
		{"metrics", "GET", "/metrics", 200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", "a 1\n", true},
		{"the document", "GET", "/openapi.yaml", 200, "application/yaml", "openapi: 3.1.0\n", true},
		{"the document as text", "GET", "/openapi.yaml", 200, "text/plain", "openapi: 3.1.0\n", false},
		{"problem", "POST", "/push", 404, "application/problem+json", `{"title":"Not Found","status":404,"detail":"d","code":"file_not_found"}`, true},
		{"problem as JSON", "POST", "/push", 404, "application/json", `{"title":"Not Found","status":404,"detail":"d","code":"file_not_found"}`, false},
		{"problem without code", "POST", "/push", 404, "application/problem+json", `{"title":"Not Found","status":404,"detail":"d"}`, false},
		{"no such path", "GET", "/nothing", 404, "application/problem+json", `{"title":"Not Found","status":404,"detail":"d","code":"not_found"}`, true},
		{"no such path, in words", "GET", "/nothing", 404, "text/plain", "404 page not found", false},
		{"no such path, without code", "GET", "/nothing", 404, "application/problem+json", `{"title":"Not Found","status":404,"detail":"d"}`, false},
		{"no such method", "GET", "/push", 405, "application/problem+json", `{"title":"Method Not Allowed","status":405,"detail":"d","code":"method_not_allowed"}`, true},
		{"no such path, answered", "GET", "/nothing", 200, "application/json", health, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequest(tt.method, "http://127.0.0.1:1"+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			a := answer{tt.status, http.Header{"Content-Type": {tt.contentType}}, []byte(tt.body)}
			if err := checkContract(req, a); (err == nil) != tt.ok {
				t.Errorf("checkContract says %v, want an answer that is in order: %v", err, tt.ok)
			}
		})
	}
}
