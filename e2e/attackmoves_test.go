package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// A move is one thing that a caller may do. It returns in a word what came of it,
// and an error where that may not be.
type move struct {
	name   string
	weight int
	do     func(*attacker) (outcome string, err error)
}

// moves are all that the callers of the attack do.
var moves []move

func init() { // since some of them look at others
	moves = []move{
		{"push and wait", 20, (*attacker).pushAndWait},
		{"push a large file", 1, (*attacker).pushLarge},
		{"push and go", 20, (*attacker).pushAndGo},
		{"push a file that goes", 5, (*attacker).pushGoing},
		{"say it again", 6, (*attacker).sayAgain},
		{"say another thing with the same key", 3, (*attacker).sayAnother},
		{"list", 4, (*attacker).list},
		{"look", 8, (*attacker).look},
		{"wait at the barrier", 2, (*attacker).barrier},
		{"cancel", 5, (*attacker).cancel},
		{"put back", 5, (*attacker).putBack},
		{"scrape", 1, (*attacker).scrape},
		{"watch for a moment", 3, (*attacker).watch},

		{"hang up in a request", 5, (*attacker).hangUpInRequest},
		{"hang up in an answer", 5, (*attacker).hangUpInAnswer},
		{"send half and wait", 3, (*attacker).sendHalf},
		{"send garbage", 5, (*attacker).sendGarbage},
		{"frame badly", 5, (*attacker).frameBadly},
		{"ask twice at once", 3, (*attacker).pipeline},

		{"ask under a foreign name", 3, (*attacker).foreignName},
		{"ask as a web page", 3, (*attacker).webPage},
		{"send much", 2, (*attacker).sendMuch},
		{"send what is no request", 5, (*attacker).sendNonsense},
		{"ask for what there is not", 5, (*attacker).noRoute},
		{"try a path", 10, (*attacker).tryPath},
		{"try a key", 6, (*attacker).tryKey},
		{"try a place", 4, (*attacker).tryPlace},
		{"ask without the token", 5, (*attacker).withoutToken},
		{"send it compressed", 2, (*attacker).compressed},
	}
}

// said is a push that was asked for with a key.
type said struct{ key, body, id string }

// ask sends a request and reads the answer, which must not have a secret and
// must be a problem where it is no success.
func (a *attacker) ask(req *http.Request) (answer, error) {
	got, err := a.daemon.sendUnchecked(a.client, req)
	if err != nil {
		return got, err
	}
	if bytes.Contains(got.body, []byte(hidden)) {
		return got, fmt.Errorf("the answer has what nobody may read: %s", got.body)
	}
	if a.dice.IntN(50) == 0 { // of all it would take more time than the daemon needs
		if err := checkContract(req, got); err != nil {
			return got, fmt.Errorf("the answer is not as openapi.yaml has it: %w: %d %s", err, got.status, tail(got.body, 2000))
		}
	}
	if got.status >= 400 {
		_, err = got.problem()
	}
	return got, err
}

// request makes one with that body.
func (a *attacker) request(method, path, contentType, body string) *http.Request {
	req := a.daemon.request(context.Background(), method, path, contentType, body)
	if a.network == "tcp" {
		req.Header.Set("Authorization", "Bearer "+attackToken)
	}
	return req
}

// expect sends a request whose answer has to be one of those given: a status, or
// the code of a problem.
func (a *attacker) expect(req *http.Request, wanted ...string) (answer, string, error) {
	got, err := a.ask(req)
	if err != nil {
		return got, "no answer", err
	}
	outcome := fmt.Sprint(got.status)
	if got.status >= 400 {
		p, _ := got.problem()
		outcome = p.Code
	}
	if !slices.Contains(wanted, outcome) {
		return got, outcome, fmt.Errorf("%s %s: %d %s, want %s", req.Method, req.URL.Path, got.status, tail(got.body, 1000), strings.Join(wanted, " or "))
	}
	return got, outcome, nil
}

func (a answer) page() (p page, err error) {
	if a.status != http.StatusOK {
		return p, fmt.Errorf("a list is answered with %d: %s", a.status, a.body)
	}
	return p, json.Unmarshal(a.body, &p)
}

const (
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json"
)

// form is the body of a push.
func (a *attacker) form(file, key string, more ...string) string {
	values := url.Values{"file": {file}, "destination": {"s3://" + a.bucket + "/" + key}}
	for i := 0; i < len(more); i += 2 {
		values.Set(more[i], more[i+1])
	}
	return values.Encode()
}

