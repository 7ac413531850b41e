package uploader

import (
	"bufio"
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/transport"
)

// hijack answers a request by writing to its connection, whose reader it hands
// to the answer, and closes it.
func hijack(t *testing.T, w http.ResponseWriter, answer func(net.Conn, *bufio.Reader)) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	answer(conn, buffered.Reader)
	conn.Close()
}

// TestEarlyRefusal has an overloaded store say so before it has read the body,
// which the transport then still reads: the next attempt must not be harmed.
func TestEarlyRefusal(t *testing.T) {
	for _, size := range []int{1000, 4 * testPart} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r := newRig(t)
			r.plan.whole = 8 * testPart // one PutObject
			var n atomic.Int32
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if n.Add(1) > 2 {
					next.ServeHTTP(w, req)
					return
				}
				hijack(t, w, func(conn net.Conn, body *bufio.Reader) {
					io.WriteString(conn, "HTTP/1.1 503 Slow Down\r\nContent-Length: 42\r\nConnection: close\r\n\r\n<Error><Code>SlowDown</Code></Error>......")
					io.CopyN(io.Discard, body, int64(size/2))
				})
			})
			path, content := r.file(t, "f", size)
			receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
			if err != nil || receipt.Attempts != 3 {
				t.Fatalf("%v, %d attempts", err, receipt.Attempts)
			}
			r.wantObject(t, "k", content)
		})
	}
}

// TestNotAStore has what proxies, portals and other programs' ports answer with
// success: none of it may be taken for a delivery.
func TestNotAStore(t *testing.T) {
	html := func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		io.Copy(io.Discard, req.Body)
		io.WriteString(w, "<html>Welcome</html>")
	}
	status := func(code int) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
			io.Copy(io.Discard, req.Body)
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(code)
		}
	}
	only := func(match string, f func(http.ResponseWriter, *http.Request, http.Handler)) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			if strings.Contains(req.Method+" "+req.URL.RawQuery, match) {
				f(w, req, next)
				return
			}
			next.ServeHTTP(w, req)
		}
	}
	empty := func(w http.ResponseWriter, req *http.Request, _ http.Handler) { io.Copy(io.Discard, req.Body) }
	for _, tc := range []struct {
		name  string
		size  int
		fault func(http.ResponseWriter, *http.Request, http.Handler)
	}{
		{"HTML", 100, html},
		{"HTML for all of an upload in parts", testPart + 1, html},
		{"204", 100, status(204)},
		{"301", 100, status(301)},
		{"no ETag of a part", testPart + 1, only("partNumber=1", html)},
		{"HTML at the end", testPart + 1, only("POST uploadId", html)},
		{"nothing at the end", testPart + 1, only("POST uploadId", empty)},
		{"101", 100, func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
			hijack(t, w, func(conn net.Conn, _ *bufio.Reader) {
				io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
			})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Attempts = 1 })
			r.spoil(tc.fault)
			path, _ := r.file(t, "f", tc.size)
			receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
			var e *push.Error
			if !errors.As(err, &e) || e.Code != push.StoreRefused && e.Code != push.StoreUnreachable || receipt.State == push.Done {
				t.Errorf("%v, receipt %+v", err, receipt)
			}
		})
	}
}

// TestAnsweredUnread has a store say yes at once and read nothing.
func TestAnsweredUnread(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Attempts = 1 })
	r.plan.whole = 32 * testPart
	stop := make(chan struct{})
	defer close(stop)
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		hijack(t, w, func(conn net.Conn, _ *bufio.Reader) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nEtag: \"x\"\r\nContent-Length: 0\r\n\r\n")
			<-stop
		})
	})
	path, _ := r.file(t, "f", 16*testPart) // more than the sockets' buffers take
	_, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	var e *push.Error
	if !errors.As(err, &e) || e.Code != push.StoreUnreachable || !errors.Is(err, transport.ErrNotRead) {
		t.Errorf("error %v", err)
	}
}

// TestCompletionIsLookedUp loses the answer to a completion, and has the store
// show the object: it is done. With another object there, or one of another
// size, it is not.
func TestCompletionIsLookedUp(t *testing.T) {
	for name, tc := range map[string]struct {
		etag string // empty: ours
		size int
		done bool
	}{
		"ours":            {"", testPart + 1, true},
		"another":         {`"00000000000000000000000000000000-2"`, testPart + 1, false},
		"of another size": {"", testPart, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			var parts [2]string
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				switch {
				case req.Method == http.MethodPost && req.URL.Query().Has("uploadId"):
					next.ServeHTTP(discard{make(http.Header)}, req)
					panic(http.ErrAbortHandler)
				case req.Method == http.MethodHead:
					w.Header().Set("Content-Length", fmt.Sprint(tc.size))
					w.Header().Set("Content-Type", "application/octet-stream")
					w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
					w.Header().Set("Etag", cmp.Or(tc.etag, `"`+joined(parts[:])+`"`))
					return
				}
				next.ServeHTTP(w, req)
				switch req.URL.Query().Get("partNumber") {
				case "1":
					parts[0] = w.Header().Get("Etag")
				case "2":
					parts[1] = w.Header().Get("Etag")
				}
			})
			path, content := r.file(t, "f", testPart+1)
			receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
			if done := err == nil && receipt.State == push.Done; done != tc.done {
				t.Errorf("%v, receipt %+v", err, receipt)
			}
			r.wantObject(t, "k", content)
		})
	}
}

