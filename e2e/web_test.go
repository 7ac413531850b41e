package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
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

// browsers are what tells the requests of one kind of browser from another's.
var browsers = []struct {
	name, agent string
	metadata    bool // sends Sec-Fetch-Site and its like
}{
	{"Chrome", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36", true},
	{"Firefox", "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0", true},
	{"Safari", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15", true},
	{"a Safari before 16.4", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/15.0 Safari/605.1.15", false},
}

// All that a page of another site can have a browser send without asking first,
// and what the browser sends when it has to ask. Nothing of it makes a push, or
// gets an answer.
func TestBrowsers(t *testing.T) {
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	const origin = "http://evil.example"
	form := url.Values{"file": {file}, "destination": {"s3://" + bucket + "/key"}}.Encode()
	json := fmt.Sprintf(`{"file": %q, "destination": "s3://%s/key"}`, file, bucket)
	multipart := "--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n" + file + "\r\n--b--\r\n"
	pages := []string{"/push", "/pushes", "/events", "/healthz", "/metrics", "/openapi.yaml", "/", "/none"}

	for _, a := range []struct {
		name              string
		method            string
		paths             []string
		mode, dest        string
		contentType, body string
		origin            string // "" where the browser sends none
		more              string // headers, NAME: VALUE, a line each
		onlyNew           bool   // an old browser sends nothing that tells it from what is no browser
	}{
		{"a form", "POST", pages, "navigate", "document", "application/x-www-form-urlencoded", form, origin, "Upgrade-Insecure-Requests: 1", false},
		{"a form of a page that hides where it is", "POST", pages, "navigate", "document", "application/x-www-form-urlencoded", form, "null", "", false},
		{"a form into a frame", "POST", pages, "navigate", "iframe", "application/x-www-form-urlencoded", form, origin, "", false},
		{"a form as text that is JSON", "POST", pages, "navigate", "document", "text/plain", json + "=", origin, "", false},
		{"a form with files", "POST", pages, "navigate", "document", "multipart/form-data; boundary=b", multipart, origin, "", false},
		{"fetch without cors", "POST", pages, "no-cors", "empty", "application/x-www-form-urlencoded;charset=UTF-8", form, origin, "", false},
		{"fetch without cors, JSON as text", "POST", pages, "no-cors", "empty", "text/plain;charset=UTF-8", json, origin, "", false},
		{"fetch without cors and without a type", "POST", pages, "no-cors", "empty", "", json, origin, "", false},
		{"a beacon", "POST", pages, "no-cors", "empty", "application/x-www-form-urlencoded;charset=UTF-8", form, origin, "", false},
		{"a beacon of a blob", "POST", pages, "no-cors", "empty", "text/plain", json, origin, "", false},
		{"fetch with cors that need not be asked for", "POST", pages, "cors", "empty", "application/x-www-form-urlencoded", form, origin, "", false},
		{"the question before JSON", "OPTIONS", pages, "cors", "empty", "", "", origin, "Access-Control-Request-Method: POST\nAccess-Control-Request-Headers: content-type", false},
		{"the question before a private network", "OPTIONS", pages, "cors", "empty", "", "", origin, "Access-Control-Request-Method: POST\nAccess-Control-Request-Private-Network: true", false},
		{"the question before a DELETE", "OPTIONS", []string{"/pushes/x"}, "cors", "empty", "", "", origin, "Access-Control-Request-Method: DELETE", false},
		{"a DELETE that was not asked for", "DELETE", []string{"/pushes/x"}, "cors", "empty", "", "", origin, "", false},
		{"fetch that reads", "GET", pages, "cors", "empty", "", "", origin, "", false},
		{"an event source", "GET", pages, "cors", "empty", "", "", origin, "Accept: text/event-stream", false},
		{"a web socket", "GET", pages, "websocket", "empty", "", "", origin, "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", false},
		{"a module script", "GET", pages, "cors", "script", "", "", origin, "", false},
		{"a font", "GET", pages, "cors", "font", "", "", origin, "", false},
		{"an image", "GET", pages, "no-cors", "image", "", "", "", "", true},
		{"a script", "GET", pages, "no-cors", "script", "", "", "", "", true},
		{"a style sheet", "GET", pages, "no-cors", "style", "", "", "", "", true},
		{"a frame", "GET", pages, "navigate", "iframe", "", "", "", "", true},
		{"an object", "GET", pages, "navigate", "object", "", "", "", "", true},
		{"a form that reads, into a frame", "GET", []string{"/push?" + form, "/pushes?wait=1h"}, "navigate", "iframe", "", "", "", "", true},
		{"a prefetch", "GET", pages, "no-cors", "empty", "", "", "", "Sec-Purpose: prefetch", true},
	} {
		for _, b := range browsers {
			for _, site := range []string{"cross-site", "same-site"} { // another port of this host is the same site
				if !b.metadata && (a.onlyNew || site == "same-site") {
					continue
				}
				t.Run(strings.Join([]string{a.name, b.name, site}, "/"), func(t *testing.T) {
					before := p.bytesSent()
					for _, path := range a.paths {
						req := d.request(context.Background(), a.method, path, a.contentType, a.body)
						req.Header.Set("User-Agent", b.agent)
						if a.origin != "" {
							req.Header.Set("Origin", a.origin)
						}
						if b.metadata {
							req.Header.Set("Sec-Fetch-Site", site)
							req.Header.Set("Sec-Fetch-Mode", a.mode)
							req.Header.Set("Sec-Fetch-Dest", a.dest)
						}
						for line := range strings.SplitSeq(a.more, "\n") {
							if name, value, found := strings.Cut(line, ": "); found {
								req.Header.Set(name, value)
							}
						}
						answer := d.do(t, req)
						answer.refused(t, http.StatusForbidden, "cross_origin")
						checkNoPage(t, answer.header)
					}
					if sent := p.bytesSent() - before; sent != 0 {
						t.Errorf("%d bytes went to the store", sent)
					}
				})
			}
		}
	}

	// A person follows a link, has a bookmark, or types the address.
	for _, site := range []string{"cross-site", "same-site", "same-origin", "none"} {
		req := d.request(context.Background(), "GET", "/pushes", "", "")
		for name, value := range map[string]string{"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"} {
			req.Header.Set(name, value)
		}
		answer := d.do(t, req)
		if answer.status != http.StatusOK {
			t.Errorf("%s: %d", site, answer.status)
		}
		checkNoPage(t, answer.header)
	}
	if n := len(listObjects(t, bucket)); n != 0 {
		t.Errorf("%d objects were made", n)
	}
}

// checkNoPage checks that no page can use an answer: neither read, frame nor
// run it.
func checkNoPage(t *testing.T, header http.Header) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff",
		"Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for name := range header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("the answer has the header %s", name)
		}
	}
}

