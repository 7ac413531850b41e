package uploader

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lsst-dm/s3daemon/push"
)

// narrow is a way to a store that takes so many connections at a time, and ends any
// other at once.
type narrow struct {
	takes int
	reset bool

	mu   sync.Mutex
	open int
	all  int
}

func (n *narrow) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all++
	if n.open == n.takes {
		return false
	}
	n.open++
	return true
}

func (n *narrow) leave() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open--
}

func (n *narrow) dialled() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.all
}

func (n *narrow) start(t *testing.T, store string) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			if !n.enter() {
				if n.reset {
					near.(*net.TCPConn).SetLinger(0)
				}
				near.Close()
				continue
			}
			go func() {
				defer n.leave()
				defer near.Close()
				far, err := net.Dial("tcp", strings.TrimPrefix(store, "http://"))
				if err != nil {
					t.Error(err)
					return
				}
				defer far.Close()
				go io.Copy(near, far)
				io.Copy(far, near)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// TestStoreThatTakesFew: a store that takes fewer connections than there may be serves
// all over those, does not count as away, and is not asked for more again and again.
func TestStoreThatTakesFew(t *testing.T) {
	const takes, connections, pushes = 5, 25, 12
	for name, reset := range map[string]bool{"reset": true, "closed": false} {
		t.Run(name, func(t *testing.T) {
			way := &narrow{takes: takes, reset: reset}
			r := newRig(t, func(c *Config) {
				c.MaxConnections = connections
				c.Endpoint = way.start(t, c.Endpoint)
			})
			path, content := r.file(t, "f", 1000)
			for range 3 {
				pushAll(t, r, path, pushes, func() {})
				r.wantObject(t, "0", content)
			}
			if n := testutil.ToFloat64(r.metrics.pushes.WithLabelValues("failed")); n != 0 {
				t.Errorf("%v pushes failed", n)
			}
			if strings.Contains(r.log.String(), "cannot be reached") {
				t.Errorf("the store counted as away: %s", r.log)
			}
			if n, most := way.dialled(), connections+3*pushes; n > most {
				t.Errorf("the store was asked for %d connections, want at most %d", n, most)
			}
			r.warmUp(warmPlace)
			if !r.warm.Load() {
				t.Errorf("the connections are not warm: %s", r.log)
			}
			r.wantNothingLeft(t)
		})
	}
}

// TestStoredAndReset: a store that has the object and resets the connection, over TLS,
// is asked for it, and not sent it again.
func TestStoredAndReset(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	r := newRig(t, func(c *Config) {
		c.MaxConnections = 1
		store := forward(t, c.Endpoint)
		front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			mu.Lock()
			first := len(asked) == 0
			if strings.HasSuffix(req.URL.Path, "/k") {
				asked = append(asked, operationOf(req))
			}
			first = first && len(asked) == 1
			mu.Unlock()
			if !first {
				store.ServeHTTP(w, req)
				return
			}
			store.ServeHTTP(httptest.NewRecorder(), req)
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			raw := conn.(interface{ NetConn() net.Conn }).NetConn().(*net.TCPConn)
			raw.SetLinger(0)
			raw.Close()
		}))
		front.StartTLS()
		t.Cleanup(front.Close)
		c.Endpoint = front.URL
		bundle := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Setenv("AWS_CA_BUNDLE", bundle)
	})
	path, content := r.file(t, "f", 1000)
	for _, key := range []string{"before", "k"} {
		if _, err := r.Push(t.Context(), push.Request{File: path, Destination: push.Destination{Bucket: "bucket", Key: key}.String()}); err != nil {
			t.Fatal(err)
		}
		r.wantObject(t, key, content)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"PutObject", "HeadObject"}; !slices.Equal(asked, want) {
		t.Errorf("the store was asked %v, want %v", asked, want)
	}
}
