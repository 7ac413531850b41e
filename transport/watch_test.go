package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// serve begins a server that answers every request so.
func serve(t *testing.T, answer http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return s
}

// hijack answers by what it writes to the connection, which stays open until
// the test has ended.
func hijack(t *testing.T, w http.ResponseWriter, text string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	io.WriteString(conn, text)
	t.Cleanup(func() { conn.Close() })
}

func newTransport(t *testing.T) *Transport {
	tr := New(Config{Connections: 1, ConnectTimeout: 5 * time.Second, Dial: NewDialer(5 * time.Second).DialContext})
	t.Cleanup(tr.CloseIdle)
	return tr
}

// put sends that many bytes, and reads the answer to its end.
func put(t *testing.T, tr *Transport, url string, size int) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, bytes.NewReader(make([]byte, size)))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// TestStandingStill has stores that stand still, at each phase of a request: it
// ends.
func TestStandingStill(t *testing.T) {
	usual := phases
	t.Cleanup(func() { phases = usual })
	for p := range phases {
		phases[p].limit = 200 * time.Millisecond
	}
	for name, answer := range map[string]string{
		"reads nothing":          "",
		"does not answer":        "",
		"answers half a head":    "HTTP/1.1 200 OK\r\nEta",
		"answers half a body":    "HTTP/1.1 200 OK\r\nEtag: \"x\"\r\nContent-Length: 10\r\n\r\n<",
		"refuses half a message": "HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n<Error><Code>Acc",
	} {
		for _, size := range []int{100, 64 << 20} {
			if name == "reads nothing" && size == 100 {
				continue // a kernel takes that
			}
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				s := serve(t, func(w http.ResponseWriter, req *http.Request) {
					if name != "reads nothing" {
						io.Copy(io.Discard, req.Body)
					}
					hijack(t, w, answer)
				})
				_, err := put(t, newTransport(t), s.URL, size)
				if _, stalled := errors.AsType[*StallError](err); !stalled {
					t.Error(err)
				}
			})
		}
	}
}

// TestSlowIsNotStalled sends through a store that reads slowly, for longer in
// all than a request may stand still.
func TestSlowIsNotStalled(t *testing.T) {
	usual := phases
	t.Cleanup(func() { phases = usual })
	phases[sending].limit = time.Second
	var took time.Duration
	s := serve(t, func(w http.ResponseWriter, req *http.Request) {
		begun := time.Now()
		for some, err := make([]byte, 256<<10), error(nil); err == nil; _, err = req.Body.Read(some) {
			<-time.After(20 * time.Millisecond)
		}
		took = time.Since(begun)
	})
	if _, err := put(t, newTransport(t), s.URL, 20<<20); err != nil || took < phases[sending].limit {
		t.Errorf("%v; the store read for %v", err, took)
	}
}

// TestBrokenOff tells a connection that ended from one that was never made.
func TestBrokenOff(t *testing.T) {
	if !BrokenOff(fmt.Errorf("write: %w", io.ErrUnexpectedEOF)) || BrokenOff(&net.OpError{Op: "dial", Err: io.EOF}) || BrokenOff(errors.New("other")) {
		t.Error("taken for one another")
	}
}
