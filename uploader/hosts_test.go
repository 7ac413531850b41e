package uploader

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/transport"
)

// startAmazon starts a store that takes all objects of all buckets, each of which is a
// host of its own, and has it trusted.
func startAmazon(t *testing.T) (address string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"*.s3.us-east-1.amazonaws.com"},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	t.Setenv("AWS_REGION", "us-east-1")
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		sum := md5.New()
		io.Copy(sum, req.Body)
		w.Header().Set("Etag", `"`+hex.EncodeToString(sum.Sum(nil))+`"`)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// TestBucketWithoutAHost: where each bucket has a host, one whose name is not found, or
// that nothing answers at, fails by itself. The pushes to others do not notice.
func TestBucketWithoutAHost(t *testing.T) {
	noHost := &net.DNSError{Err: "no such host", Name: "nowhere.s3.us-east-1.amazonaws.com", IsNotFound: true}
	for name, fails := range map[string]func(context.Context) error{
		"not found": func(context.Context) error { return noHost },
		"refused":   func(context.Context) error { return errRefused },
		"silent": func(ctx context.Context) error {
			// As a dial that has reached its limit; that itself is kept longer, since the
			// host that answers has to meet it too, on a busy machine.
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			return context.DeadlineExceeded
		},
	} {
		t.Run(name, func(t *testing.T) {
			var amazon string
			r := newRig(t, func(c *Config) {
				amazon = startAmazon(t)
				c.Endpoint, c.Attempts = "", 2
			})
			var tried, questions atomic.Int32
			up := r.again(t, func(u *Uploader) {
				u.retry.jitter = func(time.Duration) time.Duration { return 0 }
				u.endpoint.ask = func(context.Context) error { questions.Add(1); return nil }
				u.endpoint.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
					if strings.HasPrefix(address, "nowhere.") {
						tried.Add(1)
						return nil, fails(ctx)
					}
					return new(net.Dialer).DialContext(ctx, network, amazon)
				}
			})
			path, _ := r.file(t, "f", 100)
			for n := range 3 {
				if _, err := up.Push(t.Context(), push.Request{File: path, Destination: fmt.Sprint("s3://nowhere/", n)}, push.Options{}); err != nil {
					t.Fatal(err)
				}
			}
			onTrial := func() bool {
				up.mu.Lock()
				defer up.mu.Unlock()
				return len(up.queue.onTrial) > 0
			}
			for n := 0; n < 20 || !onTrial(); n++ {
				got, err := up.Push(t.Context(), push.Request{File: path, Destination: fmt.Sprint("s3://good/", n)}, push.Options{Wait: push.Forever})
				if err != nil || got.Attempts != 1 {
					t.Fatalf("another bucket: %v, %+v", err, got)
				}
			}
			if text := r.log.String(); strings.Contains(text, "cannot be reached") || tried.Load() < 2 || questions.Load() == 0 {
				t.Errorf("%d tries, %d questions, and the log says %s", tried.Load(), questions.Load(), text)
			}
			_, err := up.Push(t.Context(), push.Request{File: path, Destination: "s3://nowhere/waits"}, push.Options{Wait: push.Forever})
			if known, ok := errors.AsType[*push.Error](err); !ok || known.Code != push.StoreUnreachable || name == "not found" && !strings.Contains(known.Detail, "no such host") {
				t.Errorf("who waits is told %v", err)
			}
		})
	}
}

// TestHostsOfAStoreThatIsAway: that no bucket's host can be reached may be the end of
// the store. It is asked, and nothing else waits for that.
func TestHostsOfAStoreThatIsAway(t *testing.T) {
	for name, sign := range map[string]func(*endpoint){
		"no connection":  func(e *endpoint) { dialAll(e, 25) },
		"one that broke": func(e *endpoint) { e.suspect(io.EOF) },
		"none to be had": func(e *endpoint) { e.lost(&transport.StallError{At: transport.Connecting}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				var away atomic.Bool
				var questions atomic.Int32
				w := new(way) // to the buckets: there is none
				e := newEndpoint(ctx, w.connect, func(context.Context) error {
					questions.Add(1)
					time.Sleep(100 * time.Millisecond)
					if away.Load() {
						return errRefused
					}
					return nil
				})
				e.hosts = true
				sign(e)
				synctest.Wait()
				if e.wait(ctx, nil) != nil || questions.Load() != 1 {
					t.Errorf("%d questions", questions.Load())
				}
				if _, err := e.dial(ctx, "tcp", "bucket:1"); err == nil || knownDown(err) || !notTried(err) || e.blamed(err) {
					t.Errorf("while the store is asked a dial fails with %v", err)
				}
				time.Sleep(500 * time.Millisecond)
				sign(e)
				synctest.Wait()
				if _, _, down := e.down(); down || questions.Load() != 1 {
					t.Errorf("down %v after %d questions, though it answers", down, questions.Load())
				}
				away.Store(true)
				time.Sleep(time.Second)
				sign(e)
				time.Sleep(101 * time.Millisecond)
				if _, cause, down := e.down(); !down || cause != errRefused || questions.Load() != 2 {
					t.Errorf("down %v, %v after %d questions, though it does not answer", down, cause, questions.Load())
				}
				if _, err := e.dial(ctx, "tcp", "bucket:1"); !e.blamed(err) {
					t.Errorf("in an outage a dial fails with %v", err)
				}
				away.Store(false)
				if err := e.wait(ctx, nil); err != nil {
					t.Error(err)
				}
				stop()
				e.asking.Wait()
			})
		})
	}
}