// joined is the ETag of an object of parts with these.
func joined(etags []string) string {
	all := md5.New()
	for _, e := range etags {
		sum, _ := hex.DecodeString(bareETag(e))
		all.Write(sum)
	}
	return fmt.Sprintf("%x-%d", all.Sum(nil), len(etags))
}

// TestAdvice: what a store refuses for a reason that somebody can mend, the
// error says how.
func TestAdvice(t *testing.T) {
	for _, tc := range []struct {
		answer push.StoreAnswer
		mode   Checksum
		want   string // empty: none
	}{
		{push.StoreAnswer{Status: 404, Code: "NoSuchBucket"}, ChecksumAuto, `create the bucket "raw" at http://store`},
		{push.StoreAnswer{Status: 403, Code: "AccessDenied"}, ChecksumAuto, `may not write to the bucket "raw"`},
		{push.StoreAnswer{Status: 403, Code: "SignatureDoesNotMatch"}, ChecksumAuto, "AWS_SECRET_ACCESS_KEY"},
		{push.StoreAnswer{Status: 301, Code: "PermanentRedirect"}, ChecksumAuto, "set AWS_REGION to the bucket's region"},
		{push.StoreAnswer{Status: 307, Code: "TemporaryRedirect"}, ChecksumAuto, "set S3_ENDPOINT_URL"},
		{push.StoreAnswer{Status: 304}, ChecksumAuto, "cache or proxy"},
		{push.StoreAnswer{Status: 403, Code: "RequestTimeTooSkewed"}, ChecksumAuto, "clock"},
		{push.StoreAnswer{Status: 501, Code: "NotImplemented"}, ChecksumAuto, "S3DAEMON_CHECKSUM=md5"},
		{push.StoreAnswer{Status: 501, Code: "NotImplemented"}, ChecksumMD5, ""},
		{push.StoreAnswer{Status: 400, Code: "InvalidRequest", Message: "Checksum algorithm provided is unsupported."}, ChecksumAuto, "S3DAEMON_CHECKSUM=md5"},
		{push.StoreAnswer{Status: 400, Code: "InvalidRequest", Message: "Checksum algorithm provided is unsupported."}, ChecksumMD5, ""},
		{push.StoreAnswer{Status: 400, Code: "InvalidArgument", Message: "m"}, ChecksumAuto, ""},
		{push.StoreAnswer{Status: 503, Code: "SlowDown"}, ChecksumAuto, "again later"},
	} {
		u := &Uploader{name: "http://store", checksum: tc.mode}
		if got := u.advice("s3://raw/k", tc.answer); !strings.Contains(got, tc.want) || (got == "") != (tc.want == "") {
			t.Errorf("%+v with %s: %q, want %q", tc.answer, tc.mode, got, tc.want)
		}
	}
}

// TestAnswerText has what is said of answers that are neither the success of a
// store nor its refusal.
func TestAnswerText(t *testing.T) {
	for _, tc := range []struct {
		answer push.StoreAnswer
		want   string
	}{
		{push.StoreAnswer{Status: 200, Code: "InternalError"}, "200 OK with an error inside, InternalError"},
		{push.StoreAnswer{Status: 204}, "204 No Content, where a store that has taken a file says 200"},
		{push.StoreAnswer{Status: 206, Code: "Odd"}, "206 Partial Content with an error inside, Odd"},
		{push.StoreAnswer{Status: 304}, "304 Not Modified"},
	} {
		if got := answerText(tc.answer); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.answer, got, tc.want)
		}
	}
}

// TestRootText: what stood still, and for how long, is said before what the
// kernel made of it.
func TestRootText(t *testing.T) {
	kernel := &net.OpError{Op: "readfrom", Net: "tcp", Err: syscall.ETIMEDOUT}
	stalled := &smithyhttp.RequestSendError{Err: &transport.StallError{What: "nothing came back", Limit: 10 * time.Second, Err: kernel}}
	for want, err := range map[string]error{
		"nothing came back within 10s: " + kernel.Error(): stalled,
		kernel.Error(): &smithyhttp.RequestSendError{Err: kernel},
		"the cause":    fmt.Errorf("where: %w", errors.New("the cause")),
	} {
		if got := rootText(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
