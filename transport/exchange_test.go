package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestTimes: where the time of a request went, one that got through and some that
// did not.
func TestTimes(t *testing.T) {
	const size = 1 << 20
	slow := func(then func(net.Conn)) DialFunc {
		store := piped(func(conn net.Conn, req *http.Request) {
			io.CopyN(io.Discard, req.Body, size/2)
			time.Sleep(2 * time.Second)
			io.Copy(io.Discard, req.Body)
			time.Sleep(3 * time.Second)
			then(conn)
		})
		return func(ctx context.Context, network, address string) (net.Conn, error) {
			time.Sleep(time.Second)
			return store(ctx, network, address)
		}
	}
	answers := func(conn net.Conn) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
		time.Sleep(time.Second) // which is the answer's, and no time that is told
		io.WriteString(conn, "ok")
	}
	for _, tc := range []struct {
		name    string
		dial    DialFunc
		limit   time.Duration
		want    Times
		succeed bool
	}{
		{"got through", slow(answers), time.Hour, Times{time.Second, 2 * time.Second, 3 * time.Second}, true},
		{"broke off", slow(func(conn net.Conn) { conn.Close() }), time.Hour, Times{time.Second, 2 * time.Second, 3 * time.Second}, false},
		{"given up while it was sent", slow(answers), 2 * time.Second, Times{time.Second, time.Second, 0}, false},
		{"given up while it connected", slow(answers), time.Second / 2, Times{time.Second / 2, 0, 0}, false},
		{"not connected", func(context.Context, string, string) (net.Conn, error) {
			time.Sleep(time.Second)
			return nil, errors.New("refused")
		}, time.Hour, Times{time.Second, 0, 0}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := newTransport(t, usual(tc.dial))
				ctx, done := context.WithTimeout(t.Context(), tc.limit)
				defer done()
				begun, connected := time.Now(), time.Duration(-1)
				x := &Exchange{Connected: func() { connected = time.Since(begun) }}
				_, err := put(tr, With(ctx, x), "http://store", size, zeros(size))
				if tc.succeed != (err == nil) || x.Times() != tc.want {
					t.Errorf("%+v, want %+v; %v", x.Times(), tc.want, err)
				}
				if want := tc.want.Connect; tc.want.Send > 0 && connected != want || tc.want.Send == 0 && connected >= 0 {
					t.Errorf("that it is connected is told after %v, want %v", connected, want)
				}
				time.Sleep(time.Minute) // what sleeps ends, inside the bubble
			})
		})
	}
}

// TestNobodyCanSay: where nobody knows what the other end got, a request that was
// written as a whole to a connection which had been idle may have been taken.
func TestNobodyCanSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requests := 0
		tr := newTransport(t, usual(piped(func(conn net.Conn, req *http.Request) {
			io.Copy(io.Discard, req.Body)
			if requests++; requests > 1 {
				conn.Close()
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		})))
		if _, err := put(tr, t.Context(), "http://store", 100, zeros(100)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		_, err := put(tr, t.Context(), "http://store", 100, zeros(100))
		if broken, ok := errors.AsType[*BrokenError](err); !ok || !broken.Reused || !broken.Idle || broken.Untaken {
			t.Errorf("%#v", err)
		}
	})
}
