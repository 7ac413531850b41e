package uploader

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/transport"
)

// impatient has a rig wait for a moment only for what stands still.
func impatient(t *testing.T) func(*Config) {
	usual := answerLimits
	t.Cleanup(func() { answerLimits = usual })
	answerLimits.answer, answerLimits.complete, answerLimits.rest = 300*time.Millisecond, 600*time.Millisecond, 300*time.Millisecond
	return func(c *Config) { c.StallTimeout, c.Attempts = 300*time.Millisecond, 2 }
}

// TestStalledStore has stores that stand still, or trickle, at each phase of a
// request, for ever: the push ends as its attempts are over, and its slot is
// free. The store answers the question whether it is there, so this is no
// outage.
func TestStalledStore(t *testing.T) {
	for name, answer := range map[string]string{
		"reads nothing":          "",
		"does not answer":        "",
		"answers half a head":    "HTTP/1.1 200 OK\r\nEta",
		"answers half a body":    "HTTP/1.1 200 OK\r\nEtag: \"x\"\r\nContent-Length: 10\r\n\r\n<",
		"refuses half a message": "HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n<Error><Code>Acc",
		"trickles":               "HTTP/1.1 200 OK\r\n",
	} {
		for _, size := range []int{100, 16 * testPart} {
			if name == "reads nothing" && size == 100 {
				continue // a kernel takes that
			}
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				r := newRig(t, impatient(t))
				r.plan.whole = 32 * testPart
				stop := make(chan struct{})
				defer close(stop)
				var requests atomic.Int32
				r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
					if name != "answers half a body" || req.Method != http.MethodHead { // which has no body
						requests.Add(1)
					}
					if name != "reads nothing" {
						io.Copy(io.Discard, req.Body)
					}
					hijack(t, w, func(conn net.Conn, _ *bufio.Reader) {
						io.WriteString(conn, answer)
						for name == "trickles" {
							select {
							case <-stop:
								return
							case <-time.After(20 * time.Millisecond):
								io.WriteString(conn, "A: b\r\n")
							}
						}
						<-stop
					})
				})
				path, _ := r.file(t, "f", size)
				receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
				e, known := errors.AsType[*push.Error](err)
				_, stalled := errors.AsType[*transport.StallError](err)
				if refused := name == "refuses half a message"; !known || !refused && (!stalled || requests.Load() != 2 || receipt.Attempts != 2) {
					t.Errorf("%v, %d requests, receipt %+v", e, requests.Load(), receipt)
				}
				if n := r.slots.inUse(); n != 0 {
					t.Errorf("%d slots are held", n)
				}
				if _, _, down := r.endpoint.down(); down {
					t.Error("the store counts as away")
				}
			})
		}
	}
}

// TestAllStall: where every request stands still, though the store is there and
// says so, pushes that nobody waits for are tried now and then, and no more.
func TestAllStall(t *testing.T) {
	r := newRig(t, impatient(t), func(c *Config) { c.MaxConnections = 8 })
	r.plan.whole = 32 * testPart
	stop := make(chan struct{})
	defer close(stop)
	var requests atomic.Int32
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		requests.Add(1)
		hijack(t, w, func(net.Conn, *bufio.Reader) { <-stop })
	})
	path, _ := r.file(t, "f", 16*testPart)
	for i := range 8 {
		if _, err := r.Uploader.Push(t.Context(), push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i)}, push.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the bucket is on trial", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.queue.onTrial) == 1
	})
	if n := requests.Load(); n > 4*8 { // there are five failures until then, some of two requests
		t.Errorf("%d requests of 8 pushes", n)
	}
	if n := testutil.ToFloat64(r.metrics.retries.WithLabelValues("stalled")); n < 5 {
		t.Errorf("%v attempts count as stalled", n)
	}
	r.stop()
	r.stays = 8
}

// TestOneStall: one connection stands still, and the store says that it is
// there: the push is delivered on another one at once, and nothing else notices.
func TestOneStall(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxConnections, c.StallTimeout = 8, 2*time.Second })
	r.plan.whole = 32 * testPart
	arrived, hold := make(chan struct{}, 8), make(chan struct{})
	connections := &remotes{seen: make(map[string]bool)}
	fill := func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		connections.add(req)
		arrived <- struct{}{}
		<-hold
		next.ServeHTTP(w, req)
	}
	r.spoil(fill)
	small, _ := r.file(t, "small", 100)
	pushAll(t, r, small, 8, func() {
		for range 8 {
			<-arrived
		}
		close(hold)
	})
	stop := make(chan struct{})
	defer close(stop)
	var n atomic.Int32
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		connections.add(req)
		if n.Add(1) == 1 {
			hijack(t, w, func(net.Conn, *bufio.Reader) { <-stop })
			return
		}
		next.ServeHTTP(w, req)
	})
	path, content := r.file(t, "f", 16*testPart)
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	if err != nil || receipt.Attempts != 2 {
		t.Fatalf("%v, receipt %+v", err, receipt)
	}
	r.wantObject(t, "k", content)
	if connections.count() != 8 {
		t.Errorf("%d connections, of which 8 were there before", connections.count())
	}
}

// remotes counts connections.
type remotes struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (s *remotes) add(req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[req.RemoteAddr] = true
}

func (s *remotes) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

// pushAll pushes a file to so many objects side by side; all must be delivered
// without a pause, and the most attempts that one took are returned.
func pushAll(t *testing.T, r *rig, path string, n int, meanwhile func()) (attempts int) {
	t.Helper()
	var callers sync.WaitGroup
	var most atomic.Int32
	for i := range n {
		callers.Go(func() {
			receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i)})
			if err != nil {
				t.Error(err)
			}
			for now := most.Load(); int32(receipt.Attempts) > now && !most.CompareAndSwap(now, int32(receipt.Attempts)); now = most.Load() {
			}
		})
	}
	meanwhile()
	callers.Wait()
	return int(most.Load())
}

