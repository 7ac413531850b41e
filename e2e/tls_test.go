package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// serveTLS serves the store with a certificate, and returns its port and the names that
// it was asked by.
func (s *pickyStore) serveTLS(t *testing.T, cert tls.Certificate, most uint16) (port string, names func() []string) {
	t.Helper()
	var mu sync.Mutex
	var asked []string
	server := httptest.NewUnstartedServer(s.handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: most, Certificates: []tls.Certificate{cert}, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, hello.ServerName)
		return nil, nil
	}}
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), asked...)
	}
}

// bundle is a file with the authority's certificate.
func (a *authority) bundle() string {
	path := filepath.Join(a.t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o644); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// tunnel is an HTTP proxy that connects to one address, whatever it is asked for.
func tunnel(t *testing.T, to string) (url string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var hosts []string
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				reader := bufio.NewReader(conn)
				req, err := http.ReadRequest(reader)
				if err != nil || req.Method != http.MethodConnect {
					return
				}
				mu.Lock()
				hosts = append(hosts, req.Host)
				mu.Unlock()
				store, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer store.Close()
				io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
				go func() {
					io.Copy(store, reader)
					store.Close()
				}()
				io.Copy(conn, store)
			}()
		}
	}()
	return "http://" + listener.Addr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), hosts...)
	}
}

// TestTLSToTheStore has stores that a daemon may trust and others that it may not, also
// by way of a proxy. Those get no request.
func TestTLSToTheStore(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	file := makeFile(t, "file", 1000)
	selfSigned := newAuthority(t)
	for _, tt := range []struct {
		name   string
		cert   tls.Certificate
		most   uint16 // version of TLS
		bundle string
		host   string // empty: by the address, without a proxy
		says   string // empty: the push is done
	}{
		{"right", ours.issue("127.0.0.1", time.Hour), tls.VersionTLS13, ours.bundle(), "", ""},
		{"TLS 1.2", ours.issue("127.0.0.1", time.Hour), tls.VersionTLS12, ours.bundle(), "", ""},
		{"TLS 1.1", ours.issue("127.0.0.1", time.Hour), tls.VersionTLS11, ours.bundle(), "", "protocol version"},
		{"of another authority", others.issue("127.0.0.1", time.Hour), tls.VersionTLS13, ours.bundle(), "", "certificate"},
		{"expired", ours.issue("127.0.0.1", -time.Minute), tls.VersionTLS13, ours.bundle(), "", "expired"},
		{"for another address", ours.issue("127.0.0.2", time.Hour), tls.VersionTLS13, ours.bundle(), "", "127.0.0.2"},
		{"self-signed", tls.Certificate{Certificate: [][]byte{selfSigned.cert.Raw}, PrivateKey: selfSigned.key}, tls.VersionTLS13, ours.bundle(), "", "certificate"},
		{"no authority of ours", ours.issue("127.0.0.1", time.Hour), tls.VersionTLS13, "", "", "certificate"},
		{"by a proxy", ours.issue("store.example", time.Hour), tls.VersionTLS13, ours.bundle(), "store.example", ""},
		{"by a proxy to another store", ours.issue("evil.example", time.Hour), tls.VersionTLS13, ours.bundle(), "store.example", "evil.example"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startPickyStore(t)
			before := s.hasTaken(accessKey)
			port, names := s.serveTLS(t, tt.cert, tt.most)
			env := []string{"AWS_CA_BUNDLE=" + tt.bundle, "S3DAEMON_ATTEMPTS=2", "S3_ENDPOINT_URL=https://127.0.0.1:" + port}
			proxied := func() []string { return []string{tt.host + ":443"} }
			if tt.host != "" {
				var proxy string
				proxy, proxied = tunnel(t, "127.0.0.1:"+port)
				env = append(env, "S3_ENDPOINT_URL=https://"+tt.host, "HTTPS_PROXY="+proxy)
			}
			d := startDaemon(t, env...)
			a := d.push(t, file, "s3://raw/key")
			switch {
			case tt.says == "":
				a.done(t)
			case !strings.Contains(string(a.body), `"store_unreachable"`) || !strings.Contains(string(a.body), tt.says):
				t.Errorf("%d %s, want %q", a.status, a.body, tt.says)
			}
			if got := s.hasTaken(accessKey) - before; (got > 0) != (tt.says == "") {
				t.Errorf("%d requests reached the store", got)
			}
			for _, name := range names() {
				if name != tt.host { // an address is no name to ask for
					t.Errorf("the store was asked for as %q", name)
				}
			}
			for _, host := range proxied() {
				if host != tt.host+":443" {
					t.Errorf("the proxy was asked for %q", host)
				}
			}
		})
	}
}

// TestRedirectsAreNotFollowed has a store send its clients elsewhere, in every way that
// there is: no signed request goes there, nor any other.
func TestRedirectsAreNotFollowed(t *testing.T) {
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s came, with %d headers", r.Method, r.URL, len(r.Header))
	}))
	defer evil.Close()
	file, large := makeFile(t, "file", 1000), makeFile(t, "large", oneRequest+1)
	for _, status := range []int{301, 302, 303, 307, 308} {
		store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			http.Redirect(w, r, evil.URL+r.URL.Path, status)
		}))
		d := startDaemon(t, "S3_ENDPOINT_URL="+store.URL, "S3DAEMON_ATTEMPTS=2")
		for _, f := range []string{file, large} {
			if a := d.push(t, f, "s3://raw/key"); !strings.Contains(string(a.body), `"store_refused"`) || !strings.Contains(string(a.body), "set ") {
				t.Errorf("%d: %d %s", status, a.status, a.body)
			}
		}
		d.client.CloseIdleConnections()
		t.Cleanup(store.Close)
	}
}

// TestCleartextIsWarnedOf starts daemons on stores without TLS. That of a public address
// is one for documents, which nobody has.
func TestCleartextIsWarnedOf(t *testing.T) {
	const warning = "can be read and changed on the way"
	d := startDaemon(t, "S3_ENDPOINT_URL=http://192.0.2.1:9")
	if err := poll(patience, func() error {
		if !strings.Contains(string(d.out.bytes()), warning) {
			return errNotYet
		}
		return nil
	}); err != nil {
		t.Error("no warning of a public address")
	}
	quiet := startDaemon(t)
	quiet.push(t, makeFile(t, "file", 10), "s3://"+newBucket(t)+"/key").done(t)
	if strings.Contains(string(quiet.out.bytes()), warning) {
		t.Error("a warning of loopback")
	}
}
