package e2e

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Many callers ask for all that there is to ask for and for much that there is
// not, in order and out of order, and hang up in the midst of it. Health is
// answered all along; afterwards every push that was accepted has ended, what is
// done is in the store as it should be and nothing else is, and the daemon holds
// what it held before. S3DAEMON_ATTACK_TIME says how long, S3DAEMON_ATTACK_SEED
// repeats what the callers draw.
func TestAttackLoad(t *testing.T) {
	lasts, err := time.ParseDuration(cmp.Or(os.Getenv("S3DAEMON_ATTACK_TIME"), "1m"))
	if err != nil {
		t.Fatalf("S3DAEMON_ATTACK_TIME: %v", err)
	}
	if testing.Short() {
		lasts = 10 * time.Second
	}
	seed := uint64(number(t, "S3DAEMON_ATTACK_SEED", int(time.Now().UnixNano()%1_000_000)))
	t.Logf("S3DAEMON_ATTACK_SEED=%d", seed)
	needDisk(t, 2<<30)

	a := newAttack(t, seed)
	before := a.daemon.openLoad()
	health := startProber(t, a.daemon.cmd.Process.Pid, a.healthAddresses())
	a.attack(lasts)
	health.inTime()

	a.checkEnds()
	a.checkStore()
	a.checkOutput()
	checkReturns(t, a.daemon, before)
}

// attack is one such run.
type attack struct {
	t      *testing.T
	seed   uint64
	daemon *daemon
	scene  *scene
	tricks []pathTrick
	bucket string
	small  []*randomFile // that pushes are made of
	large  *randomFile   // in parts
	memory []int64       // of the daemon, each second

	mu       sync.Mutex // guards what follows
	counts   map[string]int
	accepted map[string]string // id -> key, of the pushes whose callers heard of it
	recent   []string          // some of these ids
	findings int
}

func newAttack(t *testing.T, seed uint64) *attack {
	t.Helper()
	a := &attack{
		t: t, seed: seed, scene: newScene(t), bucket: newBucket(t),
		counts: map[string]int{}, accepted: map[string]string{},
	}
	for i, size := range []int64{0, 1, 1000, 10_000, 300_000} {
		a.small = append(a.small, a.scene.file(t, fmt.Sprint("small-", i), size))
	}
	a.large = a.scene.file(t, "large", oneRequest+1)
	allowed := strings.Join([]string{a.bucket + "/small/", a.bucket + "/large/", a.bucket + "/gone/", a.bucket + "/smuggled/"}, ",")
	a.daemon = startDaemon(t, append(a.scene.guardedHome(t), "S3DAEMON_LISTEN=unix:"+socketPath(t)+",127.0.0.1:0", "S3DAEMON_OPS_LISTEN=127.0.0.1:0",
		"S3DAEMON_ROOTS="+a.scene.inside, "S3DAEMON_BUCKETS="+allowed, fmt.Sprint("S3DAEMON_UIDS=", os.Getuid()), "S3DAEMON_HISTORY_COUNT=10000000")...)
	a.tricks = a.scene.tricks(a.daemon, true)
	return a
}

// file makes a file that may be pushed.
func (s *scene) file(t *testing.T, name string, size int64) *randomFile {
	t.Helper()
	f := &randomFile{path: makeFileIn(t, s.inside, name, size)}
	var err error
	if f.sums, err = sumsOf(f.path); err != nil {
		t.Fatal(err)
	}
	return f
}

// healthAddresses is where health is asked for.
func (a *attack) healthAddresses() map[string]string {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ops, err := a.daemon.out.wait(ctx, 1, "listening for health and metrics")
	if err != nil {
		a.t.Fatal(err)
	}
	return map[string]string{
		"the API's socket": a.daemon.addrs[0], "the API's port": a.daemon.addrs[1], "the port for health": ops[0]["address"].(string),
	}
}

// callers is how many there are at once, over each kind of listener.
var callers = []int{16, 32}

// attack has the callers at it for that long, and looks at the daemon's memory
// meanwhile.
func (a *attack) attack(lasts time.Duration) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), lasts)
	defer cancel()
	var all sync.WaitGroup
	for i, addr := range a.daemon.addrs {
		for n := range callers[i] {
			all.Go(func() { newAttacker(a, addr, uint64(1000*i+n)).run(ctx) })
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			a.memory = append(a.memory, a.daemon.memory("RssAnon"))
		case <-ctx.Done():
		}
	}
	all.Wait()
	a.report()
	a.checkMemory()
}

