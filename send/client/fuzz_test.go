package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// played is a connection on which the answer stands beforehand.
type played struct{ *bytes.Reader }

func (played) Write(b []byte) (int, error)      { return len(b), nil }
func (played) Close() error                     { return nil }
func (played) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (played) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (played) SetDeadline(time.Time) error      { return nil }
func (played) SetReadDeadline(time.Time) error  { return nil }
func (played) SetWriteDeadline(time.Time) error { return nil }

// FuzzAnswer: a push is done only if the answer is 200 with a receipt that says
// so, whatever else comes over the connection; and what is told of any other
// answer is one line.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"state\":\"done\"}",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"state\":\"done\"}",
		"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\n\r\n{\"id\":\"1\",\"state\":\"queued\"}",
		"HTTP/1.1 503 x\r\nRetry-After: 5\r\nContent-Type: application/problem+json\r\n\r\n{\"detail\":\"a\\nb\",\"code\":\"shutting_down\"}",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n10\r\n{\"state\":\"done\"}\r\n",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.0 200\r\n\r\n", "Success",
		"HTTP/0.0 000 \n\nHTTP/0.0 200 \nContent-Type:application/json\n\n{\"state\":\"done\"}", "", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := New("http://daemon.example:1", nil)
		if err != nil {
			t.Fatal(err)
		}
		d.dial = func(context.Context) (net.Conn, error) { return played{bytes.NewReader(text)}, nil }
		err = d.Push(t.Context(), "/a", "s3://bucket/k")
		if err == nil && !saysDone(text) {
			t.Errorf("%q is taken for the end of a push", text)
		}
		if err != nil && strings.ContainsAny(Explain(err), "\r\n\x00\x1b") {
			t.Errorf("of %q it is said: %q", text, Explain(err))
		}
		if a, err := d.Get(t.Context(), "1", 0); err == nil && (a.Receipt.ID == "" || !json.Valid(a.Body)) {
			t.Errorf("%q is taken for the receipt %+v", text, a.Receipt)
		}
		if p, err := d.List(t.Context(), Query{}); err == nil && !bytes.Contains(bytes.ToLower(text), []byte("pending")) && !bytes.Contains(text, []byte(`\u`)) {
			t.Errorf("%q is taken for the list %+v", text, p)
		}
	})
}

// saysDone reads the answer as somebody would who has all of it.
func saysDone(text []byte) bool {
	reader := bufio.NewReader(bytes.NewReader(text))
	for {
		resp, err := http.ReadResponse(reader, &http.Request{Method: http.MethodPost})
		if err != nil {
			return false
		}
		if resp.StatusCode/100 == 1 {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		var r push.Receipt
		return err == nil && resp.StatusCode == http.StatusOK && json.Unmarshal(body, &r) == nil && r.State == push.Done
	}
}

// FuzzURL: a daemon's URL leads where it says, and to nothing else; of what is
// none it is told why, in one line.
func FuzzURL(f *testing.F) {
	for _, s := range []string{
		DefaultURL, "unix:/run/d.sock", "unix:///run/d.sock", "http://h", "http://[::1]:1/base/", "http://u:p@h", "http://h?q", "http://h#f", "https://h",
		"http://", "unix:x", "http://h:99999", "http://h/%2e%2e", "http://h:80\r\nX: y", "http://h\x00", "http://[::1%25lo]:1", "http://]", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, where string) {
		to, err := parse(where)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n\x00") {
				t.Errorf("of %q it is said: %q", where, err)
			}
			return
		}
		if to.network == "unix" {
			if !strings.HasSuffix(where, to.address) || !strings.HasPrefix(to.address, "/") {
				t.Errorf("%q leads to the socket %q", where, to.address)
			}
			return
		}
		host, port, err := net.SplitHostPort(to.address)
		u, urlErr := url.Parse(where)
		if err != nil || urlErr != nil || host != u.Hostname() || u.Port() != "" && port != u.Port() || u.User != nil {
			t.Errorf("%q leads to %q: %v, %v", where, to.address, err, urlErr)
		}
		if strings.ContainsFunc(to.host+to.path, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			t.Errorf("%q would be asked as %q at %q", where, to.host, to.path)
		}
	})
}
