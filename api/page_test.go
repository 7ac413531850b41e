package api

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

const pagePolicy = "default-src 'none'; style-src 'sha256-x'"

func somePage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", pagePolicy)
	io.WriteString(w, "<!DOCTYPE html><title>s3daemon</title>\n")
}

// TestPage: the page needs no token, and what it shows does; it is for no other
// name and no other page; and it has a policy of its own.
func TestPage(t *testing.T) {
	r := newRigWith(t, func(c *Config) { c.Tokens = func(string) bool { return false } })
	resp, body := r.do(t, "GET", "/", "", "")
	if resp.StatusCode != http.StatusOK || body != "<!DOCTYPE html><title>s3daemon</title>\n" {
		t.Errorf("%s\n%s", resp.Status, body)
	}
	if policy := resp.Header.Values("Content-Security-Policy"); len(policy) != 1 || policy[0] != pagePolicy {
		t.Errorf("the policy is %q", policy)
	}
	if resp, body := r.do(t, "HEAD", "/", "", ""); resp.StatusCode != http.StatusOK || body != "" {
		t.Errorf("HEAD: %s\n%s", resp.Status, body)
	}
	resp, body = r.do(t, "GET", "/pushes", "", "")
	wantProblem(t, resp, body, http.StatusUnauthorized, push.Unauthorized)
	resp, body = r.do(t, "GET", "/", "", "", func(req *http.Request) { req.Host = "evil.example" })
	wantProblem(t, resp, body, http.StatusForbidden, push.ForeignHost)
	resp, body = r.do(t, "GET", "/", "", "", func(req *http.Request) {
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		req.Header.Set("Sec-Fetch-Mode", "navigate")
		req.Header.Set("Sec-Fetch-Dest", "iframe")
	})
	wantProblem(t, resp, body, http.StatusForbidden, push.CrossOrigin)
	resp, body = r.do(t, "POST", "/", "", "")
	wantProblem(t, resp, body, http.StatusMethodNotAllowed, push.MethodNotAllowed)
}

// TestPageOfNoPath: a target without a path is no address of the page.
func TestPageOfNoPath(t *testing.T) {
	r := newRig(t)
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("%v, %+v", err, resp)
	}
}
