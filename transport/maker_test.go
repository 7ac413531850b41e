package transport

import (
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestResumption: the first connection by TLS has a handshake, and those that
// come later go on with its session.
func TestResumption(t *testing.T) {
	var mu sync.Mutex
	var resumed []bool
	s := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if resumed = append(resumed, req.TLS.DidResume); req.ProtoMajor != 1 {
			t.Errorf("it is %s", req.Proto)
		}
	}))
	t.Cleanup(s.Close)
	tr := overSockets(t, 10*time.Second, func(cfg *Config) {
		cfg.Once, cfg.Roots = true, x509.NewCertPool()
		cfg.Roots.AddCert(s.Certificate())
	})
	const requests = 5
	for range requests {
		if _, err := put(tr, t.Context(), s.URL, 100, zeros(100)); err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range resumed {
		if r != (i > 0) {
			t.Errorf("%v", resumed)
			break
		}
	}
	if len(resumed) != requests {
		t.Errorf("%d requests", len(resumed))
	}
}

// proxied makes a Transport that goes by a proxy.
func proxied(t *testing.T, proxy string, change ...func(*Config)) *Transport {
	tr := overSockets(t, 10*time.Second, change...)
	u, err := url.Parse(proxy)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("somebody", "secret")
	tr.maker.http.Proxy = http.ProxyURL(u)
	return tr
}

const authorization = "Basic c29tZWJvZHk6c2VjcmV0"

// TestProxy: without TLS a proxy has the whole address of each request, and who asks.
func TestProxy(t *testing.T) {
	const where = "http://store.example/bucket/key"
	s := serve(t, func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		if req.RequestURI != where || req.Header.Get("Proxy-Authorization") != authorization {
			t.Errorf("%s, %q", req.RequestURI, req.Header)
		}
	})
	tr := proxied(t, s.URL)
	for range 3 {
		if _, err := put(tr, t.Context(), where, 100, zeros(100)); err != nil {
			t.Error(err)
		}
	}
	if n := tr.Totals(); n.Dials != 1 || tr.Connections()[0].Address != strings.TrimPrefix(s.URL, "http://") {
		t.Errorf("%+v, %+v", n, tr.Connections())
	}
}

// TestTunnel: with TLS a proxy is asked for a way, and sees nothing of what goes
// there.
func TestTunnel(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		if req.Header.Get("Proxy-Authorization") != "" {
			t.Error("the store is told who the proxy's user is")
		}
	}))
	t.Cleanup(s.Close)
	var tunnels atomic.Int64
	proxy := serve(t, func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodConnect || req.Host != s.Listener.Addr().String() || req.Header.Get("Proxy-Authorization") != authorization {
			t.Errorf("%s %s, %q", req.Method, req.Host, req.Header)
		}
		tunnels.Add(1)
		far, err := net.Dial("tcp", req.Host)
		if err != nil {
			t.Error(err)
			return
		}
		near := hijack(t, w)
		io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(far, near); far.Close() }()
		go func() { io.Copy(near, far); near.Close() }()
	})
	tr := proxied(t, proxy.URL, func(cfg *Config) {
		cfg.Roots = x509.NewCertPool()
		cfg.Roots.AddCert(s.Certificate())
	})
	for range 3 {
		if _, err := put(tr, t.Context(), s.URL, 1<<20, zeros(1<<20)); err != nil {
			t.Error(err)
		}
	}
	if tunnels.Load() != 1 {
		t.Errorf("%d ways were asked for", tunnels.Load())
	}
}