// report says what the callers did, and what came of it.
func (a *attack) report() {
	a.t.Helper()
	total := 0
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(a.counts)) {
		total += a.counts[name]
		lines = append(lines, fmt.Sprintf("%s: %d", name, a.counts[name]))
	}
	a.t.Logf("%d requests:\n%s", total, strings.Join(lines, "\n"))
	for _, m := range moves {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, m.name+", ") }) {
			a.t.Logf("nobody came to %s", m.name)
		}
	}
}

// checkMemory compares the second and the last third of the run: the first is
// that in which a daemon gets what it needs.
func (a *attack) checkMemory() {
	a.t.Helper()
	third := len(a.memory) / 3
	if third == 0 {
		return
	}
	median := func(part []int64) int64 { return slices.Sorted(slices.Values(part))[len(part)/2] }
	first, second, last := median(a.memory[:third]), median(a.memory[third:2*third]), median(a.memory[2*third:])
	a.t.Logf("the daemon's anonymous memory by thirds of the run, median: %.1f, %.1f and %.1f MB; most %.1f MB",
		float64(first)/1e6, float64(second)/1e6, float64(last)/1e6, float64(slices.Max(a.memory))/1e6)
	const slack = 16 << 20 // what one collection of garbage more or less makes
	if third >= 15 && last > second+second/4+slack {
		a.t.Errorf("the daemon's memory grew from %d to %d bytes", second, last)
	}
}

// count notes a move and what came of it.
func (a *attack) count(move, outcome string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counts[move+", "+outcome]++
}

// finding fails the test, and after some of them ends the attack.
func (a *attack) finding(move string, err error) (enough bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.findings++
	a.t.Errorf("%s: %v", move, err)
	return a.findings > 10
}

// accept notes that a push was accepted, as its caller was told.
func (a *attack) accept(id, key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.accepted[id] = key
	const kept = 500
	if len(a.recent) < kept {
		a.recent = append(a.recent, id)
	} else {
		a.recent[len(a.accepted)%kept] = id
	}
}

// some returns the id of a push that was accepted not long ago.
func (a *attack) some(dice *rand.Rand) (id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.recent) == 0 {
		return "00000000-0000-7000-8000-000000000000"
	}
	return a.recent[dice.IntN(len(a.recent))]
}

// checkEnds fails the test unless each push that was accepted has ended, as it
// may.
func (a *attack) checkEnds() {
	a.t.Helper()
	a.daemon.barrier(a.t, "")
	ends := map[string]int{}
	found := map[string]bool{}
	for r := range a.all() {
		found[r.ID] = true
		end := r.State
		if r.Problem != nil {
			end += " " + r.Problem.Code
		}
		ends[end]++
		kind, _, _ := strings.Cut(r.Key, "/")
		if may := endsOf[kind]; !slices.Contains(may, end) {
			a.t.Errorf("the push of %s to %s is %s: %+v", r.File, r.Key, end, r.Problem)
		}
		if key, told := a.accepted[r.ID]; told && key != r.Key {
			a.t.Errorf("the push %s is to %s, and its caller asked for %s", r.ID, r.Key, key)
		}
	}
	for id, key := range a.accepted {
		if !found[id] {
			a.t.Errorf("the push %s to %s was accepted, and there is none", id, key)
		}
	}
	a.t.Logf("%d pushes were accepted, the callers heard of %d; they ended so: %v", len(found), len(a.accepted), ends)
}

// endsOf are the ends that pushes to the keys of a kind may have. Of other kinds
// there may be none.
var endsOf = map[string][]string{
	"small": {"done", "cancelled cancelled"},
	"large": {"done", "cancelled cancelled"},
	"gone":  {"done", "cancelled cancelled", "failed file_not_found", "failed file_changed"},
}

// all returns all pushes, the newest first.
func (a *attack) all() func(func(receipt) bool) {
	return func(yield func(receipt) bool) {
		cursor := ""
		for {
			var p page
			req := a.daemon.request(context.Background(), "GET", "/pushes?limit=1000"+cursor, "", "")
			got, err := a.daemon.sendUnchecked(a.daemon.client, req)
			if err == nil {
				p, err = got.page()
			}
			if err != nil {
				a.t.Fatal(err)
			}
			for _, r := range p.Pushes {
				if !yield(r) {
					return
				}
			}
			if p.Next == "" {
				return
			}
			cursor = "&cursor=" + p.Next
		}
	}
}

