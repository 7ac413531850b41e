package e2e

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// A web page in a browser on the daemon's host may send forms to it without
// asking, and may have a name of its own that leads there. Neither gets
// anything, and nothing reaches the store.
func TestWebPages(t *testing.T) {
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_HOSTS=push.example, other.example")
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	port := d.url[strings.LastIndexByte(d.url, ':'):]
	form := url.Values{"file": {file}, "destination": {"s3://" + bucket + "/key"}}.Encode()
	const formType = "application/x-www-form-urlencoded"

	tests := []struct {
		name         string
		method, path string
		contentType  string
		host         string // "" for the daemon's own
		header       map[string]string
		code         string // "" where the request is in order
	}{
		{"a form of another site", "POST", "/push", formType, "",
			map[string]string{"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, "cross_origin"},
		{"a form of another site, by an old browser", "POST", "/push", formType, "",
			map[string]string{"Origin": "http://evil.example"}, "cross_origin"},
		{"a form of a page without origin", "POST", "/push", formType, "",
			map[string]string{"Origin": "null", "Sec-Fetch-Site": "cross-site"}, "cross_origin"},
		{"a form of another port of this host", "POST", "/push", formType, "",
			map[string]string{"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"}, "cross_origin"},
		{"a form sent as text", "POST", "/push", "text/plain", "",
			map[string]string{"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, "cross_origin"},
		{"a name that leads here", "POST", "/push", formType, "evil.example" + port, nil, "foreign_host"},
		{"a name that leads here, and its own page", "POST", "/push", formType, "evil.example" + port,
			map[string]string{"Origin": "http://evil.example" + port, "Sec-Fetch-Site": "same-origin"}, "foreign_host"},
		{"a name that begins like ours", "POST", "/push", formType, "localhost.evil.example" + port, nil, "foreign_host"},
		{"an address that begins like ours", "POST", "/push", formType, "127.0.0.1.evil.example", nil, "foreign_host"},
		{"another address", "POST", "/push", formType, "192.0.2.1" + port, nil, "foreign_host"},
		{"reading health under a foreign name", "GET", "/healthz", "", "evil.example", nil, "foreign_host"},
		{"reading readiness under a foreign name", "GET", "/readyz", "", "evil.example", nil, "foreign_host"},
		{"reading metrics under a foreign name", "GET", "/metrics", "", "evil.example", nil, "foreign_host"},
		{"reading the document under a foreign name", "GET", "/openapi.yaml", "", "evil.example", nil, "foreign_host"},
		{"reading nothing under a foreign name", "GET", "/", "", "evil.example", nil, "foreign_host"},

		{"no browser", "POST", "/push", formType, "", nil, ""},
		{"a page of ours", "POST", "/push", formType, "", map[string]string{"Origin": d.url, "Sec-Fetch-Site": "same-origin"}, ""},
		{"localhost", "POST", "/push", formType, "localhost" + port, nil, ""},
		{"LOCALHOST without a port", "POST", "/push", formType, "LOCALHOST", nil, ""},
		{"loopback of IPv6", "POST", "/push", formType, "[::1]" + port, nil, ""},
		{"a configured name", "POST", "/push", formType, "push.example" + port, nil, ""},
		{"another configured name", "GET", "/metrics", "", "other.example", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := p.bytesSent()
			body := ""
			if tt.method == "POST" {
				body = form
			}
			req := d.request(context.Background(), tt.method, tt.path, tt.contentType, body)
			if tt.host != "" {
				req.Host = tt.host
			}
			for name, value := range tt.header {
				req.Header.Set(name, value)
			}
			a := d.do(t, req)
			for name := range a.header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("the answer has the header %s", name)
				}
			}
			if tt.code == "" {
				if a.status != http.StatusOK {
					t.Errorf("the answer is %d: %s", a.status, a.body)
				}
				return
			}
			a.refused(t, http.StatusForbidden, tt.code)
			if sent := p.bytesSent() - before; sent != 0 || len(listObjects(t, bucket)) != 0 {
				t.Errorf("%d bytes went to the store", sent)
			}
		})
	}
	checkObject(t, bucket, "key", file)
}