// A name of somebody else's that leads here (DNS rebinding) is of the same
// origin as the page that was loaded under it, so only the Host header tells.
// Here it is in all the ways that a browser, or something before it, may write it.
func TestForeignHosts(t *testing.T) {
	d := startDaemon(t, "S3DAEMON_HOSTS=push.example")
	addr := strings.TrimPrefix(d.url, "http://")
	_, port, _ := net.SplitHostPort(addr)
	for _, tt := range []struct {
		host string
		in   bool
	}{
		{"127.0.0.1:" + port, true}, {"localhost:" + port, true}, {"LocalHost", true}, {"push.example", true}, {"[::1]:" + port, true}, {"127.0.0.1:1", true},
		{"evil.example", false}, {"EVIL.EXAMPLE:" + port, false}, {"evil.example.", false}, {"evil.example:80", false},
		{"localhost.", false}, {"localhost.:" + port, false}, {"push.example.", false}, {"a.push.example", false}, {"localhost.evil.example", false},
		{"127.0.0.1.evil.example", false}, {"127.0.0.1.", false}, {"evil.example:" + port + ":" + port, false},
		{"localhost@evil.example", false}, {"localhost:" + port + "@evil.example", false}, {"evil.example#localhost", false}, {"evil.example?localhost", false},
		{`localhost\.evil.example`, false}, {"localhost, evil.example", false}, {"localhost evil.example", false},
		{"2130706433", false}, {"0x7f000001:" + port, false}, {"0x7f.1", false}, {"0177.0.0.1", false}, {"017700000001", false}, {"127.1", false}, {"127.000.000.001", false},
		{"0.0.0.0:" + port, false}, {"[::]:" + port, false}, {"[::ffff:10.0.0.1]", false}, {"[fe80::1%25lo]", false}, {"192.0.2.1", false}, {"[", false}, {":" + port, false},
	} {
		conn, err := dialDaemon(addr)
		if err != nil {
			t.Fatal(err)
		}
		for _, route := range []string{"GET /pushes", "GET /metrics", "GET /none", "OPTIONS /push", "OPTIONS *", "PUT /push"} {
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: %s\r\n\r\n", route, tt.host)
		}
		reader := bufio.NewReader(conn)
		for i := range 6 {
			resp, err := http.ReadResponse(reader, nil)
			if err != nil && i > 0 && !tt.in { // net/http itself has refused the first, and closed
				break
			} else if err != nil {
				t.Fatalf("%q: %v", tt.host, err)
			}
			io.Copy(io.Discard, resp.Body)
			refused := resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusBadRequest
			if refused == tt.in {
				t.Errorf("%q: %s", tt.host, resp.Status)
			}
		}
		conn.Close()
	}
}