// checkStore fails the test unless the store has what the pushes that are done
// have made, and no other object.
func (a *attack) checkStore() {
	a.t.Helper()
	files := map[string]*randomFile{a.large.path: a.large, a.scene.good.path: a.scene.good}
	for _, f := range a.small {
		files[f.path] = f
	}
	last := map[string]receipt{} // key -> the newest push that is done
	unclear := map[string]bool{} // key -> a newer one failed, whose bytes the store may have
	for r := range a.all() {
		if _, newer := last[r.Key]; newer {
			continue
		}
		if r.State == "done" {
			last[r.Key] = r
		}
		unclear[r.Key] = unclear[r.Key] || r.State == "failed"
	}
	objects := listObjects(a.t, a.bucket)
	for key, r := range last {
		object, there := objects[key]
		f := files[r.File]
		switch {
		case !there:
			a.t.Errorf("the push to %s is done, and there is no object", key)
		case unclear[key]:
		case f == nil: // one that has gone
			if r.Size != aws.ToInt64(object.Size) || r.ETag != etagOf(object) {
				a.t.Errorf("%s has %d bytes and the ETag %s; the receipt says %+v", key, aws.ToInt64(object.Size), etagOf(object), r)
			}
		case f.sums.size != aws.ToInt64(object.Size) || f.sums.etag != etagOf(object):
			a.t.Errorf("%s has %d bytes and the ETag %s; the newest push that is done is of %+v", key, aws.ToInt64(object.Size), etagOf(object), f.sums)
		}
	}
	for key, object := range objects {
		if _, wanted := last[key]; !wanted && !unclear[key] {
			a.t.Errorf("there is an object %q of %d bytes, which no push has made", key, aws.ToInt64(object.Size))
		}
		if aws.ToInt64(object.Size) == int64(len(hidden)) {
			a.t.Errorf("the object %q is as long as what nobody may read", key)
		}
	}
	untilNoUploads(a.t, a.bucket)
	a.t.Logf("the store has %d objects", len(objects))
}

func etagOf(o types.Object) string { return strings.Trim(aws.ToString(o.ETag), `"`) }

// checkOutput fails the test where the log has what it must not.
func (a *attack) checkOutput() {
	a.t.Helper()
	out := a.daemon.out.bytes()
	a.t.Logf("the log has %.1f MB", float64(len(out))/1e6)
	for _, never := range []string{"panic", "goroutine ", hidden, attackToken} {
		if at := bytes.Index(out, []byte(never)); at >= 0 {
			a.t.Errorf("the log has %q: %s", never, tail(out[:min(len(out), at+2000)], 3000))
		}
	}
	if n := a.daemon.metric("s3daemon_slots_in_use"); n != 0 {
		a.t.Errorf("%v slots are in use", n)
	}
	if n := a.daemon.metric("s3daemon_queue_depth"); n != 0 {
		a.t.Errorf("the queue has %v pushes", n)
	}
}

// attacker is one caller. What it does its number and the run's seed decide, but
// for what it hears of others' pushes.
type attacker struct {
	*attack
	number        uint64
	dice          *rand.Rand
	network, addr string
	client        *http.Client
	said          said // to be said again
	files         int  // that were made and have gone
}

func newAttacker(a *attack, addr string, number uint64) *attacker {
	one := &attacker{attack: a, number: number, dice: rand.New(rand.NewPCG(a.seed, number)), network: "tcp", addr: addr, client: clientOf(addr)}
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		one.network, one.addr = "unix", path
	}
	return one
}

// run makes one move after another until the time is over. Each move that was
// begun is ended.
func (a *attacker) run(ctx context.Context) {
	defer a.client.CloseIdleConnections()
	total := 0
	for _, m := range moves {
		total += m.weight
	}
	for ctx.Err() == nil {
		at := a.dice.IntN(total)
		for _, m := range moves {
			if at -= m.weight; at < 0 {
				outcome, err := m.do(a)
				if a.count(m.name, outcome); err != nil && a.finding(m.name, err) {
					return
				}
				break
			}
		}
	}
}

// pass is the path of a new file of the attacker's own, which is to go.
func (a *attacker) pass() (string, error) {
	a.files++
	path := filepath.Join(a.scene.inside, fmt.Sprintf("gone-%d-%d", a.number, a.files))
	return path, os.WriteFile(path, bytes.Repeat([]byte{'g'}, a.dice.IntN(100_000)), 0o644)
}

// key draws a key of that kind.
func (a *attacker) key(kind string, of int) string { return kind + "/" + strconv.Itoa(a.dice.IntN(of)) }