// TestLostConnections: idle connections that are gone when they are used, all at
// once, cost no failure and no pause; nor does a store that closes each after an
// answer without saying so.
func TestLostConnections(t *testing.T) {
	const slots = 25
	for name, setUp := range map[string]func(*testing.T, *rig, *relay) (lose func()){
		"all reset when they are used next": func(t *testing.T, r *rig, way *relay) func() {
			arrived, hold := make(chan struct{}, slots), make(chan struct{})
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				arrived <- struct{}{}
				<-hold
				next.ServeHTTP(w, req)
			})
			path, _ := r.file(t, "warm", 100)
			pushAll(t, r, path, slots, func() {
				for range slots {
					<-arrived
				}
				close(hold)
			})
			r.fault.Store(nil)
			return way.forget
		},
		"closed after each answer": func(_ *testing.T, r *rig, _ *relay) func() {
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				conn, _, _ := http.NewResponseController(w).Hijack()
				defer conn.Close()
				answer := &bare{header: make(http.Header), conn: conn}
				next.ServeHTTP(answer, req)
				answer.WriteHeader(http.StatusOK)
			})
			return func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			way := new(relay)
			r := newRig(t, func(c *Config) {
				c.MaxConnections, c.Attempts = slots, 5
				c.Endpoint = way.start(t, c.Endpoint)
			})
			setUp(t, r, way)()
			path, content := r.file(t, "f", 1000)
			for range 3 {
				if n := pushAll(t, r, path, slots, func() {}); name != "closed after each answer" && n > 3 {
					t.Errorf("a push took %d attempts", n)
				}
			}
			r.wantObject(t, "0", content)
			if n := testutil.ToFloat64(r.metrics.pushes.WithLabelValues("failed")); n != 0 {
				t.Errorf("%v pushes failed", n)
			}
			for _, reason := range []string{"connection", "stalled"} {
				if n := testutil.ToFloat64(r.metrics.retries.WithLabelValues(reason)); n != 0 {
					t.Errorf("%v pauses for %s", n, reason)
				}
			}
			if _, _, down := r.endpoint.down(); down {
				t.Error("the store counts as away")
			}
		})
	}
}

// relay is a way to a store that may forget its connections: those are reset
// when something comes over them.
type relay struct {
	age atomic.Int32 // how often it has forgotten
}

func (y *relay) forget() { y.age.Add(1) }

func (y *relay) start(t *testing.T, store string) (url string) {
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
			far, err := net.Dial("tcp", strings.TrimPrefix(store, "http://"))
			if err != nil {
				t.Error(err)
				near.Close()
				continue
			}
			go y.carry(near.(*net.TCPConn), far, y.age.Load())
			go func() {
				io.Copy(near, far)
				near.Close()
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// carry has what comes over a connection get on, unless that was forgotten.
func (y *relay) carry(near *net.TCPConn, far net.Conn, age int32) {
	defer far.Close()
	defer near.Close()
	some := make([]byte, 64<<10)
	for {
		n, err := near.Read(some)
		if y.age.Load() != age {
			near.SetLinger(0)
			return
		}
		if _, failed := far.Write(some[:n]); err != nil || failed != nil {
			return
		}
	}
}

// bare answers on a connection, and says nothing of its end.
type bare struct {
	header http.Header
	conn   net.Conn
	said   bool
}

func (b *bare) Header() http.Header { return b.header }

func (b *bare) Write(p []byte) (int, error) {
	b.WriteHeader(http.StatusOK)
	return b.conn.Write(p)
}

func (b *bare) WriteHeader(status int) {
	if b.said {
		return
	}
	b.said = true
	if b.header.Get("Content-Length") == "" {
		b.header.Set("Content-Length", "0")
	}
	fmt.Fprintf(b.conn, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	b.header.Write(b.conn)
	io.WriteString(b.conn, "\r\n")
}

// TestSentBytes has a store that stops reading: a push that runs shows what the
// store has taken, and not the whole file; nothing once the attempt has failed;
// and all of it at the end.
func TestSentBytes(t *testing.T) {
	const size, takes = 16 * testPart, testPart
	r := newRig(t, func(c *Config) { c.StallTimeout = time.Minute })
	r.plan.whole = 32 * testPart
	reached, stop := make(chan struct{}, 2), make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		io.CopyN(io.Discard, req.Body, takes)
		hijack(t, w, func(conn net.Conn, _ *bufio.Reader) {
			reached <- struct{}{}
			<-stop
		})
	})
	path, content := r.file(t, "f", size)
	receipt, err := r.Uploader.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}, push.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id, err := push.ParseID(receipt.ID)
	if err != nil {
		t.Fatal(err)
	}
	sent := func() int64 {
		now, err := r.Get(t.Context(), id, 0)
		if err != nil {
			t.Error(err)
		}
		return now.SentBytes
	}
	<-reached
	until(t, "what the store has taken is shown", func() bool { return sent() >= takes/2 })
	if n := sent(); n > size-testPart {
		t.Errorf("%d bytes of %d were sent, says the receipt, to a store that took %d", n, size, takes)
	}
	var again atomic.Bool
	hold := make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		again.Store(true)
		<-hold
		next.ServeHTTP(w, req)
	})
	close(stop)
	until(t, "another attempt", again.Load)
	if n := sent(); n >= takes/2+testPart {
		t.Errorf("%d bytes at the beginning of another attempt", n)
	}
	close(hold)
	if done, err := r.Get(t.Context(), id, push.Forever); err != nil || done.State != push.Done {
		t.Fatalf("%+v, %v", done, err)
	}
	r.wantObject(t, "k", content)
}
