package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// loader posts pushes over a connection of its own, as cheaply as it can: it
// shares the machine with the daemon that it loads. What it is answered is
// looked at for its status only; other tests hold such answers to the contract.
type loader struct {
	conn   net.Conn
	reader *bufio.Reader
	took   []time.Duration
}

func newLoader(addr string) (*loader, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &loader{conn: conn, reader: bufio.NewReader(conn)}, nil
}

// push posts one push that nobody waits for.
func (l *loader) push(file, destination, label string) error {
	body := fmt.Sprintf(`{"file":%q,"destination":%q,"label":%q}`, file, destination, label)
	begun := time.Now()
	_, err := fmt.Fprintf(l.conn, "POST /push HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nPrefer: respond-async\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if err != nil {
		return err
	}
	resp, err := http.ReadResponse(l.reader, nil)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	l.took = append(l.took, time.Since(begun))
	if err == nil && resp.StatusCode != http.StatusAccepted {
		err = fmt.Errorf("the answer is %d, want 202: %s", resp.StatusCode, text)
	}
	return err
}

// loadDaemon has 64 callers push n times altogether, and logs how fast that
// was. The objects are bucket/run/0 and so on, and the label is the run's name.
func loadDaemon(t *testing.T, d *daemon, files []string, bucket, run string, n int) (rate float64, p99 time.Duration) {
	t.Helper()
	const callers = 64
	var all sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	begun := time.Now()
	for c := range callers {
		all.Go(func() {
			l, err := newLoader(d.addrs[0])
			if err != nil {
				t.Error(err)
				return
			}
			defer l.conn.Close()
			for i := c; i < n; i += callers {
				if err := l.push(files[i%len(files)], fmt.Sprintf("s3://%s/%s/%d", bucket, run, i), run); err != nil {
					t.Errorf("push %d: %v", i, err)
					return
				}
			}
			mu.Lock()
			took = append(took, l.took...)
			mu.Unlock()
		})
	}
	all.Wait()
	seconds := time.Since(begun).Seconds()
	if t.Failed() {
		t.FailNow()
	}
	slices.Sort(took)
	rate, p99 = float64(n)/seconds, took[len(took)*99/100]
	t.Logf("%d pushes by %d callers in %.1f s: %.0f accepted a second, p50 %.1f ms, p99 %.1f ms, longest %.1f ms", n, callers, seconds,
		rate, took[len(took)/2].Seconds()*1e3, p99.Seconds()*1e3, took[len(took)-1].Seconds()*1e3)
	return rate, p99
}

// Pushes are taken at a rate that has nothing to do with the store, and each
// that was survives the death of the daemon.
func TestAcceptRate(t *testing.T) {
	n := 5000
	if full() {
		n = 20_000
	}
	if testing.Short() {
		n = 1000
	}
	p := newFaultProxy(t)
	p.cutOff(cutClosed)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket := newBucket(t)
	var files []string
	for i := range 64 {
		files = append(files, makeFile(t, fmt.Sprintf("file-%d", i), 1024))
	}
	rate, p99 := loadDaemon(t, d, files, bucket, "run", n)
	if full() && !raceBuild() && (rate < 4000 || p99 > 40*time.Millisecond) {
		t.Errorf("%.0f accepted a second with a p99 of %v, want at least 4000 and at most 40 ms", rate, p99)
	}
	d.kill()
	d = d.restart(t)
	if pending := d.pageOf(t, "limit=1").Pending; pending != n {
		t.Errorf("after a kill %d pushes are pending, want all %d", pending, n)
	}
	if !full() {
		d.kill() // rather than deliver them all
		return
	}
	p.restore(t)
	back := time.Now()
	d.barrier(t, "")
	t.Logf("all were delivered %.1f s after the store's return", time.Since(back).Seconds())
	checkDelivered(t, d, files, bucket, "run", n)
}

