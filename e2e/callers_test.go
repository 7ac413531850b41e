package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// opsAddress returns the address for health and metrics, as the daemon logs it.
func (d *daemon) opsAddress(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	lines, err := d.out.wait(ctx, 1, "listening for health and metrics")
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := lines[0]["address"].(string)
	return addr
}

// With as many callers who wait as may be, one more who would wait is told how
// things stand, or to come again; who does not wait is served, and health is
// answered as ever. When there is room, all are served.
func TestMaxCallers(t *testing.T) {
	p := newFaultProxy(t)
	g := newGate()
	p.follow(always(fault{before: g.wait}))
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_MAX_CALLERS=48", "S3DAEMON_OPS_LISTEN=127.0.0.1:0")
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	d.pushAsync(t, file, "s3://"+bucket+"/held")
	before := d.idleLoad()

	const asking, waiting = 24, 45 // of 48: half of them, and all but a sixteenth
	passed := make(chan error, waiting)
	for range asking {
		go func() { passed <- d.tryBarrier("", patience) }()
	}
	served := func(n float64) func() bool {
		return func() bool { return d.metric(`s3daemon_callers{listener="api",state="serving"}`) == n }
	}
	waitFor(t, "those who wait at the barrier", served(asking))
	for i := range waiting - asking {
		go func() {
			a, err := d.tryPush(context.Background(), file, fmt.Sprintf("s3://%s/waited/%d", bucket, i))
			if err == nil {
				_, err = a.tryDone()
			}
			passed <- err
		}()
	}
	waitFor(t, "those who wait for their push", served(waiting))
	form := url.Values{"file": {file}, "destination": {"s3://" + bucket + "/refused"}}.Encode()
	for i := range 5 {
		waitFor(t, "the answers before to be over", served(waiting))
		a := d.pushForm(t, form)
		a.refused(t, http.StatusServiceUnavailable, "too_many_callers")
		if a.header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After is %q, want 1", a.header.Get("Retry-After"))
		}
		if a := d.get(t, "/pushes?wait=1h"); a.status != http.StatusOK || strings.Contains(string(a.body), `"pending":0`) {
			t.Errorf("one who would wait at the barrier is answered %d, %s", a.status, a.body)
		}
		d.pushAsync(t, file, fmt.Sprintf("s3://%s/taken/%d", bucket, i))
		if a := d.get(t, "/pushes"); a.status != http.StatusOK {
			t.Errorf("a list is answered %d", a.status)
		}
		for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
			if a := d.get(t, path); a.status != http.StatusOK {
				t.Errorf("%s is answered %d", path, a.status)
			}
		}
		if r := runCommand(t, d.env, "healthcheck"); r.code != 1 { // it asks at port 0
			t.Errorf("healthcheck of no address: %+v", r)
		}
		if r := runCommand(t, append(d.env, "S3DAEMON_OPS_LISTEN="+d.opsAddress(t)), "healthcheck"); r.code != 0 {
			t.Errorf("healthcheck: %+v", r)
		}
	}
	if n := d.metric("s3daemon_waits_refused_total"); n != 10 {
		t.Errorf("%v were refused, want 10", n)
	}
	g.open()
	for range cap(passed) {
		if err := <-passed; err != nil {
			t.Errorf("a caller who was there before: %v", err)
		}
	}
	d.barrier(t, "")
	d.push(t, file, "s3://"+bucket+"/served").done(t)
	if n, want := len(listObjects(t, bucket)), 1+waiting-asking+5+1; n != want {
		t.Errorf("the bucket has %d objects, want %d: what was refused is not pushed", n, want)
	}
	checkReturns(t, d, before)
}

