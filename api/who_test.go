package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

const goodToken = "0123456789abcdef"

// everyRoute has a request for each route, some that there are none of, and
// whether it is for all.
var everyRoute = []struct {
	method, path string
	open         bool
}{
	{"GET", "/healthz", true}, {"HEAD", "/healthz", true}, {"POST", "/healthz", true}, {"GET", "/readyz", true}, {"GET", "/metrics", true},
	{"POST", "/push", false}, {"GET", "/pushes", false}, {"GET", "/pushes/" + someID, false}, {"DELETE", "/pushes/" + someID, false},
	{"POST", "/pushes/" + someID + "/retry", false}, {"GET", "/openapi.yaml", false}, {"GET", "/events", false}, {"HEAD", "/events", false}, {"GET", "/none", false},
	{"GET", "/", true}, {"HEAD", "/", true}, {"PATCH", "/", true}, {"GET", "//", false}, {"GET", "/index.html", false}, {"GET", "/%2f", false}, {"GET", "/.", false},
	{"PUT", "/push", false}, {"OPTIONS", "/push", false}, {"HEAD", "/pushes", false},
	{"GET", "//healthz", false}, {"GET", "/healthz/", false}, {"GET", "/%68ealthz", false}, {"GET", "/push%2f..%2fhealthz", false},
	{"GET", "/healthz/../pushes", false}, {"GET", "/healthz%2f..%2fpushes", false}, {"GET", "/HEALTHZ", false},
}

// TestToken: a request over TCP needs a token on every route, but for what
// everybody may know.
func TestToken(t *testing.T) {
	r := newRigWith(t, func(c *Config) { c.Tokens = func(token string) bool { return token == goodToken } })
	r.queue.receipt = push.Receipt{State: push.Done, Attempts: 1, Parts: 1}
	for _, route := range everyRoute {
		for _, header := range []string{"", "Bearer " + goodToken + "0", "Bearer " + goodToken} {
			resp, body := r.do(t, route.method, route.path, "", "", func(req *http.Request) {
				if header != "" {
					req.Header.Set("Authorization", header)
				}
			})
			in := route.open || strings.HasSuffix(header, goodToken)
			if (resp.StatusCode != http.StatusUnauthorized) != in || (resp.Header.Get("WWW-Authenticate") == `Bearer realm="s3daemon"`) == in {
				t.Errorf("%s %s with %q: %s, %q", route.method, route.path, header, resp.Status, resp.Header.Get("WWW-Authenticate"))
			}
			if !in && route.method != "HEAD" {
				wantProblem(t, resp, body, http.StatusUnauthorized, push.Unauthorized)
			}
		}
	}
	if strings.Contains(r.log.String(), goodToken) {
		t.Error("the log has the token")
	}
}

