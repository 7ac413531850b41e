package api

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsst-dm/s3daemon/push"
)

// script is a connection on which all has been said beforehand, and that keeps
// what is answered.
type script struct {
	said     *bytes.Reader
	answered bytes.Buffer
	over     chan struct{} // closed when the server is done with it
	once     sync.Once
}

func (s *script) Read(b []byte) (int, error)       { return s.said.Read(b) }
func (s *script) Write(b []byte) (int, error)      { return s.answered.Write(b) }
func (s *script) Close() error                     { s.once.Do(func() { close(s.over) }); return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 15556} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// scripts is a listener to which such connections come.
type scripts chan *script

func (s scripts) Accept() (net.Conn, error) {
	c, ok := <-s
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (s scripts) Close() error   { return nil }
func (s scripts) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 15556} }

// counting counts what it is asked for, and does it at once.
type counting struct {
	mu    sync.Mutex
	asked []string // the methods
}

func (c *counting) note(method string) (push.Receipt, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, method)
	return push.Receipt{ID: someID, State: push.Done}, nil
}

func (c *counting) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := c.asked
	c.asked = nil
	return asked
}

func (c *counting) Push(_ context.Context, r push.Request, _ push.Options) (push.Receipt, error) {
	if _, err := r.Check(); err != nil {
		return push.Receipt{}, err
	}
	return c.note("POST /push")
}
func (c *counting) Ready() ([]string, error) { return nil, nil }
func (c *counting) Get(context.Context, push.ID, time.Duration) (push.Receipt, error) {
	return push.Receipt{ID: someID, State: push.Done}, nil
}
func (c *counting) List(context.Context, push.Filter, time.Duration) (push.Page, error) {
	return push.Page{}, nil
}
func (c *counting) Cancel(context.Context, push.ID) (push.Receipt, error) {
	return c.note("DELETE /pushes/")
}
func (c *counting) Retry(context.Context, push.ID) (push.Receipt, error) {
	return c.note("POST /pushes/")
}

// handlerOf is the interface before something that counts.
func handlerOf(c *counting) http.Handler {
	registry := prometheus.NewRegistry()
	whole, _ := New(Config{
		Pusher: c, Queue: c, Events: &fakeEvents{}, Version: "1", OpenAPI: []byte("openapi: 3.1.0\n"), Hosts: []string{"Writer.Example"},
		Page: http.HandlerFunc(somePage), Scrape: http.NotFoundHandler(), Registry: registry, Log: slog.New(slog.DiscardHandler),
	})
	return whole
}

// FuzzConversation: whatever bytes a caller sends over a connection, each answer
// is an answer in order and no fault of the daemon's, and nothing is done that
// no request asked for in so many words, under a name of ours.
func FuzzConversation(f *testing.F) {
	const head = " HTTP/1.1\r\nHost: localhost\r\n"
	form := "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 35\r\n\r\nfile=/a&destination=s3%3A//bucket/k"
	for _, s := range []string{
		"", "GET /healthz" + head + "\r\n", "POST /push" + head + form, "POST /push" + head + form + "GET /pushes" + head + "\r\n",
		"DELETE /pushes/" + someID + head + "\r\n", "POST /pushes/" + someID + "/retry" + head + "\r\n",
		"POST /push" + head + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nPOST /push" + head + form,
		"POST /push" + head + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nPOST /push" + head + form,
		"POST /push" + head + "Transfer-Encoding: xchunked\r\n\r\nPOST /push" + head + form,
		"POST /push HTTP/1.1\r\nHost: evil.example\r\n" + form, "POST http://evil.example/push" + head + form,
		"POST /push" + head + "Origin: http://evil.example\r\n" + form, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"OPTIONS *" + head + "\r\n", "CONNECT localhost:1" + head + "\r\n", "GET /pushes?wait=1h&limit=0" + head + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
		"HEAD /pushes" + head + "\r\nTRACE /push" + head + "\r\n", "GET /push\x00" + head + "\r\n", "get /healthz http/1.1\r\n\r\n", "\x16\x03\x01",
	} {
		f.Add([]byte(s))
	}
	did := &counting{}
	listener := make(scripts)
	server := &http.Server{Handler: handlerOf(did), ErrorLog: log.New(io.Discard, "", 0), DisableGeneralOptionsHandler: true, MaxHeaderBytes: 32 << 10}
	go server.Serve(listener)
	f.Cleanup(func() { close(listener); server.Close() })
	talk := func(said []byte) (answered []byte, done []string) {
		c := &script{said: bytes.NewReader(said), over: make(chan struct{})}
		listener <- c
		<-c.over
		return c.answered.Bytes(), did.take()
	}
	if answered, done := talk([]byte(strings.Repeat("POST /push"+head+form, 2))); len(done) != 2 {
		f.Fatalf("two pushes are answered with %q", answered)
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		answered, done := talk(said)
		for _, method := range done {
			if n := strings.Count(string(said), method[:strings.IndexByte(method, ' ')]); n == 0 {
				t.Errorf("%q was done, and %q does not ask for it", method, said)
			}
		}
		if words := strings.ToLower(string(said)); len(done) > 0 && strings.Contains(words, "host") && !strings.Contains(words, "localhost") &&
			!strings.Contains(words, "writer.example") && !strings.Contains(words, "127.") && !strings.Contains(words, "::") && !strings.Contains(words, "http/1.0") {
			t.Errorf("%q were done under a foreign name: %q", done, said)
		}
		checkAnswers(t, said, answered, len(done))
	})
}