// push asks for a push that is in order, and notes what was accepted.
func (a *attacker) push(req *http.Request, key string) (id, outcome string, err error) {
	got, outcome, err := a.expect(req, "200", "202", "cancelled", "file_not_found", "file_changed")
	if err != nil {
		return "", outcome, err
	}
	var r receipt // a problem has the id too
	if err := json.Unmarshal(got.body, &r); err != nil {
		return "", outcome, err
	}
	if r.ID != "" {
		a.accept(r.ID, key)
	}
	if got.status < 400 && (r.ID == "" || r.Key != key) {
		return r.ID, outcome, fmt.Errorf("the answer to a push to %s is %s", key, got.body)
	}
	return r.ID, outcome, nil
}

// smallFile draws one of the small files.
func (a *attacker) smallFile() string { return a.small[a.dice.IntN(len(a.small))].path }

// label draws one of a few labels.
func (a *attacker) label() string { return fmt.Sprint("night", a.dice.IntN(5)) }

func (a *attacker) pushAndWait() (string, error) {
	key := a.key("small", 200)
	_, outcome, err := a.push(a.request("POST", "/push", formType, a.form(a.smallFile(), key, "label", a.label())), key)
	return outcome, err
}

func (a *attacker) pushLarge() (string, error) {
	if a.dice.IntN(10) > 0 { // each is as much work as a thousand others
		return "another time", nil
	}
	key := a.key("large", 4)
	_, outcome, err := a.push(a.request("POST", "/push", formType, a.form(a.large.path, key)), key)
	return outcome, err
}

func (a *attacker) pushAndGo() (string, error) {
	key := a.key("small", 200)
	s := said{body: a.form(a.smallFile(), key, "label", a.label(), "async", "true")}
	req := a.request("POST", "/push", formType, s.body)
	if a.dice.IntN(3) == 0 {
		s.key = fmt.Sprintf("%d-%d-%d", a.seed, a.number, a.dice.Uint64())
		req.Header.Set("Idempotency-Key", s.key)
	}
	id, outcome, err := a.push(req, key)
	if s.key != "" && id != "" {
		s.id = id
		a.said = s
	}
	return outcome, err
}

func (a *attacker) pushGoing() (string, error) {
	path, err := a.pass()
	if err != nil {
		return "", err
	}
	defer os.Remove(path)
	key := a.key("gone", 200)
	req := a.request("POST", "/push", formType, a.form(path, key))
	if a.dice.IntN(2) == 0 {
		req.Header.Set("Prefer", "respond-async")
	} else { // it grows meanwhile
		go func() {
			if f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0); err == nil {
				f.Write([]byte("more"))
				f.Close()
			}
		}()
	}
	_, outcome, err := a.push(req, key)
	return outcome, err
}

func (a *attacker) sayAgain() (string, error) {
	if a.said.id == "" {
		return "nothing said yet", nil
	}
	req := a.request("POST", "/push", formType, a.said.body)
	req.Header.Set("Idempotency-Key", a.said.key)
	got, outcome, err := a.expect(req, "200", "202", "cancelled")
	var r receipt
	if err == nil {
		err = json.Unmarshal(got.body, &r)
	}
	if err == nil && r.ID != a.said.id {
		err = fmt.Errorf("the key %s gave the push %s, and now: %s", a.said.key, a.said.id, got.body)
	}
	return outcome, err
}

func (a *attacker) sayAnother() (string, error) {
	if a.said.id == "" {
		return "nothing said yet", nil
	}
	req := a.request("POST", "/push", formType, a.form(a.smallFile(), "smuggled/key"))
	req.Header.Set("Idempotency-Key", a.said.key)
	_, outcome, err := a.expect(req, "idempotency_key_reused")
	return outcome, err
}

func (a *attacker) list() (string, error) {
	query := url.Values{"limit": {fmt.Sprint(1 + a.dice.IntN(100))}}
	if a.dice.IntN(10) == 0 {
		query.Set("limit", "1000")
	}
	if a.dice.IntN(2) == 0 {
		query.Set("label", a.label())
	}
	if a.dice.IntN(2) == 0 {
		query.Set("state", []string{"done", "queued,running", "failed,cancelled"}[a.dice.IntN(3)])
	}
	if a.dice.IntN(3) == 0 {
		query.Set("cursor", a.some(a.dice))
	}
	got, outcome, err := a.expect(a.request("GET", "/pushes?"+query.Encode(), "", ""), "200", "too_many_callers") // of long ones so many at once
	if err == nil && got.status == http.StatusOK {
		_, err = got.page()
	}
	return outcome, err
}