// A million pushes that wait cost little memory and do not hold up the start.
func TestMillionQueued(t *testing.T) {
	if !full() {
		t.Skip("a million pushes take minutes: S3DAEMON_E2E_FULL=1")
	}
	n := number(t, "S3DAEMON_E2E_QUEUED", 1_000_000)
	p := newFaultProxy(t)
	p.cutOff(cutClosed)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_QUEUE_LIMIT=1100000")
	bucket := newBucket(t)
	var files []string
	for i := range 64 {
		files = append(files, makeFile(t, fmt.Sprintf("file-%d", i), 1024))
	}
	loadDaemon(t, d, files, bucket, "run", n)
	check := func(when string) {
		anonymous, most := d.memory("RssAnon"), d.memory("VmHWM")
		t.Logf("%s: %.0f MB of memory are anonymous, the most that was resident ever is %.0f MB", when, float64(anonymous)/1e6, float64(most)/1e6)
		if anonymous >= 400_000_000 && !raceBuild() {
			t.Errorf("%s: %d bytes of memory are anonymous, want less than 400 MB", when, anonymous)
		}
		begun := time.Now()
		page := d.pageOf(t, "state=queued")
		if page.Pending != n || len(page.Pushes) != 100 || page.Next == "" {
			t.Errorf("%s: %d are pending, of which %d are on the first page; want %d and 100", when, page.Pending, len(page.Pushes), n)
		}
		older := d.pageOf(t, "state=queued&cursor="+page.Next)
		if len(older.Pushes) != 100 || older.Pushes[0].ID >= page.Pushes[99].ID {
			t.Errorf("%s: the second page has %d pushes", when, len(older.Pushes))
		}
		t.Logf("%s: two pages of the list took %.3f s", when, time.Since(begun).Seconds())
	}
	check("before the kill")
	d.kill()
	begun := time.Now()
	d = d.restart(t)
	if a := d.get(t, "/readyz"); a.status != http.StatusOK {
		t.Errorf("GET /readyz: %d", a.status)
	}
	ready := time.Since(begun)
	t.Logf("ready %.2f s after the start", ready.Seconds())
	if ready > 10*time.Second && !raceBuild() {
		t.Errorf("ready %v after the start, want at most 10 s", ready)
	}
	check("after the restart")
	// Nor does it hold up a caller who waits, once the store is back.
	p.restore(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	begun = time.Now()
	a, err := d.tryPush(ctx, files[0], "s3://"+bucket+"/waited")
	if err != nil {
		t.Fatal(err)
	}
	a.done(t)
	t.Logf("one that somebody waited for took %.3f s", time.Since(begun).Seconds())
	d.kill()
}

// A queue that is full says so, and when to come again. It has room once
// something has ended.
func TestQueueFull(t *testing.T) {
	p := newFaultProxy(t)
	g := newGate()
	p.follow(always(fault{before: g.wait}))
	const limit = 10
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), fmt.Sprintf("S3DAEMON_QUEUE_LIMIT=%d", limit), "S3DAEMON_MAX_CONNECTIONS=2")
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	accepted := 0
	for {
		a := d.pushAs(t, async, file, fmt.Sprintf("s3://%s/%d", bucket, accepted))
		if a.status != http.StatusAccepted {
			a.refused(t, http.StatusTooManyRequests, "queue_full")
			if a.header.Get("Retry-After") == "" {
				t.Error("the answer does not say when to come again")
			}
			break
		}
		// Those that run may count or not.
		if accepted++; accepted > limit+2*2 {
			t.Fatalf("%d pushes are queued, and the limit is %d", accepted, limit)
		}
	}
	if accepted < limit {
		t.Errorf("the queue was full with %d pushes, and the limit is %d", accepted, limit)
	}
	d.push(t, file, "s3://"+bucket+"/waited").refused(t, http.StatusTooManyRequests, "queue_full")
	if n := len(d.listOf(t, "")); n != accepted {
		t.Errorf("the list has %d pushes, want the %d that were accepted", n, accepted)
	}
	g.open()
	d.barrier(t, "")
	d.push(t, file, "s3://"+bucket+"/waited").done(t)
	if n := len(listObjects(t, bucket)); n != accepted+1 {
		t.Errorf("the bucket has %d objects, want %d", n, accepted+1)
	}
}
