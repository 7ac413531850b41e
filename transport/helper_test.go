package transport

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// usual are limits as the daemon has them.
func usual(dial DialFunc) Config {
	return Config{
		Connections: 1, ConnectTimeout: 5 * time.Second, StallTimeout: 10 * time.Second,
		Answer: 2 * time.Minute, Rest: 30 * time.Second, Dial: dial,
	}
}

// newTransport makes one for a test.
func newTransport(t *testing.T, cfg Config) *Transport {
	tr := New(cfg)
	t.Cleanup(tr.Close)
	return tr
}

// overSockets is a Transport on real connections, where nothing may stand still
// for longer than that.
func overSockets(t *testing.T, stall time.Duration, change ...func(*Config)) *Transport {
	return newTransport(t, socketsConfig(stall, change...))
}

func socketsConfig(stall time.Duration, change ...func(*Config)) Config {
	cfg := Config{
		Connections: 1, ConnectTimeout: 5 * time.Second, StallTimeout: stall, Answer: time.Minute, Rest: time.Minute,
		Dial: NewDialer(DialConfig{ConnectTimeout: 5 * time.Second, StallTimeout: stall}).Dial,
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// serve begins a server that answers every request so.
func serve(t *testing.T, answer http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return s
}

// hijack takes the connection of a request, and closes it when the test ends.
func hijack(t *testing.T, w http.ResponseWriter) net.Conn {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// piped is a DialFunc to a store in memory, which has each request with its
// connection and reads it as it likes. The connection is closed when it returns.
func piped(store func(conn net.Conn, req *http.Request)) DialFunc {
	return func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			buffered := bufio.NewReader(far)
			for {
				req, err := http.ReadRequest(buffered)
				if err != nil {
					return
				}
				store(far, req)
				if req.Close {
					return
				}
			}
		}()
		return near, nil
	}
}

// gone waits until the other end has closed the connection.
func gone(conn net.Conn) { io.Copy(io.Discard, conn) }

// put sends a body, and reads the answer to its end.
func put(tr *Transport, ctx context.Context, url string, size int64, body io.Reader) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, body)
	if err != nil {
		return "", err
	}
	req.ContentLength = size
	resp, err := tr.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("answered %s", resp.Status)
	}
	return string(text), err
}

// zeros is a body of that many bytes.
func zeros(size int64) io.Reader { return bytes.NewReader(make([]byte, size)) }

// until waits for something that will be so.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