func (a *attacker) look() (string, error) {
	path := "/pushes/" + a.some(a.dice)
	if a.dice.IntN(2) == 0 {
		path += fmt.Sprintf("?wait=%dms", a.dice.IntN(500))
	}
	_, outcome, err := a.expect(a.request("GET", path, "", ""), "200", "push_not_found")
	return outcome, err
}

func (a *attacker) barrier() (string, error) {
	query := fmt.Sprintf("/pushes?limit=1&label=%s&wait=%dms", a.label(), a.dice.IntN(500))
	_, outcome, err := a.expect(a.request("GET", query, "", ""), "200")
	return outcome, err
}

func (a *attacker) cancel() (string, error) {
	_, outcome, err := a.expect(a.request("DELETE", "/pushes/"+a.some(a.dice), "", ""), "200", "202", "push_ended", "push_not_found")
	return outcome, err
}

func (a *attacker) putBack() (string, error) {
	_, outcome, err := a.expect(a.request("POST", "/pushes/"+a.some(a.dice)+"/retry", "", ""),
		"202", "push_not_failed", "push_not_found", "superseded", "file_not_found", "file_changed")
	return outcome, err
}

func (a *attacker) scrape() (string, error) {
	_, outcome, err := a.expect(a.request("GET", "/metrics", "", ""), "200")
	return outcome, err
}

// watch reads some of the events, and hangs up.
func (a *attacker) watch() (string, error) {
	conn, err := a.dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	io.WriteString(conn, a.raw("GET", "/events", "", ""))
	heard, err := io.ReadAll(io.LimitReader(conn, int64(1+a.dice.IntN(20_000))))
	if err != nil {
		return "", fmt.Errorf("of the events only %d bytes came: %w", len(heard), err)
	}
	if bytes.Contains(heard, []byte(hidden)) {
		return "", fmt.Errorf("the events have what nobody may read: %s", heard)
	}
	return "gone", nil
}

// dial opens a connection for bytes of any kind.
func (a *attacker) dial() (net.Conn, error) {
	conn, err := net.Dial(a.network, a.addr)
	if err == nil {
		conn.SetDeadline(time.Now().Add(30 * time.Second)) // of what would hang
	}
	return conn, err
}

// raw is a request as it is on the wire.
func (a *attacker) raw(method, path, header, body string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s", method, path, a.header()+header, len(body), body)
}

// header are the lines that each request for a push needs.
func (a *attacker) header() string {
	lines := "Content-Type: " + formType + "\r\n"
	if a.network == "tcp" {
		lines += "Authorization: Bearer " + attackToken + "\r\n"
	}
	return lines
}

func (a *attacker) rawPush() string {
	return a.raw("POST", "/push", "", a.form(a.smallFile(), a.key("small", 200)))
}

func (a *attacker) hangUpInRequest() (string, error) {
	conn, err := a.dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	whole := a.rawPush()
	io.WriteString(conn, whole[:a.dice.IntN(len(whole))])
	if tcp, ok := conn.(*net.TCPConn); ok && a.dice.IntN(2) == 0 {
		tcp.SetLinger(0)
	}
	return "gone", nil
}

func (a *attacker) hangUpInAnswer() (string, error) {
	conn, err := a.dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	whole := a.rawPush()
	if a.dice.IntN(3) == 0 {
		whole = a.raw("GET", "/pushes?limit=1000", "", "")
	}
	io.WriteString(conn, whole)
	if a.dice.IntN(2) == 0 {
		conn.Read(make([]byte, 1+a.dice.IntN(100)))
	}
	return "gone", nil
}

