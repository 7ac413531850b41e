package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// poolSize is the number of connections that a daemon has to the store unless
// it is told otherwise.
const poolSize = 25

// job is one push of a crowd.
type job struct{ file, bucket, key string }

// done is what became of it.
type done struct {
	receipt receipt
	took    time.Duration
	err     error
}

// crowd starts one caller for each job at once, and returns a function that
// waits for all of them. They are done in the order of the jobs.
func crowd(d *daemon, jobs []job) func() []done {
	all := make([]done, len(jobs))
	var callers sync.WaitGroup
	for i, j := range jobs {
		callers.Go(func() {
			begun := time.Now()
			a, err := d.tryPush(context.Background(), j.file, "s3://"+j.bucket+"/"+j.key)
			r := receipt{}
			if err == nil {
				r, err = a.tryDone()
			}
			all[i] = done{r, time.Since(begun), err}
		})
	}
	return func() []done {
		callers.Wait()
		return all
	}
}

// checkFilesClosed fails the test where the daemon still has one of the files
// open: an answer is given after its file is closed. (Counting descriptors
// alone would not show it, since the garbage collector closes files too.)
func checkFilesClosed(t testing.TB, d *daemon, jobs []job) {
	t.Helper()
	for _, j := range jobs {
		if open := d.openFiles(filepath.Dir(j.file)); len(open) > 0 {
			t.Fatalf("all pushes are answered, and the daemon has %d descriptors of %s open", len(open), open[0])
		}
	}
}

// checkCrowd fails the test unless every push is done, and the store lists
// every object with the size and ETag that its file makes.
func checkCrowd(t testing.TB, jobs []job, all []done) {
	t.Helper()
	known := map[string]sums{}
	listed := listObjects(t, jobs[0].bucket)
	bad := 0
	for i, j := range jobs {
		want, ok := known[j.file]
		if !ok {
			var err error
			if want, err = sumsOf(j.file); err != nil {
				t.Fatal(err)
			}
			known[j.file] = want
		}
		got, object := all[i], listed[j.key]
		switch etag := strings.Trim(aws.ToString(object.ETag), `"`); {
		case got.err != nil:
			t.Errorf("%s: %v", j.key, got.err)
		case got.receipt.Size != want.size || got.receipt.ETag != want.etag:
			t.Errorf("%s: the receipt is %+v, want the size %d and the ETag %s", j.key, got.receipt, want.size, want.etag)
		case aws.ToInt64(object.Size) != want.size || etag != want.etag:
			t.Errorf("%s: the store has the size %d and the ETag %s, want %d and %s", j.key, aws.ToInt64(object.Size), etag, want.size, want.etag)
		default:
			continue
		}
		if bad++; bad == 5 {
			t.Fatal("and perhaps more")
		}
	}
}

// openPool makes the daemon open every connection of its pool, by having as
// many pushes under way at once.
func openPool(t testing.TB, d *daemon, p *proxy, bucket string) {
	t.Helper()
	file := makeFile(t, "first", 1000)
	var jobs []job
	for i := range poolSize {
		jobs = append(jobs, job{file, bucket, fmt.Sprintf("first/%d", i)})
	}
	p.hold()
	wait := crowd(d, jobs)
	defer wait()
	defer p.release()
	waitFor(t, "every connection of the pool to have a request", func() bool { return p.nowHeld() == poolSize })
}