// Who asks at S3DAEMON_OPS_LISTEN has health and metrics and nothing else, by
// any name, and to the end: while the daemon drains it is alive, and not ready.
func TestOpsListen(t *testing.T) {
	p := newFaultProxy(t)
	g := newGate()
	p.follow(always(fault{before: g.wait}))
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_OPS_LISTEN=127.0.0.1:0", "S3DAEMON_DRAIN_TIMEOUT="+patience.String())
	ops := &daemon{t: t, url: "http://" + d.opsAddress(t), client: clientOf(d.opsAddress(t)), secret: d.secret}
	ask := func(method, path string) answer {
		t.Helper()
		req := ops.request(context.Background(), method, path, "", "")
		req.Host = "s3daemon.example.org:9090"
		return ops.do(t, req)
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		if a := ask("GET", path); a.status != http.StatusOK {
			t.Errorf("%s is answered %d", path, a.status)
		}
	}
	for _, route := range [][2]string{{"POST", "/push"}, {"GET", "/pushes"}, {"GET", "/pushes/x"}, {"DELETE", "/pushes/x"}, {"POST", "/pushes/x/retry"}, {"GET", "/openapi.yaml"}} {
		req := ops.request(context.Background(), route[0], route[1], "", "")
		if a, err := ops.sendUnchecked(ops.client, req); err != nil || a.status != http.StatusNotFound {
			t.Errorf("%s %s is answered %d, %v", route[0], route[1], a.status, err)
		}
	}

	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	done := make(chan error, 1)
	go func() {
		a, err := d.tryPush(context.Background(), file, "s3://"+bucket+"/slow")
		if err == nil {
			_, err = a.tryDone()
		}
		done <- err
	}()
	waitFor(t, "it to be under way", func() bool { return p.nowHeld() == 1 })
	d.signal(syscall.SIGTERM)
	d.logged(t, 1, "stopping")
	waitFor(t, "the API's address to be closed", func() bool {
		c, err := net.Dial("tcp", d.addrs[0])
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if a := ask("GET", "/healthz"); a.status != http.StatusOK {
		t.Errorf("while it drains /healthz is answered %d", a.status)
	}
	ask("GET", "/readyz").refused(t, http.StatusServiceUnavailable, "shutting_down")
	g.open()
	if err := <-done; err != nil {
		t.Errorf("the push under way: %v", err)
	}
	if code := d.wait(); code != 0 {
		t.Errorf("the exit status is %d", code)
	}
}

// loris keeps a connection open as long as it can, by one way of being slow,
// and another when it is closed, until the context ends.
func loris(ctx context.Context, addr string, source int, slow func(context.Context, net.Conn)) {
	for ctx.Err() == nil {
		c, err := dialFrom(ctx, source, addr)
		if err == nil {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			slow(ctx, c)
			stop()
			c.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// dialFrom connects from one of many addresses of this host, so that ports
// suffice.
func dialFrom(ctx context.Context, source int, addr string) (net.Conn, error) {
	from := &net.TCPAddr{IP: net.IPv4(127, 1, 0, byte(1+source%100))}
	return (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", addr)
}

// drip sends a text, then a byte a second for ever.
func drip(first string) func(context.Context, net.Conn) {
	return func(ctx context.Context, c net.Conn) {
		if _, err := io.WriteString(c, first); err != nil {
			return
		}
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if _, err := c.Write([]byte("x")); err != nil {
				return
			}
		}
	}
}

// Thousands of callers who are slow on purpose keep nobody out: others push, and
// health is answered, at once; and what the slow ones held comes back.
func TestSlowLoris(t *testing.T) {
	crowd, lasts := 5000, 12*time.Second // longer than a head or a body may take, so that they come back
	if testing.Short() || raceBuild() {
		crowd, lasts = 3500, 5*time.Second
	}
	needDescriptors(t, crowd+1000)
	d := startDaemon(t, "S3DAEMON_OPS_LISTEN=127.0.0.1:0")
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	for i := range 1000 { // of which a list tells
		d.pushAs(t, async, file, fmt.Sprintf("s3://%s/%s/%04d", bucket, strings.Repeat("a-long-name", 40), i)).tryAccepted()
	}
	d.barrier(t, "")
	before := d.openLoad()

	for name, slow := range map[string]func(context.Context, net.Conn){
		"nothing":       drip(""),
		"the head":      drip("GET /pushes HTTP/1.1\r\nHost: localhost\r\nX: "),
		"the body":      drip("POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n"),
		"a chunk":       drip("POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\neeee\r\n"),
		"idle":          drip("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"taking a list": drip("GET /pushes?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			prober := startProber(t, d.cmd.Process.Pid, map[string]string{"/healthz of the API": d.addrs[0], "/healthz of its own": d.opsAddress(t)})
			ctx, cancel := context.WithTimeout(context.Background(), lasts)
			defer cancel()
			var attackers sync.WaitGroup
			for i := range crowd {
				attackers.Go(func() { loris(ctx, d.addrs[0], i, slow) })
			}
			pushed := 0
			client := clientOf(d.addrs[0])
			for ; ctx.Err() == nil; pushed++ {
				client.CloseIdleConnections() // each over one of its own
				form := url.Values{"file": {file}, "destination": {fmt.Sprintf("s3://%s/honest/%d", bucket, pushed)}}.Encode()
				a, err := d.send(client, d.request(context.Background(), "POST", "/push", "application/x-www-form-urlencoded", form))
				if err == nil {
					_, err = a.tryDone()
				}
				if err != nil {
					t.Errorf("an honest push: %v", err)
				}
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
			client.CloseIdleConnections()
			attackers.Wait()
			if name == "taking a list" { // those who are refused come back all together, as in TestManyCallers
				prober.inTime("/healthz of its own")
			} else {
				prober.inTime()
			}
			t.Logf("%d honest pushes beside %d slow callers; %v connections were dropped so far; memory at most %d MB, %d MB now",
				pushed, crowd, d.metric("s3daemon_connections_dropped_total"), d.memory("VmHWM")>>20, d.memory("RssAnon")>>20)
			checkReturns(t, d, before)
		})
	}
	if size := d.memory("VmHWM"); size > 400<<20 && !raceBuild() {
		t.Errorf("the daemon's memory was up to %d MB", size>>20)
	}
}

// Those who hold connections at the address for health, and make new ones when
// these are closed, do not keep it from others.
func TestIdleAtOpsListen(t *testing.T) {
	const crowd = 3000 // many more than there are places
	needDescriptors(t, crowd+1000)
	d := startDaemon(t, "S3DAEMON_OPS_LISTEN=127.0.0.1:0")
	before := d.openLoad()
	prober := startProber(t, d.cmd.Process.Pid, map[string]string{"/healthz of its own": d.opsAddress(t)})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for i := range crowd {
		all.Go(func() {
			loris(ctx, d.opsAddress(t), i, func(_ context.Context, c net.Conn) { c.Read(make([]byte, 1)) })
		})
	}
	all.Wait()
	prober.inTime()
	checkReturns(t, d, before)
}

// needDescriptors skips the test where this process and its children cannot have
// so many files open.
func needDescriptors(t testing.TB, n int) {
	t.Helper()
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		t.Fatal(err)
	}
	if r.Cur < uint64(n) {
		t.Skipf("the limit on open files is %d, and %d are needed", r.Cur, n)
	}
}

// Ten thousand callers at once, each over a connection of its own: every one is
// answered, sooner or later, and what was accepted is there; health is answered
// all the time, and the daemon's memory stays what it is for.
func TestManyCallers(t *testing.T) {
	callers := 10_000
	if testing.Short() || raceBuild() {
		callers = 3_000
	}
	needDescriptors(t, callers+1000)
	d := startDaemon(t, "S3DAEMON_OPS_LISTEN=127.0.0.1:0", "S3DAEMON_QUEUE_LIMIT=3000")
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	before := d.openLoad()
	prober := startProber(t, d.cmd.Process.Pid, map[string]string{"/healthz of the API": d.addrs[0], "/healthz of its own": d.opsAddress(t)})

	var all sync.WaitGroup
	var repeats atomic.Int64
	statuses := make([]atomic.Int64, 600)
	begin := make(chan struct{})
	for i := range callers {
		all.Go(func() {
			<-begin
			waits := ""
			if i%2 == 0 {
				waits = "&async=true"
			}
			body := "file=" + file + "&destination=s3://" + bucket + "/" + strconv.Itoa(i) + waits
			for limit := time.Now().Add(answerLimit); ; repeats.Add(1) {
				status, after, err := pushFrom(i, d.addrs[0], body)
				statuses[status].Add(1)
				if err == nil && (status == http.StatusOK || status == http.StatusAccepted) {
					return
				}
				if known := status == 0 || status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable; !known || time.Now().After(limit) {
					t.Errorf("caller %d is answered %d, %v", i, status, err)
					return
				}
				time.Sleep(after)
			}
		})
	}
	begun := time.Now()
	close(begin)
	all.Wait()
	took := time.Since(begun)
	// At the API's address a health check stands in the kernel's queue among all
	// the others, and is answered when they are.
	prober.inTime("/healthz of its own")
	d.barrier(t, "")
	if n := len(listObjects(t, bucket)); n != callers {
		t.Errorf("the bucket has %d objects, want one of each of %d callers", n, callers)
	}
	t.Logf("%d callers took %.1f s; 200: %d, 202: %d, 429: %d, 503: %d, no answer: %d; %d repeats; %v connections dropped; memory at most %d MB",
		callers, took.Seconds(), statuses[200].Load(), statuses[202].Load(), statuses[429].Load(), statuses[503].Load(), statuses[0].Load(),
		repeats.Load(), d.metric("s3daemon_connections_dropped_total"), d.memory("VmHWM")>>20)
	if size := d.memory("VmHWM"); size > 400<<20 && !raceBuild() {
		t.Errorf("the daemon's memory was up to %d MB", size>>20)
	}
	checkReturns(t, d, before)
}

// pushFrom pushes over a connection of its own, and returns the status of the
// answer, 0 where there was none, and after what time to ask again.
func pushFrom(source int, addr, body string) (status int, after time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	c, err := dialFrom(ctx, source, addr)
	if err != nil {
		return 0, time.Second, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(answerLimit))
	_, err = fmt.Fprintf(c, "POST /push HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if err != nil {
		return 0, time.Second, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, time.Second, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return resp.StatusCode, time.Duration(seconds) * time.Second, err
}