// sendHalf sends some of a request and says nothing more for a moment.
func (a *attacker) sendHalf() (string, error) {
	conn, err := a.dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	whole := a.rawPush()
	io.WriteString(conn, whole[:a.dice.IntN(len(whole)-1)])
	conn.SetReadDeadline(time.Now().Add(time.Duration(a.dice.IntN(1000)) * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		return "answered", fmt.Errorf("half a request was answered: %d bytes, %v", n, err)
	}
	return "gone", nil
}

// greetings are the first bytes of what is not HTTP/1.
var greetings = []string{
	"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",     // TLS
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04", // HTTP/2
	"SSH-2.0-OpenSSH_9.9\r\n",
	"EHLO example.org\r\n",
	"\x00\x00\x00\x2f\xffSMB",
	"GET /healthz\r\n\r\n", // HTTP/0.9
	"\r\n\r\n\r\n\r\n",
}

func (a *attacker) sendGarbage() (string, error) {
	garbage := []byte(greetings[a.dice.IntN(len(greetings))])
	if a.dice.IntN(2) == 0 {
		garbage = make([]byte, 1+a.dice.IntN(5000))
		for i := range garbage {
			garbage[i] = byte(a.dice.Uint32())
		}
	}
	return a.talk(string(garbage) + "\r\n\r\n")
}

// framings are requests whose end two readers may see at different places; each
// has another behind it, or in it, that must not be read as one.
var framings = []string{
	"POST /push HTTP/1.1\r\nHost: localhost\r\n%[1]sContent-Length: 4\r\nTransfer-Encoding: chunked, identity\r\n\r\n%[2]s",
	"POST /push HTTP/1.1\r\nHost: localhost\r\n%[1]sContent-Length: 4\r\nContent-Length: 5\r\n\r\n%[2]s",
	"POST /push HTTP/1.1\r\nHost: localhost\r\n%[1]sContent-Length: -1\r\n\r\n%[2]s",
	"POST /push HTTP/1.1\r\nHost: localhost\r\n%[1]sContent-Length: 99999999999999999999\r\n\r\n%[2]s",
	"POST /push HTTP/1.1\r\nHost: localhost\r\n%[1]sTransfer-Encoding: xchunked\r\n\r\n%[2]s",
	"POST /push HTTP/1.1\r\nHost: localhost\r\n%[1]sTransfer-Encoding: chunked\r\n\r\nzz\r\n%[2]s",
	"POST /push HTTP/1.1\r\nHost: localhost\r\n%[1]sTransfer-Encoding : chunked\r\n\r\n%[2]s",
	"POST /push HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n%[1]sContent-Length: 0\r\n\r\n%[2]s",
	"POST /push HTTP/1.1\r\n%[1]sContent-Length: 0\r\n\r\n%[2]s",
	"POST /push\x00 HTTP/1.1\r\nHost: localhost\r\n%[1]sContent-Length: 0\r\n\r\n%[2]s",
}

func (a *attacker) frameBadly() (string, error) {
	framing := framings[a.dice.IntN(len(framings))]
	return a.talk(fmt.Sprintf(framing, a.header(), a.raw("POST", "/push", "", a.form(a.smallFile(), "smuggled/key"))))
}

// talk sends bytes that are no request, and reads until the daemon has closed the
// connection. It may say that they are none, and that once.
func (a *attacker) talk(bytes string) (string, error) {
	conn, err := a.dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	go io.WriteString(conn, bytes) // of which it need not read all
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "held", fmt.Errorf("the connection stays open after %.200q", bytes)
		}
		return "closed", nil
	}
	defer resp.Body.Close()
	if resp.StatusCode < 400 || resp.StatusCode >= 500 && resp.StatusCode != http.StatusNotImplemented && resp.StatusCode != http.StatusHTTPVersionNotSupported {
		return resp.Status, fmt.Errorf("the answer to %.200q is %s", bytes, resp.Status)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil && !brokeOff(err) {
		return resp.Status, err
	}
	if another, err := http.ReadResponse(reader, nil); err == nil {
		return resp.Status, fmt.Errorf("after %s there is another answer to %.200q: %s", resp.Status, bytes, another.Status)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		return "held", fmt.Errorf("the connection stays open after %.200q and %s", bytes, resp.Status)
	}
	return resp.Status, nil
}

// brokeOff reports whether the other side closed a connection with bytes unread.
func brokeOff(err error) bool {
	_, broke := errors.AsType[*net.OpError](err)
	return broke && !errors.Is(err, os.ErrDeadlineExceeded)
}

