package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// trick is what somebody sends over a connection who means no good, or does not
// know better.
type trick struct {
	name string
	sent string
	want string // the statuses that one answer may have; "" where the connection may only close
	more int    // further answers, of requests that are in order
}

// A request of a kind that servers have been fooled by gets one clear answer, or
// a closed connection, and that within the limits on time; nothing is pushed by
// it, what stands behind it is no request, and the daemon goes on.
func TestHTTPTricks(t *testing.T) {
	d := startDaemon(t)
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	form := "file=" + file + "&destination=s3://" + bucket + "/"
	before := d.idleLoad()
	const head = " HTTP/1.1\r\nHost: localhost\r\n"
	const isForm = "Content-Type: application/x-www-form-urlencoded\r\n"
	push := func(key string) string {
		return "POST /push" + head + isForm + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(form)+len(key)) + form + key
	}
	chunk := func(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }
	const end = "0\r\n\r\n"
	bomb := zipped(t, 100<<20)

	for _, tt := range []trick{
		// Where a request ends is not what two programs agree on.
		{"a length and chunks", "POST /push" + head + isForm + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + end + push("smuggled"), "400", 0},
		{"chunks and a length", "POST /push" + head + isForm + "Transfer-Encoding: chunked\r\nContent-Length: 500\r\n\r\n" + end + push("smuggled"), "400", 0},
		{"chunks and something behind", "POST /push" + head + isForm + "Transfer-Encoding: chunked\r\n\r\n" + end + push("smuggled"), "400", 0},
		{"a folded coding", "POST /push" + head + isForm + "Transfer-Encoding:\r\n chunked\r\n\r\n" + end + push("smuggled"), "400", 0},
		{"a coding that is none", "POST /push" + head + isForm + "Transfer-Encoding: xchunked\r\n\r\n" + end + push("smuggled"), "501", 0},
		{"a coding in another letter", "POST /push" + head + isForm + "Transfer-Encoding: chunKed\r\n\r\n" + end + push("smuggled"), "400", 0},
		{"two codings", "POST /push" + head + isForm + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + end + push("smuggled"), "400 501", 0},
		{"chunks of chunks", "POST /push" + head + isForm + "Transfer-Encoding: chunked, chunked\r\n\r\n" + end + push("smuggled"), "400 501", 0},
		{"zipped chunks", "POST /push" + head + isForm + "Transfer-Encoding: gzip, chunked\r\n\r\n" + end + push("smuggled"), "501", 0},
		{"a coding behind a tabulator", "POST /push" + head + isForm + "Transfer-Encoding:\vchunked\r\n\r\n" + end + push("smuggled"), "400 501", 0},
		{"chunks in HTTP/1.0", "POST /push HTTP/1.0\r\nConnection: keep-alive\r\n" + isForm + "Transfer-Encoding: chunked\r\n\r\n" + end + push("smuggled"), "400", 0},
		{"two lengths", "POST /push" + head + isForm + "Content-Length: 5\r\nContent-Length: 500\r\n\r\nhello" + push("smuggled"), "400", 0},
		{"one length twice", "POST /push" + head + isForm + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "400", 0},
		{"two lengths in one", "POST /push" + head + isForm + "Content-Length: 5, 500\r\n\r\nhello" + push("smuggled"), "400", 0},
		{"a length below zero", "POST /push" + head + isForm + "Content-Length: -5\r\n\r\n" + push("smuggled"), "400", 0},
		{"a length with a sign", "POST /push" + head + isForm + "Content-Length: +5\r\n\r\nhello" + push("smuggled"), "400", 0},
		{"a length beyond all", "POST /push" + head + isForm + "Content-Length: 99999999999999999999\r\n\r\n" + push("smuggled"), "400", 0},
		{"a length in other digits", "POST /push" + head + isForm + "Content-Length: 0x5\r\n\r\nhello" + push("smuggled"), "400", 0},
		{"a length that is empty", "POST /push" + head + isForm + "Content-Length: \r\n\r\n" + push("smuggled"), "400", 0},
		{"a body where none belongs", "GET /pushes" + head + "Content-Length: 5\r\n\r\nhello", "200", 0},

		// The form of the head.
		{"bare line feeds", "POST /push HTTP/1.1\nHost: localhost\nContent-Length: 5\n\nhello", "400 415", 0},
		{"a bare carriage return", "GET /healthz HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n", "400", 0},
		{"a space before the colon", "POST /push" + head + "Content-Length : 5\r\n\r\nhello" + push("smuggled"), "400", 0},
		{"a space before the coding's colon", "POST /push" + head + "Transfer-Encoding : chunked\r\n\r\n" + end + push("smuggled"), "400", 0},
		{"a line without a colon", "GET /healthz" + head + "nothing\r\n\r\n", "400", 0},
		{"a first line that is folded", "GET /healthz HTTP/1.1\r\n Host: localhost\r\n\r\n", "400", 0},
		{"a name with a NUL", "GET /healthz" + head + "X\x00: y\r\n\r\n", "400", 0},
		{"a value with a NUL", "GET /healthz" + head + "X: a\x00b\r\n\r\n", "400", 0},
		{"two hosts", "GET /healthz" + head + "Host: evil.example\r\n\r\n", "400", 0},
		{"no host", "GET /healthz HTTP/1.1\r\n\r\n", "400", 0},
		{"a host without a name", "GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", "403", 0},
		{"a host that is none", "GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", "400", 0},
		{"a header of 1 MB", "GET /healthz" + head + "X: " + strings.Repeat("y", 1<<20) + "\r\n\r\n", "431", 0},
		{"a target of 1 MB", "GET /" + strings.Repeat("y", 1<<20) + head + "\r\n", "431", 0},
		{"10,000 lines", "GET /healthz" + head + strings.Repeat("X: y\r\n", 10_000) + "\r\n", "431", 0},
		{"10,000 lines of one name each", "GET /healthz" + head + numbered(10_000) + "\r\n", "431", 0},
		{"an empty line first", "\r\n\r\nGET /healthz" + head + "\r\n", "400 200", 0},

		// The body.
		{"a chunk of no size", "POST /push" + head + isForm + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + push("smuggled"), "400", 0},
		{"a chunk of more than there is", "POST /push" + head + isForm + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + push("smuggled"), "400", 0},
		{"a chunk whose size is too long", "POST /push" + head + isForm + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("0", 100) + "5\r\nhello\r\n" + end, "400", 0},
		{"a chunk below zero", "POST /push" + head + isForm + "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n" + end, "400", 0},
		{"a chunk without an end", "POST /push" + head + isForm + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX" + end, "400", 0},
		{"a chunk that ends in a bare line feed", "POST /push" + head + isForm + "Transfer-Encoding: chunked\r\n\r\n5\nhello\n" + end, "400", 0},
		{"an extension of 1 MB", "POST /push" + head + isForm + "Transfer-Encoding: chunked\r\n\r\n5;x=" + strings.Repeat("y", 1<<20) + "\r\nhello\r\n" + end, "400", 0},
		{"100,000 chunks with extensions", "POST /push" + head + isForm + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;x=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\na\r\n", 100_000) + end, "400 413", 0},
		{"a trailer of 1 MB", "POST /push" + head + isForm + "Transfer-Encoding: chunked\r\n\r\n" + chunk("file=/a") + "0\r\nX: " + strings.Repeat("y", 1<<20) + "\r\n\r\n", "400", 0},
		{"trailers that would change the request", "POST /push" + head + isForm + "Trailer: Content-Length, Host\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk("file=/a") + "0\r\nContent-Length: 5\r\nHost: x\r\n\r\n", "400", 0},
		{"a body of 64 KiB and a byte", "POST /push" + head + isForm + "Content-Length: 65537\r\n\r\n" + strings.Repeat("x", 65537), "413", 0},
		{"a body of 64 KiB and a byte in chunks", "POST /push" + head + isForm + "Transfer-Encoding: chunked\r\n\r\n" + chunk(strings.Repeat("x", 65537)) + end, "413", 0},
		{"a gzip bomb", "POST /push" + head + "Content-Type: application/json\r\nContent-Encoding: gzip\r\n" + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(bomb)) + bomb, "413 415", 0},
		{"a small body, zipped", "POST /push" + head + "Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n" + zipped(t, 100)[:20], "415", 0},
		{"an expectation that nobody knows", "POST /push" + head + isForm + "Expect: 200-ok\r\nContent-Length: 5\r\n\r\n", "417", 0},

		// The target and the method.
		{"another host in the target", "GET http://evil.example/healthz" + head + "\r\n", "403", 0},
		{"this host in the target", "GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "200", 0},
		{"a foreign scheme", "GET file:///etc/passwd" + head + "\r\n", "400 403 404", 0},
		{"a user in the target", "GET http://localhost@evil.example/healthz" + head + "\r\n", "400 403", 0},
		{"no path", "GET localhost:80" + head + "\r\n", "400 403 404", 0},
		{"CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", "403", 0},
		{"CONNECT to this host", "CONNECT localhost:443" + head + "\r\n", "404 405", 0},
		{"TRACE", "TRACE /push" + head + "X: secret\r\n\r\n", "405", 0},
		{"OPTIONS of all", "OPTIONS *" + head + "\r\n", "404 405", 0},
		{"OPTIONS, as a browser asks before it sends", "OPTIONS /push" + head + "Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n\r\n", "403", 0},
		{"a NUL in the target", "GET /healthz\x00" + head + "\r\n", "400", 0},
		{"an encoded NUL in the target", "GET /healthz%00" + head + "\r\n", "404", 0},
		{"a line end in the target", "GET /healthz%0d%0aX:%20y" + head + "\r\n", "404", 0},
		{"dots in the target", "GET /healthz/../pushes" + head + "\r\n", "404", 0},
		{"a method in small letters", "post /push" + head + isForm + "Content-Length: 5\r\n\r\nhello", "405", 0},
		{"a method that is told in a header", "GET /pushes" + head + "X-HTTP-Method-Override: DELETE\r\n\r\n", "200", 0},

		// Other protocols, and other versions of this one.
		{"HTTP/0.9", "GET /healthz\r\n", "400", 0},
		{"HTTP/1.0 that stays", "GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + push("smuggled"), "200", 0},
		{"HTTP/1.9", "GET /healthz HTTP/1.9\r\nHost: localhost\r\n\r\n", "200 400 505", 0},
		{"HTTP/3", "GET /healthz HTTP/3.0\r\nHost: localhost\r\n\r\n", "400 505", 0},
		{"HTTP/2, its preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" + push("smuggled"), "403 404 505", 0},
		{"an upgrade to HTTP/2", "GET /healthz" + head + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", "200", 0},
		{"an upgrade to WebSocket", "GET /pushes" + head + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", "200", 0},
		{"TLS", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + strings.Repeat("\x00", 160), "400", 0},
		{"PROXY protocol", "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET /healthz" + head + "\r\n", "400", 0},
		{"SSH", "SSH-2.0-OpenSSH_9.0\r\n", "400", 0},
		{"nothing but line ends", strings.Repeat("\r\n", 100_000), "400 431", 0},
		{"nothing but zeros", strings.Repeat("\x00", 100_000), "400 431", 0},

		// In order, and many at once.
		{"requests behind each other", "GET /healthz" + head + "\r\nGET /nothing" + head + "\r\nHEAD /healthz" + head + "\r\nTRACE /push" + head + "\r\n", "200", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			begun := time.Now()
			got := d.converse(t, tt.sent)
			checkConversation(t, tt, got)
			if took := time.Since(begun); took > patience {
				t.Errorf("it took %v", took)
			}
		})
	}
	if pushes := d.listOf(t, ""); len(pushes) != 0 {
		t.Errorf("%d pushes were accepted: %+v", len(pushes), pushes[0])
	}
	if objects := listObjects(t, bucket); len(objects) != 0 {
		t.Errorf("the bucket has %d objects", len(objects))
	}
	d.push(t, file, "s3://"+bucket+"/good").done(t)
	if size := d.memory("VmHWM"); size > 200<<20 && !raceBuild() {
		t.Errorf("the daemon's memory was up to %d MB", size>>20)
	}
	checkReturns(t, d, before)
}

// converse sends bytes, says that no more will come, and returns all that comes
// back until the daemon has closed the connection.
func (d *daemon) converse(t *testing.T, sent string) []byte {
	t.Helper()
	c, err := net.Dial("tcp", d.addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	wrote := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, sent)
		if err == nil {
			err = c.(*net.TCPConn).CloseWrite()
		}
		wrote <- err
	}()
	got, err := io.ReadAll(c)
	theLeaks.search("an answer", got)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) { // for what was not read
		t.Errorf("read the answer: %v", err)
	}
	c.Close()
	<-wrote // which may have failed: who is refused early has not been listened to
	return got
}

// checkConversation fails the test unless what came back is one answer, or none at all,
// with a status that the trick may have, and the answers to what stood in order
// behind it.
func checkConversation(t *testing.T, tt trick, got []byte) {
	t.Helper()
	if len(got) == 0 { // closed
		return
	}
	answers, methods := bufio.NewReader(bytes.NewReader(got)), methodsOf(tt.sent)
	for i := range 1 + tt.more {
		resp, err := http.ReadResponse(answers, &http.Request{Method: methods[i]})
		if err != nil {
			t.Fatalf("answer %d is none: %v\n%s", i+1, err, tail(got, 1000))
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Errorf("answer %d: %v", i+1, err)
		}
		if i == 0 && !strings.Contains(tt.want, fmt.Sprint(resp.StatusCode)) {
			t.Errorf("the answer is %s, want %s\n%s", resp.Status, tt.want, tail(got, 1000))
		}
		for name := range resp.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("the answer has the header %s", name)
			}
		}
	}
	if rest, _ := io.ReadAll(answers); len(rest) > 0 {
		t.Errorf("a further answer: %s", tail(rest, 1000))
	}
}

// methodsOf returns the words that requests may begin with, in their order.
func methodsOf(sent string) (methods []string) {
	for line := range strings.Lines(sent) {
		if method, rest, found := strings.Cut(line, " "); found && strings.Contains(rest, " HTTP/1.1\r\n") {
			methods = append(methods, method)
		}
	}
	return append(methods, "GET")
}

// zipped returns so many zero bytes in gzip's form.
func zipped(t *testing.T, n int64) string {
	t.Helper()
	var out strings.Builder
	w := gzip.NewWriter(&out)
	if _, err := io.CopyN(w, zeros{}, n); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// numbered returns so many headers of a name each.
func numbered(n int) string {
	var out strings.Builder
	for i := range n {
		fmt.Fprintf(&out, "X%d: y\r\n", i)
	}
	return out.String()
}
