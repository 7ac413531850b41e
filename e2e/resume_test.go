package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// killCosts is what may be sent again for each kill, of parts that are under way
// then.
const killCosts = (1 << 30) / 20

// A large file on its way over a slow link is not sent anew because the daemon
// is killed, now and then: what had arrived has arrived.
func TestResumeAfterKills(t *testing.T) {
	sideBySide(t)
	size, kills, rate := int64(192<<20), 2, int64(100_000_000)
	if full() {
		size, kills, rate = 1<<30, 5, 50_000_000
	}
	if testing.Short() {
		size, kills = 96<<20, 1
	}
	needDisk(t, 3*size+1<<30)
	dice := rand.New(rand.NewPCG(seedOf(t), 6))
	p := storeProxy(t)
	p.limit(rate)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "large", size)
	id := d.pushAsync(t, file, "s3://"+bucket+"/large").ID
	begun := time.Now()
	for n := range kills {
		// At a random moment of its share of the way.
		share := (size - 16<<20) / int64(kills)
		at := int64(n)*share + dice.Int64N(share)
		waitFor(t, "the file to be so far", func() bool { return p.bytesSent() > at })
		if r := d.pushOf(t, id); ended(r.State) {
			t.Fatalf("the push was %s before kill %d", r.State, n+1)
		}
		d.kill()
		d = d.restart(t)
	}
	r := d.doneOf(t, id)
	sent := p.bytesSent()
	t.Logf("%d bytes, killed %d times: sent %.3f times, in %.1f s", size, kills, float64(sent)/float64(size), time.Since(begun).Seconds())
	if most := size + int64(kills)*killCosts; sent > most {
		t.Errorf("%d bytes were sent of a file of %d, want at most %d", sent, size, most)
	}
	if resumed := d.metric("s3daemon_resumed_bytes_total"); resumed == 0 {
		t.Error("the last daemon had nothing from those before it")
	}
	checkResumed(t, r, bucket, "large", file)
}

// checkResumed looks at what a push in parts has made, in however many runs.
func checkResumed(t *testing.T, r receipt, bucket, key, file string) {
	t.Helper()
	sums, err := sumsOf(file)
	if err != nil {
		t.Fatal(err)
	}
	if r.Size != sums.size || r.Parts != partsOf(sums.size) || r.ETag != sums.etag || r.Checksum == nil || r.Checksum.Value != sums.crc64nvme {
		t.Errorf("the receipt is %+v, the file has %+v", r, sums)
	}
	checkObject(t, bucket, key, file)
	waitFor(t, "no upload to be left", func() bool {
		out, err := theStore.client.ListMultipartUploads(context.Background(), &s3.ListMultipartUploadsInput{Bucket: &bucket})
		return err == nil && len(out.Uploads) == 0
	})
}

// SIGTERM in the middle of a file that cannot be sent in the time that is left:
// the parts under way end, no other begins, and the next daemon goes on.
func TestResumeAfterRestart(t *testing.T) {
	sideBySide(t)
	size, rate, left := int64(256<<20), int64(100_000_000), "1s"
	if full() {
		size, rate, left = 6<<30, 400_000_000, "2s"
	}
	if testing.Short() {
		size = 160 << 20
	}
	needDisk(t, 2*size+1<<30)
	p := storeProxy(t)
	p.limit(rate)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_DRAIN_TIMEOUT="+left)
	bucket, file := newBucket(t), sparseFile(t, "huge", size)
	id := d.pushAsync(t, file, "s3://"+bucket+"/huge").ID
	waitFor(t, "part of it to be sent", func() bool { return p.bytesSent() > size/4 })
	d.signal(syscall.SIGTERM)
	if code := d.wait(); code != 0 {
		t.Errorf("the daemon ended with %d (%v), want 0", code, d.waitErr)
	}
	before := p.bytesSent()
	if before > size {
		t.Fatal("all of it had been sent before the daemon ended")
	}
	d = d.restart(t, "S3DAEMON_DRAIN_TIMEOUT=25s")
	d.barrier(t, "")
	r := d.doneOf(t, id)
	sent := p.bytesSent()
	t.Logf("%d bytes, %d of them before the restart: sent %.3f times", size, before, float64(sent)/float64(size))
	if most := size + size/20; sent > most {
		t.Errorf("%d bytes were sent of a file of %d, want at most %d", sent, size, most)
	}
	checkResumed(t, r, bucket, "huge", file)
}

