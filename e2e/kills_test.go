package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Every fourth request meets a fault, and the daemon is killed every few seconds:
// whatever it had accepted is done in the end, once, with the right bytes and in
// the right order, no answer was forgotten, and nothing is left at the store but
// the objects.
func TestFaultsAndKills(t *testing.T) {
	sideBySide(t)
	pushes, kills, seeds := 60, 6, uint64(1)
	if full() {
		pushes, kills, seeds = 2000, math.MaxInt, 3
	}
	if testing.Short() {
		pushes, kills = 20, 2
	}
	pushes = number(t, "S3DAEMON_E2E_PUSHES", pushes)
	seed := seedOf(t)
	for n := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed+n), func(t *testing.T) {
			needDisk(t, int64(pushes)*10<<20)
			newKillRun(t, seed+n).run(t, pushes, kills)
		})
	}
}

// killRun is a test of many pushes through a faulty store by daemons that are
// killed.
type killRun struct {
	proxy  *faultProxy
	daemon *daemon // the one that lives
	bucket string
	files  []*randomFile
	dice   *rand.Rand
	seed   uint64
	kills  int

	mu      sync.Mutex // guards what follows
	repeats int
}

func newKillRun(t *testing.T, seed uint64) *killRun {
	t.Helper()
	k := &killRun{proxy: newFaultProxy(t), bucket: newBucket(t), dice: rand.New(rand.NewPCG(seed, 3)), seed: seed}
	k.files = randomFiles(t, k.dice)
	// Callers find each daemon where the one before it was. A small pool has little
	// under way, so that on a slow machine too something arrives between two kills.
	k.daemon = startDaemon(t, "S3_ENDPOINT_URL="+k.proxy.url(), "S3DAEMON_LISTEN=unix:"+socketPath(t), "S3DAEMON_ATTEMPTS=100", "S3DAEMON_MAX_CONNECTIONS=8")
	return k
}

// run makes n pushes. From one kill to the next it is two to four seconds.
func (k *killRun) run(t *testing.T, n, kills int) {
	k.proxy.follow(everyNthOf(4, k.seed, allFaults()...))
	begun := time.Now()
	all, answered := k.pushAll(t, n)
	for k.kills < kills && !k.over(t, answered, time.Duration(2e9+k.dice.Int64N(2e9))) {
		k.daemon.kill()
		k.kills++
		k.daemon = k.daemon.restart(t)
	}
	<-answered
	k.daemon.barrier(t, "")
	took := time.Since(begun)
	k.proxy.follow(passAll)
	k.check(t, all)
	checkNothingDeleted(t, k.proxy)
	if crowded := k.proxy.madeAtOnce(); len(crowded) > 0 {
		t.Errorf("two requests at once made %v", crowded)
	}
	for _, left := range untilNoUploads(t, k.bucket) {
		k.tellOf(t, aws.ToString(left.Key))
	}
	t.Logf("%d pushes and %d kills in %.1f s; callers repeated %d requests", n, k.kills, took.Seconds(), k.repeats)
	t.Logf("the store's proxy saw: %s", k.proxy.summary())
}

// tellOf logs what the daemons asked for an object, but for its parts.
func (k *killRun) tellOf(t *testing.T, key string) {
	t.Helper()
	for _, x := range k.proxy.requests("") {
		if x.op != "UploadPart" && (x.key == key || strings.Contains(x.path+"&", "prefix="+key+"&")) {
			t.Logf("%s %s %s: %v %s %d", x.arrived.Format("15:04:05.000"), x.method, x.path, x.what, x.outcome, x.status)
		}
	}
}

// over waits as long as given, but not beyond the end of the last push, and reports
// whether that has come.
func (k *killRun) over(t *testing.T, answered <-chan struct{}, wait time.Duration) bool {
	t.Helper()
	begun := time.Now()
	select {
	case <-answered:
	case <-time.After(wait):
		return false
	}
	return k.daemon.pageOf(t, fmt.Sprintf("limit=1&wait=%v", wait-time.Since(begun))).Pending == 0
}

// pushAll has that many pushes made, every second of which nobody waits for; a
// fourth go to objects that others are pushed to as well. The channel is closed
// once each has its answer.
func (k *killRun) pushAll(t *testing.T, n int) (all []*randomPush, answered chan struct{}) {
	t.Helper()
	for i := range n {
		p := &randomPush{file: k.files[k.dice.IntN(len(k.files))], key: fmt.Sprint(i), waited: i%2 == 0}
		if i%16 == 1 || i%16 == 8 { // more of those that go in parts
			p.file = k.files[len(k.files)-1]
		}
		if k.dice.IntN(4) == 0 {
			p.key = fmt.Sprintf("shared-%d", k.dice.IntN(1+n/20))
		}
		all = append(all, p)
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
	caller := k.daemon // its socket is every later daemon's too
	next := make(chan int)
	var callers sync.WaitGroup
	for range 32 {
		callers.Go(func() {
			for i := range next {
				if err := k.push(ctx, caller, all[i], fmt.Sprintf("push-%d", i)); err != nil {
					t.Errorf("%s: %v", all[i].key, err)
				}
			}
		})
	}
	answered = make(chan struct{})
	go func() {
		defer close(answered)
		defer cancel()
		for i := range all {
			next <- i
		}
		close(next)
		callers.Wait()
	}()
	return all, answered
}

// push makes one push, until it is answered.
func (k *killRun) push(ctx context.Context, d *daemon, p *randomPush, key string) error {
	var w wish
	if !p.waited {
		w = async
	}
	a, repeats, err := d.persist(ctx, w.keyed(key), p.file.path, "s3://"+k.bucket+"/"+p.key)
	k.mu.Lock()
	k.repeats += repeats
	k.mu.Unlock()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(a.body, &p.receipt); err != nil || p.receipt.ID == "" || a.status != 200 && a.status != 202 {
		return fmt.Errorf("the answer is %d: %s", a.status, a.body)
	}
	return nil
}

// check compares what callers were told, what the daemon tells now, and what the
// store has.
func (k *killRun) check(t *testing.T, all []*randomPush) {
	t.Helper()
	byID, newest := map[string]*randomPush{}, map[string]*randomPush{}
	for _, p := range all {
		if other := byID[p.receipt.ID]; other != nil {
			t.Errorf("%s and %s were answered with the same id, %s", p.key, other.key, p.receipt.ID)
		}
		byID[p.receipt.ID] = p
	}
	listed := k.daemon.listOf(t, "") // newest first
	for _, r := range listed {
		p := byID[r.ID]
		if p == nil || r.Key != p.key || r.File != p.file.path {
			t.Errorf("a push that nobody asked for, or twice: %+v", r)
			continue
		}
		p.file.checkReceipt(t, r)
		if newest[p.key] == nil {
			newest[p.key] = p
		}
	}
	if len(listed) != len(all) {
		t.Errorf("the list has %d pushes, want %d", len(listed), len(all))
	}
	for key, p := range newest {
		p.file.takeObject(t, k.bucket, key)
	}
	for key := range listObjects(t, k.bucket) {
		t.Errorf("the store has %s, of a push that is not in the journal", key)
	}
}