// pipeline sends two requests before it reads: the answers come in that order.
func (a *attacker) pipeline() (string, error) {
	conn, err := a.dial()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	io.WriteString(conn, a.raw("GET", "/healthz", "", "")+a.raw("GET", "/nothing", "Connection: close\r\n", ""))
	reader := bufio.NewReader(conn)
	for _, want := range []int{200, 404} {
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			return "no answer", err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != want {
			return resp.Status, fmt.Errorf("one of two answers is %s, want %d: %v", resp.Status, want, err)
		}
	}
	return "both", nil
}

func (a *attacker) foreignName() (string, error) {
	names := []string{"evil.example", "localhost.evil.example:80", "192.0.2.1", "127.0.0.1.nip.io", "2130706433", "[::ffff:192.0.2.1]", "0x7f.1", "localhost.evil.example"}
	req := a.request("POST", "/push", formType, a.form(a.smallFile(), "smuggled/key"))
	if a.network == "unix" {
		return "not over a socket", nil
	}
	req.Host = names[a.dice.IntN(len(names))]
	_, outcome, err := a.expect(req, "foreign_host")
	return outcome, err
}

func (a *attacker) webPage() (string, error) {
	req := a.request("POST", "/push", []string{formType, jsonType, "text/plain", ""}[a.dice.IntN(4)], a.form(a.smallFile(), "smuggled/key"))
	req.Header.Set("Origin", []string{"http://evil.example", "null", "http://127.0.0.1:1"}[a.dice.IntN(3)])
	if a.dice.IntN(2) == 0 {
		req.Header.Set("Sec-Fetch-Site", []string{"cross-site", "same-site"}[a.dice.IntN(2)])
	}
	_, outcome, err := a.expect(req, "cross_origin")
	return outcome, err
}

func (a *attacker) sendMuch() (string, error) {
	body := a.form(a.smallFile(), "smuggled/key", "label", strings.Repeat("l", 65<<10+a.dice.IntN(10<<10)))
	_, outcome, err := a.expect(a.request("POST", "/push", formType, body), "body_too_large")
	return outcome, err
}

// nonsense are bodies that ask for nothing, with their kind and what is said of
// them.
var nonsense = []struct{ contentType, body, code string }{
	{jsonType, ``, "invalid_body"},
	{jsonType, `{`, "invalid_body"},
	{jsonType, `[]`, "invalid_body"},
	{jsonType, `{"file":1}`, "invalid_field"},
	{jsonType, `{"file":"/a","file":"/b"}`, "invalid_field"},
	{jsonType, `{"File":"/a"}`, "unknown_field"},
	{jsonType, `{"file":"/a"}`, "missing_field"},
	{jsonType, `{"file":"/a\ud800","destination":"s3://bucket/k"}`, "invalid_body"},
	{jsonType, strings.Repeat(`{"metadata":`, 5000), "invalid_body"},
	{jsonType, strings.Repeat(`[`, 60000), "invalid_body"},
	{formType, `%zz`, "invalid_body"},
	{formType, `a;b`, "invalid_body"},
	{formType, `file=/a&file=/b`, "invalid_field"},
	{formType, `nothing=1`, "unknown_field"},
	{"text/xml", `<push/>`, "unsupported_media_type"},
	{"multipart/form-data; boundary=x", "--x--", "unsupported_media_type"},
	{"application/json; charset=utf-16", "\xff\xfe{\x00", "unsupported_media_type"},
}

func (a *attacker) sendNonsense() (string, error) {
	n := nonsense[a.dice.IntN(len(nonsense))]
	_, outcome, err := a.expect(a.request("POST", "/push", n.contentType, n.body), n.code)
	return outcome, err
}

// strayRequests are those that no route takes as they are.
var strayRequests = []struct{ method, path, code string }{
	{"GET", "/nothing", "not_found"},
	{"GET", "/push", "method_not_allowed"},
	{"PUT", "/push", "method_not_allowed"},
	{"TRACE", "/healthz", "method_not_allowed"},
	{"OPTIONS", "/push", "method_not_allowed"},
	{"BREW", "/pushes", "method_not_allowed"},
	{"GET", "/pushes/../../etc/passwd", "not_found"},
	{"GET", "/pushes/%2e%2e%2fpush", "push_not_found"},
	{"GET", "/pushes/x?wait=forever", "push_not_found"},
	{"GET", "/pushes?limit=1001", "invalid_parameter"},
	{"GET", "/pushes?cursor=x", "invalid_parameter"},
	{"GET", "/pushes?label=%00", "invalid_parameter"},
	{"GET", "/pushes?x=1", "invalid_parameter"},
	{"GET", "/events?x=1", "invalid_parameter"},
	{"GET", "//push", "not_found"},
	{"POST", "/push/", "not_found"},
}

