package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

const done = `{"id":"1","state":"done","file":"/f","destination":"s3://bkt/k","bucket":"bkt","key":"k"}`

func answer(status int, media, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", media)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// raw answers with nothing but the text, and closes.
func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(conn, text)
		conn.Close()
	}
}

// TestAnswers has one row for each thing that can come back. Only the first
// two are success.
func TestAnswers(t *testing.T) {
	const problem = "application/problem+json"
	tests := []struct {
		name     string
		handler  http.HandlerFunc
		want     string // the error, as Explain has it; %s is where the daemon is
		notTaken bool
		code     push.Code
	}{
		{"done", answer(200, "application/json", done), "", false, ""},
		{"done, with a parameter", answer(200, "application/json; charset=utf-8", done), "", false, ""},
		{"queued", answer(200, "application/json", `{"id":"7","state":"queued"}`),
			`the daemon at %s answered while the push "7" was "queued", not done`, false, ""},
		{"accepted", answer(202, "application/json", done),
			"the daemon at %s accepted the push and did not wait for its end (HTTP 202): it is not known to be done", false, ""},
		{"another 2xx", answer(201, "application/json", `{"state":"done"}`),
			`what answers at %s is no s3daemon: HTTP 201 Created "{\"state\":\"done\"}"`, false, ""},
		{"empty 200", answer(200, "application/json", ""),
			"the answer of the daemon at %s is no receipt: unexpected end of JSON input", false, ""},
		{"a web page", answer(200, "text/html", "<html>\n<b>Success</b>"),
			`what answers at %s is no s3daemon: HTTP 200 OK "<html> <b>Success</b>"`, false, ""},
		{"problem", answer(404, problem, `{"status":404,"code":"file_not_found","detail":"there is no file \"/f\""}`),
			`there is no file "/f" (file_not_found)`, false, push.FileNotFound},
		{"problem of the store", answer(502, problem,
			`{"status":502,"code":"store_refused","detail":"the store\nrefused","store":{"status":404,"code":"NoSuchBucket","request_id":"R1"}}`),
			"the store refused (store_refused, store code NoSuchBucket, store request R1)", false, push.StoreRefused},
		{"problem without a code", answer(500, problem, `{"detail":"odd"}`), "odd", false, ""},
		{"problem without a detail", answer(500, problem, `{"title":"x"}`),
			`what answers at %s is no s3daemon: HTTP 500 Internal Server Error "{\"title\":\"x\"}"`, false, ""},
		{"shutting down", answer(503, problem, `{"status":503,"code":"shutting_down","detail":"the daemon is shutting down"}`),
			"the daemon is shutting down (shutting_down)", true, push.ShuttingDown},
		{"503 of somebody else", answer(503, "text/plain", "later"),
			`what answers at %s is no s3daemon: HTTP 503 Service Unavailable "later"`, true, ""},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				t.Error("the redirect was followed")
			}
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, `what answers at %s is no s3daemon: HTTP 307 Temporary Redirect ""`, false, ""},
		{"gone before the answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			"the daemon at %s went away before it answered, and the push may or may not have reached the store (repeating it is harmless): unexpected EOF", false, ""},
		{"gone within the answer", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, done)
		}, "the daemon at %s went away before it answered, and the push may or may not have reached the store (repeating it is harmless): unexpected EOF", false, ""},
		{"an answer without an end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for range maxAnswerBytes/1024 + 1 {
				io.WriteString(w, strings.Repeat(" ", 1024))
			}
			io.WriteString(w, done)
		}, "what answers at %s is no s3daemon: no answer of a daemon: it has more than 262144 bytes", false, ""},
		{"endless headers", raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxAnswerBytes)),
			"what answers at %s is no s3daemon: no answer of a daemon: it has more than 262144 bytes", false, ""},
		{"not HTTP", raw("Success"), `what answers at %s is no s3daemon: no answer of a daemon: malformed HTTP response "Success"`, false, ""},
		{"not HTTP, a line", raw("Success\n"), `what answers at %s is no s3daemon: no answer of a daemon: malformed HTTP response "Success"`, false, ""},
		{"an interim answer before", raw("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + done), "", false, ""},
		{"an older protocol", raw("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + done), "", false, ""},
		{"chunks", raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n" + `{"state":"done"}` + "\r\n0\r\n\r\n"), "", false, ""},
		{"chunks without an end", raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n" + `{"state":"done"}` + "\r\n"),
			"the daemon at %s went away before it answered, and the push may or may not have reached the store (repeating it is harmless): unexpected EOF", false, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(test.handler)
			defer server.Close()
			daemon, err := New(server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer daemon.Close()
			err = daemon.Push(t.Context(), "/f", "s3://bkt/k")
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatal("success")
			}
			if got, want := Explain(err), strings.ReplaceAll(test.want, "%s", server.URL); got != want {
				t.Errorf("error\n%s\nwant\n%s", got, want)
			}
			if got := errors.Is(err, ErrNotTaken); got != test.notTaken {
				t.Errorf("ErrNotTaken: %v", got)
			}
			if e, is := errors.AsType[*push.Error](err); is != (test.code != "") && test.name != "problem without a code" || is && e.Code != test.code {
				t.Errorf("push.Error %+v, want code %q", e, test.code)
			}
		})
	}
}

// TestRequest checks that what is asked arrives to the byte, also where JSON
// could not carry it.
func TestRequest(t *testing.T) {
	type got struct{ method, path, host, file, destination, media string }
	requests := make(chan got, 1)
	handler := func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		requests <- got{r.Method, r.URL.Path, r.Host, r.PostForm.Get("file"), r.PostForm.Get("destination"), r.Header.Get("Content-Type")}
		answer(200, "application/json", done)(w, r)
	}
	tcp := httptest.NewServer(http.HandlerFunc(handler))
	defer tcp.Close()
	socket := filepath.Join(t.TempDir(), "d.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	unix := httptest.NewUnstartedServer(http.HandlerFunc(handler))
	unix.Listener.Close()
	unix.Listener = listener
	unix.Start()
	defer unix.Close()

	const form = "application/x-www-form-urlencoded"
	host := strings.TrimPrefix(tcp.URL, "http://")
	tests := []struct {
		url, file, destination string
		path, host             string
	}{
		{tcp.URL, "/data/a.fits", "s3://raw/a.fits", "/push", host},
		{tcp.URL + "/", "/a b+c%20&d=e;f", "x/raw/k e+y%2F&=", "/push", host},
		{tcp.URL + "/under/", "/\xff\xfe", "s3://raw/\u00e9", "/under/push", host},
		{"unix:" + socket, "/data/a.fits", "s3://raw/a.fits", "/push", "localhost"},
		{"unix://" + socket, "/data/a.fits", "s3://raw/a.fits", "/push", "localhost"},
	}
	for _, test := range tests {
		daemon, err := New(test.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := daemon.Push(t.Context(), test.file, test.destination); err != nil {
			t.Errorf("%s: %v", test.url, err)
			continue
		}
		want := got{"POST", test.path, test.host, test.file, test.destination, form}
		if got := <-requests; got != want {
			t.Errorf("%s: request %+q, want %+q", test.url, got, want)
		}
	}
}

func TestNew(t *testing.T) {
	good := map[string]string{ // network, address, host, path
		"http://127.0.0.1:15556":  "tcp 127.0.0.1:15556 127.0.0.1:15556 ",
		"http://127.0.0.1:15556/": "tcp 127.0.0.1:15556 127.0.0.1:15556 ",
		"http://[::1]:1":          "tcp [::1]:1 [::1]:1 ",
		"http://host":             "tcp host:80 host ",
		"http://host/a%20b/":      "tcp host:80 host /a%20b",
		"unix:/run/s3.sock":       "unix /run/s3.sock localhost ",
		"unix:///run/s3.sock":     "unix /run/s3.sock localhost ",
	}
	for where, want := range good {
		target, err := parse(where)
		if got := fmt.Sprint(target); err != nil || got != "{"+want+"}" {
			t.Errorf("%s: %s, %v; want %s", where, got, err, want)
		}
	}
	for _, where := range []string{
		"", "127.0.0.1:15556", "localhost:15556", "https://host", "tcp://10.0.0.1:15556", "http://", "http://:80", "http:///x",
		"http://user:word@host", "https://user:word@host", "http://user:wo/word@host", "http://user:word@host:port", "user:word@host", "http://host?x", "http://host?", "http://host#x", "http://host:port", "http://a b/",
		"unix:", "unix:relative", "unix://relative", "http://host:80\n", "http://ho%0d%0ast/", "http://h\u00f6st/",
	} {
		if d, err := New(where, nil); err == nil {
			t.Errorf("%q is taken for a daemon: %+v", where, d)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: more than a line: %v", where, err)
		} else if strings.Contains(err.Error(), "word") {
			t.Errorf("a password is repeated: %v", err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	missing := filepath.Join(t.TempDir(), "none.sock")
	tests := []struct {
		where, want string
		errno       syscall.Errno
	}{
		{"http://" + address, "no daemon at http://" + address + ": connection refused", syscall.ECONNREFUSED},
		{"unix:" + missing, "no daemon at unix:" + missing + ": no such file or directory", syscall.ENOENT},
	}
	for _, test := range tests {
		daemon, err := New(test.where, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = daemon.Push(t.Context(), "/f", "s3://bkt/k")
		unreachable, is := errors.AsType[*UnreachableError](err)
		if !is || unreachable.Where != test.where || !errors.Is(err, ErrNotTaken) || !errors.Is(err, test.errno) || Explain(err) != test.want {
			t.Errorf("%s: %v", test.where, err)
		}
	}
	timeout := &UnreachableError{Where: "x", Err: &net.OpError{Op: "dial", Err: context.DeadlineExceeded}}
	if got, want := timeout.Error(), "no daemon at x: no connection within 5s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestInterrupted ends the waiting in both places where there is any.
func TestInterrupted(t *testing.T) {
	asked := make(chan struct{})
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // else the server does not watch the connection
		close(asked)
		<-r.Context().Done()
		close(ended)
	}))
	defer server.Close()
	daemon, err := New(server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("because")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-asked; cancel(why) }()
	if err := daemon.Push(ctx, "/f", "s3://bkt/k"); !errors.Is(err, why) || errors.Is(err, ErrNotTaken) {
		t.Errorf("waiting for the answer: %v", err)
	}
	<-ended

	ctx, cancel = context.WithCancelCause(t.Context())
	daemon.dial = func(ctx context.Context) (net.Conn, error) {
		cancel(why)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := daemon.Push(ctx, "/f", "s3://bkt/k"); !errors.Is(err, why) {
		t.Errorf("connecting: %v", err)
	}
}
