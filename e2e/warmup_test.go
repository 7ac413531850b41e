package e2e

import (
	"bytes"
	"encoding/json"
	"strings"
	"syscall"
	"testing"
)

// warming are the settings of a daemon that warms its connections in a bucket.
func warming(bucket string, more ...string) []string {
	return append([]string{"S3DAEMON_WARMUP=s3://" + bucket + "/warm"}, more...)
}

// checkNothingOfWarmUp looks that the bucket has neither an upload nor an object.
func checkNothingOfWarmUp(t *testing.T, bucket string) {
	t.Helper()
	untilNoUploads(t, bucket)
	for key := range listObjects(t, bucket) {
		t.Errorf("there is an object %q", key)
	}
}

// After its start a daemon says that its connections are warm, and nothing is left
// of that.
func TestWarmUp(t *testing.T) {
	bucket := newBucket(t)
	d := startDaemon(t, warming(bucket)...)
	waitFor(t, "the daemon to say that it is warm", func() bool { return d.metric("s3daemon_pool_warm") == 1 })
	var sent float64
	waitFor(t, "the log to have it", func() bool {
		for line := range bytes.Lines(d.out.bytes()) { // which says so, perhaps with a condition
			var said struct {
				Msg   string
				Bytes float64
			}
			if json.Unmarshal(line, &said) == nil && strings.HasPrefix(said.Msg, "the connections are warm") {
				sent = said.Bytes
				return true
			}
		}
		return false
	})
	if least := d.metric("s3daemon_slots") * (16 << 10); sent < least {
		t.Errorf("%v bytes were sent, want %v at least", sent, least)
	}
	checkNothingOfWarmUp(t, bucket)
}

// A push that comes while the connections are warmed, and finds no slot, has one in a
// moment.
func TestWarmUpMakesWay(t *testing.T) {
	p := newFaultProxy(t)
	bucket, file := newBucket(t), sparseFile(t, "file", 1<<20)
	g := newGate()
	p.follow(only("UploadPart", always(fault{after: g.wait})))
	d := startDaemon(t, warming(bucket, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_MAX_CONNECTIONS=1")...)
	waitFor(t, "the only connection to be in use", func() bool { return p.nowHeld() == 1 })
	d.push(t, file, "s3://"+bucket+"/key").done(t)
	g.open()
	waitFor(t, "the daemon to say so", func() bool { return len(logLines(d.out.bytes(), "the warm-up has made way for pushes")) == 1 })
	if d.metric("s3daemon_pool_warm") != 0 {
		t.Error("it says that it is warm")
	}
	untilNoUploads(t, bucket)
}

// On a slow link a push has it for itself soon after its start, though the connections
// were just being warmed and it needs none of theirs.
func TestWarmUpLeavesTheLink(t *testing.T) {
	const size, rate = 1 << 20, 2 << 20
	p := storeProxy(t)
	p.limit(rate)
	p.holdAfter(100_000)
	bucket, file := newBucket(t), makeFile(t, "file", size)
	d := startDaemon(t, warming(bucket, "S3_ENDPOINT_URL="+p.url())...)
	waitFor(t, "a connection to be held up", func() bool { return p.nowHeld() > 0 })
	id, before := d.pushAsync(t, file, "s3://"+bucket+"/key").ID, p.bytesSent()
	waitFor(t, "the push to start", func() bool { return d.pushOf(t, id).State == "running" })
	p.release()
	d.doneOf(t, id)
	// What a step has on its way is a second's at most.
	if passed := p.bytesSent() - before; passed > size+rate {
		t.Errorf("%d bytes went over the link until one of %d had", passed, size)
	}
	d.logged(t, 1, "the warm-up has made way for pushes")
	untilNoUploads(t, bucket)
}

// A daemon that is stopped while it warms its connections leaves nothing to the next.
func TestWarmUpStopped(t *testing.T) {
	p := newFaultProxy(t)
	for _, operation := range []string{"CreateMultipartUpload", "UploadPart"} {
		bucket, g := newBucket(t), newGate()
		p.follow(only(operation, always(fault{after: g.wait})))
		d := startDaemon(t, warming(bucket, "S3_ENDPOINT_URL="+p.url())...)
		waitFor(t, "the store to be at it", func() bool { return p.nowHeld() > 0 })
		d.signal(syscall.SIGTERM)
		refusesConnections(t, d)
		g.open()
		if code := d.wait(); code != 0 {
			t.Errorf("the daemon ended with %d", code)
		}
		if left, err := listUploads(bucket); err != nil || len(left) > 0 {
			t.Errorf("%s: the store has %d uploads, %v", operation, len(left), err)
		}
	}
}

// Of a warm-up in the midst of which the daemon is killed nothing is left by the
// next.
func TestWarmUpKilled(t *testing.T) {
	p := newFaultProxy(t)
	bucket := newBucket(t)
	for _, operation := range []string{"CreateMultipartUpload", "UploadPart"} {
		g := newGate()
		p.follow(only(operation, always(fault{after: g.wait})))
		d := startDaemon(t, warming(bucket, "S3_ENDPOINT_URL="+p.url())...)
		waitFor(t, "the store to be at it", func() bool { return p.nowHeld() > 0 })
		d.kill()
		g.open()
		if left, err := listUploads(bucket); err != nil || len(left) != 1 {
			t.Fatalf("the store has %d uploads, %v", len(left), err)
		}
		d.restart(t, "S3DAEMON_WARMUP=")
		checkNothingOfWarmUp(t, bucket)
	}
}

// Where the store refuses it, the daemon says so, once, and works.
func TestWarmUpRefused(t *testing.T) {
	bucket, file := newBucket(t), sparseFile(t, "file", 1<<20)
	d := startDaemon(t, warming("no-such-bucket")...)
	waitFor(t, "a warning", func() bool {
		return len(logLines(d.out.bytes(), "the connections could not be warmed: the first files will take longer")) > 0
	})
	d.push(t, file, "s3://"+bucket+"/key").done(t)
	checkObject(t, bucket, "key", file)
	if n := d.metric(`s3daemon_s3_requests_total{operation="CreateMultipartUpload",status="4xx"}`); n != 1 {
		t.Errorf("the store was asked %v times", n)
	}
}
