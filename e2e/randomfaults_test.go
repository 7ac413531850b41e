package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Every fourth request meets a fault. What is done is byte for byte the file,
// what fails says why, each push ends once, and nothing that the daemon took of
// the system is left.
func TestRandomFaults(t *testing.T) {
	sideBySide(t)
	pushes, seeds := 60, uint64(1)
	if full() {
		pushes, seeds = 2000, 3
	}
	if testing.Short() {
		pushes = 20
	}
	pushes = number(t, "S3DAEMON_E2E_PUSHES", pushes)
	seed := seedOf(t)
	for n := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed+n), func(t *testing.T) {
			needDisk(t, int64(pushes)*10<<20)
			newFaultRun(t, seed+n).run(t, pushes)
		})
	}
}

// faultRun is a test of many pushes through a faulty store.
type faultRun struct {
	proxy  *faultProxy
	daemon *daemon
	bucket string
	dice   *rand.Rand
	files  []*randomFile
	seed   uint64
}

// randomFile is a file that serves many pushes.
type randomFile struct {
	path   string
	sums   sums
	digest digest
}

// newRandomFile makes a file and computes what its object must have.
func newRandomFile(t *testing.T, name string, size int64) *randomFile {
	t.Helper()
	file := &randomFile{path: makeFile(t, name, size)}
	var err error
	if file.sums, err = sumsOf(file.path); err != nil {
		t.Fatal(err)
	}
	if file.digest, err = digestFile(file.path); err != nil {
		t.Fatal(err)
	}
	return file
}

// randomPush is one of the pushes.
type randomPush struct {
	file    *randomFile
	key     string
	waited  bool
	receipt receipt // of its end
}

func newFaultRun(t *testing.T, seed uint64) *faultRun {
	t.Helper()
	f := &faultRun{proxy: newFaultProxy(t), bucket: newBucket(t), dice: rand.New(rand.NewPCG(seed, 2)), seed: seed}
	f.daemon = startDaemon(t, "S3_ENDPOINT_URL="+f.proxy.url())
	f.files = randomFiles(t, f.dice)
	return f
}

// randomFiles makes files of 1 byte to 64 MB, as many of each order of magnitude.
func randomFiles(t *testing.T, dice *rand.Rand) (files []*randomFile) {
	t.Helper()
	const kinds, largest = 40, 64_000_000
	for i := range kinds {
		size := math.Pow(largest, (float64(i)+dice.Float64())/kinds)
		if i == kinds-1 {
			size = largest
		}
		files = append(files, newRandomFile(t, fmt.Sprintf("file-%d", i), int64(size)))
	}
	return files
}

func (f *faultRun) run(t *testing.T, n int) {
	idle := f.openPool(t)
	first := len(f.proxy.requests(""))
	f.proxy.follow(everyNthOf(4, f.seed, allFaults()...))
	begun := time.Now()
	all := f.pushAll(t, n)
	f.daemon.barrier(t, "")
	took := time.Since(begun)
	f.proxy.follow(passAll)
	f.checkEnds(t, all)
	untilNoUploads(t, f.bucket)
	checkNothingDeleted(t, f.proxy)
	if crowded := f.proxy.madeAtOnce(); len(crowded) > 0 {
		t.Errorf("two requests at once made %v", crowded)
	}
	waitFor(t, "all slots to be free", func() bool { return f.daemon.metric("s3daemon_slots_in_use") == 0 })
	if n := f.daemon.metric("s3daemon_queue_depth"); n != 0 {
		t.Errorf("the queue has %v pushes", n)
	}
	f.openPool(t) // all of it again: what is idle is then the same as before
	checkReturns(t, f.daemon, idle)
	requests, faults := f.proxy.requests(""), 0
	for _, x := range requests[first:] {
		if x.what != passes && x.outcome == "" {
			faults++
		}
	}
	t.Logf("%d pushes in %.1f s by %d requests, of which %d met a fault", n, took.Seconds(), len(requests)-first, faults)
	t.Logf("the store's proxy saw: %s", f.proxy.summary())
}

// openPool has every connection of the daemon's pool open and idle, and returns
// what the daemon holds then.
func (f *faultRun) openPool(t *testing.T) load {
	t.Helper()
	g := newGate()
	f.proxy.follow(always(fault{before: g.wait}))
	var pool sync.WaitGroup
	for n := range poolSize {
		pool.Go(func() {
			if a, err := f.daemon.tryPush(context.Background(), f.files[0].path, fmt.Sprintf("s3://%s/pool/%d", f.bucket, n)); err != nil || a.status != 200 {
				t.Errorf("open the pool: %d, %v: %s", a.status, err, a.body)
			}
		})
	}
	waitFor(t, "every connection of the pool to have a request", func() bool { return f.proxy.nowHeld() == poolSize })
	g.open()
	pool.Wait()
	f.proxy.follow(passAll)
	return f.daemon.idleLoad()
}

