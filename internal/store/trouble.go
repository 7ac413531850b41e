package store

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// Trouble is what ails a store.
type Trouble struct {
	BytesPerSecond int           // that it takes, over all connections together
	Delay          time.Duration // the longest that an answer is late beside that
	FailOneIn      int           // of so many requests one is answered 503, at random
	Sealed         string        // a bucket to which nobody may write: 403
	Full           string        // a bucket that takes nothing more: 503
}

// slice is how much is taken at a time: little, so that all who send get on.
const slice = 32 << 10

// StartTroubled starts a store as Start does, which is in trouble.
func StartTroubled(buckets []string, t Trouble) (*Store, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the store: %w", err)
	}
	return start(smallWindows{listener}, append(buckets, t.Sealed, t.Full), t.wrap)
}

// smallWindows lets connections take little more than is read from them: else
// megabytes count as acknowledged that wait for a slow reader.
type smallWindows struct{ net.Listener }

func (l smallWindows) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(2 * slice) // with the system's own it goes in leaps
	}
	return c, err
}

func (t Trouble) wrap(next http.Handler) http.Handler {
	taken := rate.NewLimiter(rate.Limit(t.BytesPerSecond), slice)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bucket, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		switch {
		case r.Method != http.MethodPut && r.Method != http.MethodPost: // to know what there is, it is always well enough
		case bucket == t.Sealed:
			refuse(w, r, http.StatusForbidden, "AccessDenied", "Access Denied")
			return
		case bucket == t.Full:
			refuse(w, r, http.StatusServiceUnavailable, "ServiceUnavailable", "the bucket has reached its quota")
			return
		case rand.N(t.FailOneIn) == 0:
			refuse(w, r, http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
			return
		}
		r.Body = slowBody{r.Body, r.Context(), taken}
		time.Sleep(rand.N(t.Delay))
		next.ServeHTTP(w, r)
	})
}

// refuse answers as S3 does when it refuses, once all has come: a caller need not
// hear what is said while he sends.
func refuse(w http.ResponseWriter, r *http.Request, status int, code, message string) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>%s</Message></Error>`, code, message)
}

// slowBody is a body that is read no faster than all together may be.
type slowBody struct {
	io.ReadCloser
	ctx   context.Context
	taken *rate.Limiter
}

func (b slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), slice)])
	if n == 0 || err != nil && err != io.EOF {
		return n, err
	}
	if waitErr := b.taken.WaitN(b.ctx, n); waitErr != nil {
		return n, waitErr
	}
	return n, err
}
