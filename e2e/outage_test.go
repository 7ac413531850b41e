package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// The store is cut off and comes back. Meanwhile a thousand pushes are taken,
// the store is asked for one connection a second at most, and afterwards all
// is delivered with nobody's help.
func TestOutage(t *testing.T) {
	pushes, lasts := 1000, 10*time.Second
	if full() {
		lasts = 2 * time.Minute
	}
	if testing.Short() {
		pushes, lasts = 200, 4*time.Second
	}
	for name, kind := range map[string]cutKind{"connections refused": cutClosed, "connections reset": cutReset} {
		t.Run(name, func(t *testing.T) {
			if !full() {
				t.Parallel() // most of it is waiting
			}
			outage(t, kind, pushes, lasts)
		})
	}
}

func outage(t *testing.T, kind cutKind, pushes int, lasts time.Duration) {
	p := newFaultProxy(t)
	syns := countSYNs(t, p.addr)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_ATTEMPTS=3")
	bucket := newBucket(t)
	var files []string
	for i := range 10 {
		files = append(files, makeFile(t, fmt.Sprintf("file-%d", i), int64(1000*(i+1))))
	}
	// How long the bytes need, with the pool open and warm afterwards.
	healthy := time.Now()
	pushAll(t, d, files, bucket, "before", pushes)
	d.barrier(t, "before")
	need := time.Since(healthy)

	begin := time.Now()
	p.cutOff(kind)
	over := time.After(lasts)
	pushAll(t, d, files, bucket, "during", pushes)
	waited := make(chan error, 1)
	go func() {
		a, err := d.tryPush(context.Background(), files[0], "s3://"+bucket+"/waited")
		if err == nil && (a.status != http.StatusGatewayTimeout || !strings.Contains(string(a.body), `"store_unreachable"`)) {
			err = fmt.Errorf("the answer is %d: %s", a.status, a.body)
		}
		waited <- err
	}()
	select {
	case err := <-waited:
		if err != nil {
			t.Errorf("who waited in the outage: %v", err)
		}
		t.Logf("who waited in the outage was told after %.1f s", time.Since(begin).Seconds())
	case <-time.After(patience):
		t.Errorf("who waited in the outage had no answer within %v", patience)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if a := d.get(t, path); a.status != http.StatusOK {
			t.Errorf("GET %s in the outage: %d", path, a.status)
		}
	}
	<-over
	attempts := p.connectsSince(begin)
	if kind == cutClosed && syns != nil {
		attempts = syns.since(begin)
	}
	// Asked before the store is back, so that they are all of the outage.
	seconds := time.Since(begin).Seconds()
	if pending := d.pageOf(t, "label=during&limit=1").Pending; pending != pushes {
		t.Errorf("%d pushes are pending in the outage, want all %d", pending, pushes)
	}
	p.restore(t)
	back := time.Now()
	d.barrier(t, "during")
	after := time.Since(back)
	t.Logf("%d pushes, %.1f s without the store: %d attempts to connect; all delivered %.1f s after its return, where %.1f s are needed",
		pushes, seconds, len(attempts), after.Seconds(), need.Seconds())
	checkAttempts(t, kind, attempts, begin)
	if limit := need + 10*time.Second; full() && after > limit {
		t.Errorf("the last push was delivered %v after the store's return, want at most %v", after, limit)
	}
	checkDelivered(t, d, files, bucket, "during", pushes)
}

// checkAttempts fails the test unless connections were asked for no more often
// than once a second. Where they are made and then reset, those of the first
// second may be as many as the pool has, and each may have been a request.
func checkAttempts(t *testing.T, kind cutKind, attempts []time.Time, begin time.Time) {
	t.Helper()
	free := 1
	if kind == cutReset {
		free = poolSize
	}
	window := time.Second
	most := map[int]int{}
	for _, at := range attempts {
		most[int(at.Sub(begin)/window)]++
	}
	for second, n := range most {
		allowed := 2 // a second's edge may fall between
		if second <= 1 {
			allowed += free
		}
		if n > allowed {
			t.Errorf("in second %d there were %d attempts to connect, want at most 1", second, n)
		}
	}
	last := begin
	if n := len(attempts); n > 0 {
		last = attempts[n-1]
	}
	if allowed := int(last.Sub(begin)/window) + 1 + free; len(attempts) > allowed {
		t.Errorf("there were %d attempts to connect, want at most %d: %v", len(attempts), allowed, offsets(attempts, begin))
	}
}

func offsets(times []time.Time, begin time.Time) (found []string) {
	for _, at := range times {
		found = append(found, fmt.Sprintf("%.2f", at.Sub(begin).Seconds()))
	}
	return found
}

// pushAll pushes the files in turn, to as many objects as are wanted, from a
// few callers at once, none of whom waits.
func pushAll(t *testing.T, d *daemon, files []string, bucket, label string, pushes int) {
	t.Helper()
	var callers sync.WaitGroup
	next := make(chan int)
	for range 16 {
		callers.Go(func() {
			for i := range next {
				send := d.sendUnchecked
				if i%100 == 0 {
					send = d.send
				}
				req, err := d.requestAs(context.Background(), async.labelled(label), files[i%len(files)], fmt.Sprintf("s3://%s/%s/%d", bucket, label, i))
				var a answer
				if err == nil {
					a, err = send(d.client, req)
				}
				if err == nil {
					_, err = a.tryAccepted()
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range pushes {
		next <- i
	}
	close(next)
	callers.Wait()
}

// checkDelivered fails the test unless the pushes of pushAll are done, and in
// the store.
func checkDelivered(t *testing.T, d *daemon, files []string, bucket, label string, pushes int) {
	t.Helper()
	if failed := d.pageOf(t, "state=failed,cancelled,queued,running&label="+label); len(failed.Pushes) > 0 {
		t.Errorf("some are not done, the last of them %+v", failed.Pushes[0])
	}
	if n := len(d.listOf(t, "state=done&label="+label)); n != pushes {
		t.Errorf("%d pushes are done, want %d", n, pushes)
	}
	etags := map[string]string{}
	for _, f := range files {
		s, err := sumsOf(f)
		if err != nil {
			t.Fatal(err)
		}
		etags[f] = s.etag
	}
	objects, wrong := listObjects(t, bucket), 0
	for i := range pushes {
		o := objects[fmt.Sprintf("%s/%d", label, i)]
		if strings.Trim(aws.ToString(o.ETag), `"`) != etags[files[i%len(files)]] {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%d objects are not there, or have other bytes", wrong)
	}
}