func (a *attacker) noRoute() (string, error) {
	s := strayRequests[a.dice.IntN(len(strayRequests))]
	_, outcome, err := a.expect(a.request(s.method, s.path, "", ""), s.code)
	return outcome, err
}

func (a *attacker) tryPath() (string, error) {
	trick := a.tricks[a.dice.IntN(len(a.tricks))]
	key := a.key("small", 200)
	req := a.request("POST", "/push", formType, a.form(trick.path, key))
	if len(trick.codes) == 0 {
		_, outcome, err := a.push(req, key)
		return outcome, err
	}
	_, outcome, err := a.expect(req, trick.codes...)
	if err != nil {
		err = fmt.Errorf("%s: %w", trick.name, err)
	}
	return outcome, err
}

// badDestinations are those that no object can have; %s is the bucket.
var badDestinations = []string{
	"", "s3://", "s3:///key", "s3://%s", "s3://%s/", "s3://../%s/key", "s3://%s/../key", "s3://%s/a/../../other/key", "s3://%s/a/..",
	"s3://%s/a\nb", "s3://%s/a\r\nHost: evil.example", "s3://%s/a\x00", "s3://%s/\xff", "s3://%s?acl/key", "s3://%s@evil.example/key",
	"s3://%s#/key", "s3://evil.example%%2f%s/key", "s3://b%%c3%%bcro/key", "s3://[::1]/key", "s3://a b/key",
}

func (a *attacker) tryKey() (string, error) {
	destination := strings.ReplaceAll(badDestinations[a.dice.IntN(len(badDestinations))], "%s", a.bucket)
	if a.dice.IntN(10) == 0 {
		destination = "s3://" + a.bucket + "/" + strings.Repeat("k", 1025)
	}
	body := url.Values{"file": {a.smallFile()}, "destination": {destination}}.Encode()
	_, outcome, err := a.expect(a.request("POST", "/push", formType, body), "invalid_destination", "missing_field")
	return outcome, err
}

// elsewhere are destinations that there may be, and not for this daemon.
var elsewhere = []string{
	"s3://other-bucket/small/key", "any/other-bucket/small/key", "s3://%s/elsewhere/key", "s3://%s/small", "s3://%s/SMALL/key", "s3://%s/./small/key",
	"s3://%s//small/key", "s3://%s/small/../elsewhere/key", "s3://%s/small/../../%s/small/../x/key", "s3://%sx/small/key", "s3://x%s/small/key",
	"s3://%s/smaller/key", "s3://%s/%%73mall/key",
}

func (a *attacker) tryPlace() (string, error) {
	destination := strings.ReplaceAll(strings.ReplaceAll(elsewhere[a.dice.IntN(len(elsewhere))], "%%", "%25"), "%s", a.bucket)
	body := url.Values{"file": {a.smallFile()}, "destination": {destination}}.Encode()
	_, outcome, err := a.expect(a.request("POST", "/push", formType, body), "destination_not_allowed", "invalid_destination")
	return outcome, err
}

func (a *attacker) withoutToken() (string, error) {
	req := a.request("POST", "/push", formType, a.form(a.smallFile(), "smuggled/key"))
	if a.network == "unix" {
		return "not over a socket", nil
	}
	req.Header.Del("Authorization")
	wrong := []string{"", "Bearer", "Bearer ", "Bearer " + attackToken + "x", "Bearer " + attackToken[1:], "Basic " + attackToken, attackToken,
		"Bearer " + strings.Repeat("a", 10_000), "Bearer \"" + attackToken + "\"", "Bearer " + strings.ToUpper(attackToken)}
	if value := wrong[a.dice.IntN(len(wrong))]; value != "" {
		req.Header.Set("Authorization", value)
	}
	_, outcome, err := a.expect(req, "unauthorized")
	return outcome, err
}

func (a *attacker) compressed() (string, error) {
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	w.Write(bytes.Repeat([]byte("file=/a&"), 1<<20))
	w.Close()
	req := a.request("POST", "/push", formType, bomb.String())
	req.Header.Set("Content-Encoding", "gzip")
	_, outcome, err := a.expect(req, "unsupported_media_type", "body_too_large")
	return outcome, err
}