// However many call at once, and whatever the size of their files, the store
// sees no more connections than the pool has, and those stay open; when the
// callers are gone the daemon holds what it held before.
func TestCrowd(t *testing.T) {
	smalls, larges, largeSize := 500, 12, int64(200_000_000)
	if full() {
		larges = 50
	}
	if testing.Short() {
		smalls, larges, largeSize = 100, 4, 100_000_000
	}
	needDisk(t, 5_000_000*int64(smalls)+2*largeSize*int64(larges)+1<<30)
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	openPool(t, d, p, newBucket(t))
	before := d.idleLoad()

	t.Run("small", func(t *testing.T) {
		bucket := newBucket(t)
		var files []string
		for i := range 10 {
			files = append(files, makeFile(t, fmt.Sprintf("file-%d", i), 5_000_000))
		}
		var jobs []job
		for i := range smalls {
			jobs = append(jobs, job{files[i%len(files)], bucket, fmt.Sprintf("small/%03d", i)})
		}
		begun := time.Now()
		all := crowd(d, jobs)()
		checkFilesClosed(t, d, jobs[:len(files)])
		t.Logf("%d pushes of 5 MB took %.1f s", len(jobs), time.Since(begun).Seconds())
		checkCrowd(t, jobs, all)
		for i := 0; i < len(jobs); i += len(jobs)/20 + 1 {
			checkObject(t, bucket, jobs[i].key, jobs[i].file)
		}
		checkReturns(t, d, before)
	})

	t.Run("large", func(t *testing.T) {
		bucket := newBucket(t)
		var files []string
		for i := range 4 {
			files = append(files, sparseFile(t, fmt.Sprintf("file-%d", i), largeSize))
		}
		little := makeFile(t, "little", 1000)
		var jobs []job
		for i := range larges {
			jobs = append(jobs, job{files[i%len(files)], bucket, fmt.Sprintf("large/%03d", i)})
		}
		already, begun := p.bytesSent(), time.Now()
		wait := crowd(d, jobs)
		third := largeSize * int64(larges) / 3
		waitFor(t, "a third of the bytes to be sent", func() bool { return p.bytesSent()-already > third })
		one := crowd(d, []job{{little, bucket, "little"}})()[0]
		sent := p.bytesSent() - already
		all := wait()
		checkFilesClosed(t, d, jobs[:len(files)])
		took := time.Since(begun)
		t.Logf("%d pushes of %d MB took %.1f s; one of 1 KB in the middle took %.3f s", len(jobs), largeSize/1e6, took.Seconds(), one.took.Seconds())
		if one.err != nil {
			t.Errorf("the little push: %v", one.err)
		}
		// Not behind the large ones: they had much to send when it was done.
		if rest := largeSize*int64(larges) - sent; rest < third {
			t.Errorf("the little push was done when only %d bytes of the large ones were left, less than a third", rest)
		}
		if one.took > 2*time.Second {
			t.Errorf("the little push took %v, want at most 2 s", one.took)
		}
		checkCrowd(t, jobs, all)
		for i := range files[:2] {
			checkObject(t, bucket, jobs[i].key, jobs[i].file)
		}
		checkObject(t, bucket, "little", little)
		checkReturns(t, d, before)
	})

	if most := p.mostOpen(); most != poolSize {
		t.Errorf("the store saw %d connections at once, want %d", most, poolSize)
	}
	if all := p.allAccepted(); all != poolSize {
		t.Errorf("the store saw %d connections altogether, want the same %d from first to last", all, poolSize)
	}
	if n := d.metric("s3daemon_slots_in_use"); n != 0 {
		t.Errorf("%v slots are in use after the last push", n)
	}
	t.Logf("the daemon's memory was at most %.1f MB", float64(d.memory("VmHWM"))/1e6)
}

// A pool of another size has that size.
func TestPoolOfAnotherSize(t *testing.T) {
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_MAX_CONNECTIONS=3")
	bucket := newBucket(t)
	small, large := makeFile(t, "small", 100_000), sparseFile(t, "large", 4*oneRequest)
	var jobs []job
	for i := range 20 {
		jobs = append(jobs, job{small, bucket, fmt.Sprintf("small-%d", i)})
	}
	jobs = append(jobs, job{large, bucket, "large-1"}, job{large, bucket, "large-2"})
	checkCrowd(t, jobs, crowd(d, jobs)())
	if most := p.mostOpen(); most != 3 {
		t.Errorf("the store saw %d connections at once, want 3", most)
	}
}

// While every part of a large file that may be under way is stuck, a small file
// goes out beside them.
func TestSmallFileBesideStuckParts(t *testing.T) {
	sideBySide(t)
	const pool = 8
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), fmt.Sprintf("S3DAEMON_MAX_CONNECTIONS=%d", pool))
	bucket := newBucket(t)
	small, large := makeFile(t, "small", 1000), sparseFile(t, "large", 2*pool*oneRequest)
	jobs := []job{{large, bucket, "large"}}
	p.holdAfter(100_000) // the request for the upload's id passes
	wait := crowd(d, jobs)
	defer wait()
	defer p.release()
	waitFor(t, "the parts to be stuck", func() bool {
		return p.nowHeld() > 1 && p.nowHeld() == int(d.metric("s3daemon_slots_in_use"))
	})
	p.holdThese()

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a, err := d.tryPush(ctx, small, "s3://"+bucket+"/small")
	if err != nil {
		t.Fatalf("beside %d stuck parts, in a pool of %d: %v", p.nowHeld(), pool, err)
	}
	a.done(t)
	checkObject(t, bucket, "small", small)

	p.release()
	checkCrowd(t, jobs, wait())
	checkObject(t, bucket, "large", large)
	if most := p.mostOpen(); most > pool {
		t.Errorf("the store saw %d connections at once, want at most %d", most, pool)
	}
}

// A file far over what memory could hold arrives whole, and costs the daemon
// none of it.
func TestHugeFile(t *testing.T) {
	size := int64(1 << 30)
	if full() {
		size = 6 << 30
	}
	if testing.Short() {
		size = 256 << 20
	}
	// The store keeps the parts until it has joined them.
	needDisk(t, 2*size+1<<30)
	d := startDaemon(t)
	bucket, file := newBucket(t), sparseFile(t, "huge", size)
	begun := time.Now()
	r := d.push(t, file, "s3://"+bucket+"/huge").done(t)
	took, peak := time.Since(begun), d.memory("VmHWM")
	t.Logf("%d bytes took %.1f s; the daemon's memory was at most %.1f MB, %.1f MB of it anonymous now",
		size, took.Seconds(), float64(peak)/1e6, float64(d.memory("RssAnon"))/1e6)
	if peak >= 64_000_000 && !raceBuild() {
		t.Errorf("the daemon's memory was up to %d bytes, want less than 64 MB", peak)
	}
	checkReceipt(t, r, file)
	checkObject(t, bucket, "huge", file)
}