// TestAuthorization has the header in all the ways that it may come.
func TestAuthorization(t *testing.T) {
	r := newRigWith(t, func(c *Config) { c.Tokens = func(token string) bool { return token == goodToken } })
	for _, tt := range []struct {
		values []string
		in     bool
	}{
		{[]string{"Bearer " + goodToken}, true},
		{[]string{"bearer " + goodToken}, true},
		{[]string{"BEARER   " + goodToken}, true},
		{[]string{"Bearer " + goodToken + " "}, true}, // HTTP has no blanks at the end of a value
		{nil, false},
		{[]string{""}, false},
		{[]string{"Bearer"}, false},
		{[]string{"Bearer "}, false},
		{[]string{goodToken}, false},
		{[]string{"Bearer\t" + goodToken}, false},
		{[]string{"Bearer \t" + goodToken}, false},
		{[]string{"Bearer:" + goodToken}, false},
		{[]string{"Bearer=" + goodToken}, false},
		{[]string{"Bearer " + goodToken + "," + goodToken}, false},
		{[]string{"Bearer " + goodToken + " x"}, false},
		{[]string{`Bearer "` + goodToken + `"`}, false},
		{[]string{"Bearer token=" + goodToken}, false},
		{[]string{"Bearer " + strings.ToUpper(goodToken)}, false},
		{[]string{"Bearer " + goodToken[:15]}, false},
		{[]string{"Basic " + goodToken}, false},
		{[]string{"Basic OjAxMjM0NTY3ODlhYmNkZWY="}, false},
		{[]string{"Bearer " + goodToken, "Bearer " + goodToken}, false},
		{[]string{"Basic x", "Bearer " + goodToken}, false},
		{[]string{"Bearer " + goodToken, ""}, false},
		{[]string{"Bearer " + strings.Repeat(goodToken, 1000)}, false},
		{[]string{"Bearer " + strings.Repeat(" ", 10000) + goodToken}, true},
	} {
		resp, body := r.do(t, "GET", "/pushes", "", "", func(req *http.Request) {
			for _, v := range tt.values {
				req.Header.Add("Authorization", v)
			}
		})
		what := fmt.Sprintf("%.60q", tt.values)
		if tt.in != (resp.StatusCode == http.StatusOK) {
			t.Errorf("%s: %s", what, resp.Status)
		}
		if !tt.in {
			wantProblem(t, resp, body, http.StatusUnauthorized, push.Unauthorized)
		}
		if strings.Contains(body, goodToken) {
			t.Errorf("%s: the answer repeats the token: %s", what, body)
		}
	}
	for _, other := range []string{"/pushes?access_token=" + goodToken, "/pushes?token=" + goodToken} {
		if resp, _ := r.do(t, "GET", other, "", ""); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %s", other, resp.Status)
		}
	}
}

// TestUsers asks over a Unix socket, as users that the connection is said to be
// of, and without one.
func TestUsers(t *testing.T) {
	ask := func(t *testing.T, users []uint32, user string, path string) (*http.Response, string) {
		t.Helper()
		r := newRigWith(t, func(c *Config) {
			c.Users = users
			c.Tokens = func(string) bool { return false } // of which a socket needs none
		})
		socket := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: r.handler, ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			var uid uint32
			if n, _ := fmt.Sscan(user, &uid); n == 1 {
				ctx = WithUser(ctx, uid)
			}
			return ctx
		}}
		go server.Serve(l)
		defer server.Close()
		client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}}
		return r.doWith(t, &client, "GET", path, "", "")
	}
	for _, tt := range []struct {
		users []uint32
		user  string
		in    bool
	}{
		{nil, "1000", true}, {nil, "unknown", true},
		{[]uint32{1000}, "1000", true}, {[]uint32{5, 1000, 7}, "1000", true}, {[]uint32{0}, "0", true},
		{[]uint32{1000}, "1001", false}, {[]uint32{1000}, "0", false}, {[]uint32{1000}, "unknown", false}, {[]uint32{0}, "unknown", false},
	} {
		for _, path := range []string{"/pushes", "/none", "/", "/healthz"} {
			resp, body := ask(t, tt.users, tt.user, path)
			in := tt.in || path == "/" || path == "/healthz"
			if in != (resp.StatusCode != http.StatusForbidden) {
				t.Errorf("%v may, %s asks for %s: %s", tt.users, tt.user, path, resp.Status)
			}
			if !in {
				wantProblem(t, resp, body, http.StatusForbidden, push.UserNotAllowed)
			}
		}
	}
}

// TestUsersAreNotOfTCP: whoever asks over TCP is nobody, and needs the token
// only.
func TestUsersAreNotOfTCP(t *testing.T) {
	r := newRigWith(t, func(c *Config) { c.Users = []uint32{1000} })
	if resp, body := r.do(t, "GET", "/pushes", "", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("%s\n%s", resp.Status, body)
	}
}

// TestFloodOfRefusals has many bad requests of each kind, which must not each
// have a line in the log.
func TestFloodOfRefusals(t *testing.T) {
	r := newRigWith(t, func(c *Config) { c.Tokens = func(string) bool { return false } })
	const many = 300
	for range many {
		r.do(t, "GET", "/pushes", "", "")
		r.do(t, "GET", "/healthz", "", "", func(req *http.Request) { req.Host = "evil.example" })
	}
	if lines := strings.Count(r.log.String(), "request not allowed"); lines == 0 || lines > many {
		t.Errorf("%d requests, %d lines", 2*many, lines)
	}
}