// checkAnswers reads the answers to what was said, as long as they can be told
// apart without knowing the questions.
func checkAnswers(t *testing.T, said, answered []byte, done int) {
	t.Helper()
	if bytes.Contains(answered, []byte("Access-Control-")) {
		t.Errorf("%q is answered with a CORS header: %q", said, answered)
	}
	succeeded := bytes.Count(answered, []byte("HTTP/1.1 20")) + bytes.Count(answered, []byte("HTTP/1.0 20"))
	if done > succeeded {
		t.Errorf("%q: %d things were done, and %d answers say so: %q", said, done, succeeded, answered)
	}
	reader := bufio.NewReader(bytes.NewReader(answered))
	for !bytes.Contains(bytes.ToUpper(said), []byte("HEAD")) { // whose answers have no body
		if _, err := reader.Peek(1); err != nil {
			return
		}
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Errorf("%q is answered with %q: %v", said, answered, err)
			return
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Errorf("%q is answered with %q: %v", said, answered, err)
		}
		switch code := resp.StatusCode; {
		case code >= 500 && code != http.StatusNotImplemented && code != http.StatusHTTPVersionNotSupported:
			t.Errorf("%q is answered with %s", said, resp.Status)
		case code >= 200 && code < 300 && resp.Header.Get("X-Content-Type-Options") != "nosniff":
			t.Errorf("%q is answered past the guard: %q", said, answered)
		}
	}
}

// FuzzHost: a request is let in only under a name that stands for this host, and
// under such a name with any port.
func FuzzHost(f *testing.F) {
	for _, s := range []string{
		"localhost", "LOCALHOST:80", "127.0.0.1", "127.8.9.1:15556", "[::1]", "::1", "[::1]:0", "writer.example:1", "10.1.2.3", "[::ffff:10.1.2.3]:1",
		"localhost.evil.example", "evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "evil.example:localhost", "[localhost]", "2130706433",
		"0x7f.1", "0177.0.0.1", "localhost.", "127.1", "[::1%25lo]:1", "[fe80::1]", ":80", "[", "]", "[]", "[[::1]]", "",
	} {
		f.Add(s)
	}
	handler := handlerOf(&counting{})
	connected := netip.MustParseAddr("10.1.2.3")
	allowed := func(host string) bool {
		req := httptest.NewRequest("GET", "/healthz", nil)
		req.Host = host
		local := net.TCPAddrFromAddrPort(netip.AddrPortFrom(connected, 15556))
		req = req.WithContext(context.WithValue(req.Context(), http.LocalAddrContextKey, local))
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, req)
		return answer.Code == http.StatusOK
	}
	ours := func(name string) bool {
		name = strings.TrimSuffix(strings.ToLower(strings.Trim(name, "[]")), ".")
		addr, err := netip.ParseAddr(name)
		return name == "localhost" || name == "writer.example" || err == nil && (addr.IsLoopback() || addr.Unmap() == connected)
	}
	f.Fuzz(func(t *testing.T, host string) {
		before, _, _ := cutLast(host, ":")
		if allowed(host) && !ours(host) && !ours(before) {
			t.Errorf("the Host %q is let in", host)
		}
		for _, name := range []string{"localhost", "127.0.0.1", "[::1]", "WRITER.example", "10.1.2.3"} {
			if port := strings.Trim(host, "0123456789") == ""; port && !allowed(name+":"+host) {
				t.Errorf("the Host %q is turned away", name+":"+host)
			}
		}
	})
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, sep string) (before, after string, found bool) {
	if at := strings.LastIndex(s, sep); at >= 0 {
		return s[:at], s[at+len(sep):], true
	}
	return s, "", false
}

// FuzzAuthorization: a token lets in only to the letter, behind the name of its
// scheme, in a header that is there once.
func FuzzAuthorization(f *testing.F) {
	const token = "0123456789abcdef"
	for _, pair := range [][2]string{
		{"Bearer " + token, ""}, {"bearer  " + token, ""}, {"Bearer " + token, "Bearer " + token}, {"Basic " + token, ""}, {token, ""}, {"Bearer", token},
		{"Bearer\t" + token, ""}, {"Bearer " + token + " ", ""}, {"Bearer " + token[:15], ""}, {"Bearer \"" + token + "\"", ""}, {"Bearer " + token + "," + token, ""}, {"Bearer \x00", "\xff"},
	} {
		f.Add(pair[0], pair[1])
	}
	handler, _ := New(Config{
		Pusher: &counting{}, Queue: &counting{}, Events: &fakeEvents{}, Version: "1", Page: http.HandlerFunc(somePage), Scrape: http.NotFoundHandler(), Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		Tokens: func(given string) bool { return given == token },
	})
	right := regexp.MustCompile(`^(?i:bearer) +` + token + `$`)
	f.Fuzz(func(t *testing.T, first, second string) {
		req := httptest.NewRequest("GET", "/pushes", nil)
		req.Host = "localhost"
		req.Header["Authorization"] = []string{first}
		if second != "" {
			req.Header["Authorization"] = []string{first, second}
		}
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, req)
		want := http.StatusUnauthorized
		if right.MatchString(first) && second == "" {
			want = http.StatusOK
		}
		if answer.Code != want {
			t.Errorf("Authorization: %q is answered with %d, want %d", req.Header["Authorization"], answer.Code, want)
		}
		if body := answer.Body.String(); len(first) > 8 && first != token && answer.Code != http.StatusOK && strings.Contains(body, first) {
			t.Errorf("the answer repeats %q: %s", first, body)
		}
	})
}