// stoppedMidway has a daemon killed when it has sent some parts of a file, and
// returns what is left of it.
func stoppedMidway(t *testing.T, p *faultProxy, file, destination string, env ...string) (d *daemon, id string) {
	t.Helper()
	g := newGate()
	defer g.open()
	parts := 0
	p.follow(only("UploadPart", func(request) fault {
		if parts++; parts > 3 {
			return fault{before: g.wait}
		}
		return fault{}
	}))
	d = startDaemon(t, append(env, "S3_ENDPOINT_URL="+p.url())...)
	id = d.pushAsync(t, file, destination).ID
	waitFor(t, "three parts to have arrived, and others to be under way", func() bool { return p.nowHeld() > 0 && p.delivered() == 3 })
	waitFor(t, "the daemon to know", func() bool { return d.pushOf(t, id).SentBytes >= 3*partSize })
	d.kill()
	p.follow(passAll)
	return d, id
}

// delivered returns how many parts the store has taken.
func (p *faultProxy) delivered() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.stored {
		if x.op == "UploadPart" {
			n++
		}
	}
	return n
}

// A file that is another one when its push goes on is not joined with what had
// arrived of the one before.
func TestResumeOfChangedFile(t *testing.T) {
	sideBySide(t)
	p := newFaultProxy(t)
	bucket, file := newBucket(t), makeFile(t, "large", oneRequest+partSize)
	d, id := stoppedMidway(t, p, file, "s3://"+bucket+"/large", "S3DAEMON_IF_CHANGED=retry")
	if err := os.Rename(makeFile(t, "other", oneRequest+partSize), file); err != nil {
		t.Fatal(err)
	}
	d = d.restart(t)
	checkResumed(t, d.doneOf(t, id), bucket, "large", file)
	if n := len(p.requests("CreateMultipartUpload")); n != 2 {
		t.Errorf("%d uploads were begun, want another for the other file: %s", n, p.summary())
	}
}

// An upload that the store has forgotten, or that somebody has aborted, is begun
// anew; one that it knows is not.
func TestResumeWhereStoreForgot(t *testing.T) {
	for _, forgets := range []bool{false, true} {
		t.Run(fmt.Sprint(forgets), func(t *testing.T) {
			p := newFaultProxy(t)
			bucket, file := newBucket(t), makeFile(t, "large", oneRequest+partSize)
			d, id := stoppedMidway(t, p, file, "s3://"+bucket+"/large")
			uploads, parts := 1, partsOf(oneRequest+partSize)
			if forgets {
				abortUploads(t, bucket, "large")
				uploads, parts = 2, parts+p.delivered()
			}
			d = d.restart(t)
			checkResumed(t, d.doneOf(t, id), bucket, "large", file)
			// One that had not reached the daemon's disk when it was killed may be sent again.
			if n := len(p.requests("CreateMultipartUpload")); n != uploads || p.delivered() < parts || p.delivered() > parts+1 {
				t.Errorf("%d uploads were begun, and %d parts arrived, want %d and %d: %s", n, p.delivered(), uploads, parts, p.summary())
			}
		})
	}
}

// The daemon is killed while it waits for the answer to a completion, which the
// store has carried out, or not: nothing is sent again, and no upload begun.
func TestResumeAfterCompletion(t *testing.T) {
	sideBySide(t)
	for name, tc := range map[string]struct {
		fault       func(*gate) fault
		completions int
	}{
		"carried out":     {func(g *gate) fault { return fault{after: g.wait} }, 1},
		"not carried out": {func(g *gate) fault { return fault{before: g.wait} }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			p, g := newFaultProxy(t), newGate()
			defer g.open()
			p.follow(only("CompleteMultipartUpload", always(tc.fault(g))))
			d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
			bucket, file := newBucket(t), makeFile(t, "large", oneRequest+1)
			id := d.pushAsync(t, file, "s3://"+bucket+"/large").ID
			waitFor(t, "the completion to be asked for", func() bool { return p.nowHeld() == 1 })
			d.kill()
			p.follow(passAll)
			d = d.restart(t)
			checkResumed(t, d.doneOf(t, id), bucket, "large", file)
			for op, want := range map[string]int{
				"CreateMultipartUpload": 1, "UploadPart": partsOf(oneRequest + 1), "CompleteMultipartUpload": tc.completions, "PutObject": 0,
			} {
				if n := len(p.requests(op)); n != want {
					t.Errorf("%d times %s, want %d: %s", n, op, want, p.summary())
				}
			}
		})
	}
}