// pushAll makes that many pushes, every second of which nobody waits for.
func (f *faultRun) pushAll(t *testing.T, n int) (all []*randomPush) {
	t.Helper()
	var callers sync.WaitGroup
	next := make(chan *randomPush)
	for range 32 {
		callers.Go(func() {
			for p := range next {
				if err := f.push(p); err != nil {
					t.Errorf("%s: %v", p.key, err)
				}
			}
		})
	}
	for i := range n {
		p := &randomPush{file: f.files[f.dice.IntN(len(f.files))], key: fmt.Sprintf("%d", i), waited: i%2 == 0}
		all = append(all, p)
		next <- p
	}
	close(next)
	callers.Wait()
	return all
}

// push makes one push. Its receipt has at least its id then.
func (f *faultRun) push(p *randomPush) error {
	var w wish
	if !p.waited {
		w = async
	}
	a, err := f.daemon.tryPushAs(context.Background(), w, p.file.path, "s3://"+f.bucket+"/"+p.key)
	if err != nil {
		return err
	}
	// A problem has the id too.
	if err := json.Unmarshal(a.body, &p.receipt); err != nil || p.receipt.ID == "" {
		return fmt.Errorf("the answer is %d, without an id: %s", a.status, a.body)
	}
	return nil
}

// checkEnds fails the test unless each push has ended once, and as it may.
func (f *faultRun) checkEnds(t *testing.T, all []*randomPush) {
	t.Helper()
	var ends map[string]int
	waitFor(t, "the log of all ends", func() bool { // which comes a moment later
		ends = f.daemon.endsLogged()
		return !slices.ContainsFunc(all, func(p *randomPush) bool { return ends[p.receipt.ID] == 0 })
	})
	codes := map[string]int{}
	for _, p := range all {
		r := f.daemon.pushOf(t, p.receipt.ID)
		if ends[r.ID] != 1 {
			t.Errorf("%s: the log has %d ends of %s", p.key, ends[r.ID], r.ID)
		}
		switch r.State {
		case "done":
			codes["done"]++
			f.checkDone(t, p, r)
		case "failed":
			if r.Problem == nil || r.Problem.Detail == "" {
				t.Errorf("%s failed for no reason: %+v", p.key, r)
				continue
			}
			codes[r.Problem.Code]++
			t.Logf("%s, %d bytes, waited for %v, failed after %d attempts: %s: %s", p.key, r.Size, p.waited, r.Attempts, r.Problem.Code, r.Problem.Detail)
			may := []string{"checksum_mismatch"}
			if p.waited { // and was told after some attempts
				may = append(may, "store_refused", "store_unreachable", "not_verified")
			}
			if !slices.Contains(may, r.Problem.Code) {
				t.Errorf("%s failed with %s: %s", p.key, r.Problem.Code, r.Problem.Detail)
			}
		default:
			t.Errorf("%s is %s", p.key, r.State)
		}
	}
	t.Logf("the ends: %v", codes)
	// That a push with a caller meets a fault at each of its attempts is rare.
	if least := len(all) - len(all)/50 - 2; codes["done"] < least {
		t.Errorf("of %d pushes %d are done, want at least %d", len(all), codes["done"], least)
	}
}

// checkDone compares an object with its file, and removes it.
func (f *faultRun) checkDone(t *testing.T, p *randomPush, r receipt) {
	t.Helper()
	p.file.checkReceipt(t, r)
	p.file.takeObject(t, f.bucket, p.key)
}

// checkReceipt compares the receipt of a push of the file that is done with the
// file.
func (f *randomFile) checkReceipt(t testing.TB, r receipt) {
	t.Helper()
	if r.State != "done" || r.Size != f.sums.size || r.Checksum == nil || r.Checksum.Value != f.sums.crc64nvme {
		t.Errorf("%s: the receipt is %+v, %+v, the file has %+v", r.Key, r, r.Problem, f.sums)
	}
}

// takeObject compares an object with the file, and removes it.
func (f *randomFile) takeObject(t testing.TB, bucket, key string) {
	t.Helper()
	if got, err := digestObject(bucket, key); err != nil || got != f.digest {
		t.Errorf("%s is done, and the store has %d bytes of %d that may be others: %v", key, got.size, f.sums.size, err)
	}
	if _, err := theStore.client.DeleteObject(context.Background(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key}); err != nil {
		t.Errorf("%s: %v", key, err)
	}
}

// endsLogged returns how many lines the log has about the end of each push.
func (d *daemon) endsLogged() map[string]int {
	ends := map[string]int{}
	for _, msg := range []string{"push done", "push failed", "push cancelled"} {
		for _, line := range logLines(d.out.bytes(), msg) {
			id, _ := line["id"].(string)
			ends[id]++
		}
	}
	return ends
}
