package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// number returns the variable's value, or what it is without one.
func number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// seedOf returns S3DAEMON_E2E_SEED, or a seed of its own, and logs which.
func seedOf(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(number(t, "S3DAEMON_E2E_SEED", int(time.Now().UnixNano()%1_000_000)))
	t.Logf("S3DAEMON_E2E_SEED=%d", seed)
	return seed
}

// The daemon is killed in the midst of its work, again and again, and starts
// on what the last one left: whatever it had accepted is done in the end, with
// the right bytes, in the right order, and nothing it ever named is unknown.
func TestChaos(t *testing.T) {
	sideBySide(t)
	rounds := 6
	if full() {
		rounds = 200
	}
	if testing.Short() {
		rounds = 2
	}
	rounds = number(t, "S3DAEMON_E2E_ROUNDS", rounds)
	seed := seedOf(t)
	t.Run("sound store", func(t *testing.T) { chaos(t, rounds, seed, passAll, true) })
	t.Run("faulty store", func(t *testing.T) { chaos(t, rounds, seed, randomFaults(seed, 0.1, allFaults()...), false) })
}

func chaos(t *testing.T, rounds int, seed uint64, plan plan, honest bool) {
	needDisk(t, 2<<30)
	p := newFaultProxy(t)
	p.follow(plan)
	c := &chaosRun{
		proxy: p, dice: rand.New(rand.NewPCG(seed, 1)), bucket: newBucket(t), usual: 500 * time.Millisecond, honest: honest,
	}
	c.daemon = startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_LISTEN=unix:"+socketPath(t), "S3DAEMON_ATTEMPTS=100")
	begun := time.Now()
	for n := range rounds {
		if c.round(t, n); t.Failed() {
			t.Fatalf("that was round %d", n)
		}
	}
	// Of all rounds: no answer was forgotten.
	for _, id := range c.ids {
		if r := c.daemon.pushOf(t, id); !ended(r.State) {
			t.Errorf("%s: %+v", id, r)
		}
	}
	if objects := p.madeAtOnce(); len(objects) > 0 {
		t.Errorf("two requests at once made %v", objects)
	}
	untilNoUploads(t, c.bucket)
	t.Logf("%d rounds, %d pushes of which %d were answered 202 and %d 200, %d kills, %d started again by their callers, %d failed for want of their file, in %.0f s",
		rounds, c.pushes, c.accepts, c.dones, c.kills, c.repeats, c.taken, time.Since(begun).Seconds())
	t.Logf("the store's proxy saw: %s", p.summary())
}

// chaosRun is the state of a test of many rounds.
type chaosRun struct {
	daemon *daemon // the one that lives
	proxy  *faultProxy
	dice   *rand.Rand
	bucket string
	honest bool          // the store's answers are its own
	usual  time.Duration // from the beginning of a round until its callers have their answers

	mu                                            sync.Mutex // guards what follows
	ids                                           []string
	pushes, accepts, dones, kills, repeats, taken int
}

// chaosPush is one push of a round.
type chaosPush struct {
	file, key string
	sums      sums
	digest    digest
	wish      wish
	doomed    bool // its file is taken away as soon as it is accepted

	id    string // once there was an answer
	taken bool   // the file was taken away before the push was known to be done
	err   error  // an answer that should not have been
}

func (c *chaosRun) roll(below int) int { return c.dice.IntN(below) }

// size returns a size as files have them: many small, few that take parts.
func (c *chaosRun) size() int64 {
	switch n := c.roll(50); {
	case n == 0:
		return oneRequest + 1 + int64(c.roll(8<<20))
	case n < 4:
		return 1 + int64(c.roll(8<<20))
	case n < 20:
		return 1 + int64(c.roll(1<<20))
	}
	return 1 + int64(c.roll(10_000))
}

// makePushes makes the files of a round.
func (c *chaosRun) makePushes(t *testing.T, dir, label string) (all []*chaosPush) {
	t.Helper()
	for i := range 50 {
		name, size := fmt.Sprintf("%s-%d", label, i), c.size()
		p := &chaosPush{file: makeFileIn(t, dir, name, size), key: label + "/" + name, wish: wish{label: label}}
		if i%2 == 0 {
			p.wish.prefer = "respond-async"
		}
		switch c.roll(4) {
		case 0, 1: // an object that others are pushed to as well
			p.key = fmt.Sprintf("%s/shared-%d", label, c.roll(4))
		case 2:
			p.doomed = i%2 == 0 && c.roll(3) == 0
		}
		if c.roll(3) == 0 {
			p.wish.key = name
		}
		var err error
		if p.sums, err = sumsOf(p.file); err != nil {
			t.Fatal(err)
		}
		if p.digest, err = digestFile(p.file); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// round pushes, kills, starts again, waits, and looks at what there is.
func (c *chaosRun) round(t *testing.T, n int) {
	t.Helper()
	label := fmt.Sprintf("round-%d", n)
	dir := t.TempDir()
	defer os.RemoveAll(dir)
	all := c.makePushes(t, dir, label)
	c.pushes += len(all)

	begun := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	caller := c.daemon // its socket is every later daemon's too
	var callers sync.WaitGroup
	next := make(chan *chaosPush)
	for range 12 {
		callers.Go(func() {
			for p := range next {
				p.err = c.push(ctx, caller, p)
			}
		})
	}
	answered := make(chan time.Duration, 1)
	go func() {
		for _, p := range all {
			next <- p
		}
		close(next)
		callers.Wait()
		answered <- time.Since(begun)
	}()
	// The first round runs undisturbed.
	if n > 0 {
		c.killAtRandom(t)
		if c.roll(4) == 0 {
			c.killAtRandom(t) // while it takes up what the first left
		}
	}
	c.usual = (3*c.usual + <-answered) / 4
	c.daemon.barrier(t, label)
	c.check(t, label, all)
}

// killAtRandom ends the daemon at a moment of the round, now and then after its
// last push, and starts another.
func (c *chaosRun) killAtRandom(t *testing.T) {
	t.Helper()
	<-time.After(time.Duration(c.dice.Int64N(int64(c.usual))))
	c.daemon.kill()
	c.kills++
	c.daemon = c.daemon.restart(t)
}

// push is a caller: one with an idempotency key repeats until he has an
// answer, one without does not.
func (c *chaosRun) push(ctx context.Context, d *daemon, p *chaosPush) error {
	a, repeats, err := d.persist(ctx, p.wish, p.file, "s3://"+c.bucket+"/"+p.key)
	c.mu.Lock()
	c.repeats += repeats
	c.mu.Unlock()
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	if err != nil {
		return nil // the daemon had died: nothing was said
	}
	var r receipt
	count := &c.dones
	if a.status == 202 {
		count = &c.accepts
		r, err = a.tryAccepted()
	} else {
		r, err = a.tryDone()
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	*count++
	p.id = r.ID
	c.ids = append(c.ids, r.ID)
	switch {
	case r.State == "done":
		return os.Remove(p.file) // as callers do
	case p.doomed:
		p.taken = true
		return os.Remove(p.file)
	}
	return nil
}

// persist makes a push, and if it has an idempotency key repeats it until there
// is an answer, as callers do who want to know. It returns how often it did.
func (d *daemon) persist(ctx context.Context, w wish, file, destination string) (a answer, repeats int, err error) {
	a, err = d.tryPushAs(ctx, w, file, destination)
	for err != nil && w.key != "" && ctx.Err() == nil {
		repeats++
		<-time.After(20 * time.Millisecond)
		a, err = d.tryPushAs(ctx, w, file, destination)
	}
	return a, repeats, err
}

// check compares what callers were told, what the daemon tells now, and what
// the store has.
func (c *chaosRun) check(t *testing.T, label string, all []*chaosPush) {
	t.Helper()
	byFile, newest := map[string]*chaosPush{}, map[string]*chaosPush{}
	for _, p := range all {
		byFile[p.file] = p
		if p.err != nil {
			t.Errorf("%s: %v", p.key, p.err)
		}
	}
	known, seen, keys := map[string]bool{}, map[string]int{}, map[string]bool{}
	for _, r := range c.daemon.listOf(t, "label="+label) { // newest first
		p := byFile[r.File]
		if p == nil || r.Key != p.key {
			t.Errorf("a push that nobody asked for: %+v", r)
			continue
		}
		known[r.ID] = true
		seen[p.file]++
		keys[p.key] = true
		missing := r.State == "failed" && r.Problem != nil && r.Problem.Code == "file_not_found"
		switch {
		case missing && p.taken:
			c.taken++
			continue
		case r.State != "done":
			t.Errorf("%s is %s: %+v", p.key, r.State, r.Problem)
		case r.Size != p.sums.size || r.Checksum == nil || r.Checksum.Value != p.sums.crc64nvme || c.honest && r.ETag != p.sums.etag:
			t.Errorf("%s: the receipt is %+v, the file has %+v", p.key, r, p.sums)
		}
		if newest[p.key] == nil {
			newest[p.key] = p
		}
	}
	for _, p := range all {
		if p.id != "" && !known[p.id] {
			t.Errorf("%s was answered with the id %s, which is not in the list; asked for itself: %+v", p.key, p.id, c.daemon.get(t, "/pushes/"+p.id))
		}
		if n := seen[p.file]; n > 1 {
			t.Errorf("%s was accepted %d times", filepath.Base(p.file), n)
		}
	}
	// A push may have failed for want of its file though the store has it: what
	// was told of that died with the daemon.
	for key := range listObjects(t, c.bucket) {
		if filepath.Dir(key) == label && !keys[key] {
			t.Errorf("the store has %s, of a push that is not in the journal", key)
		}
	}
	c.checkStore(t, label, newest)
}

// checkStore reads every object of the round back, which must be what was
// accepted last.
func (c *chaosRun) checkStore(t *testing.T, label string, newest map[string]*chaosPush) {
	t.Helper()
	for key, p := range newest {
		got, err := digestObject(c.bucket, key)
		if err != nil || got != p.digest {
			t.Errorf("%s is not what was accepted last, %s: %d bytes, want %d: %v", key, filepath.Base(p.file), got.size, p.digest.size, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(theStore.dir, c.bucket, label)); err != nil {
		t.Errorf("remove the round's objects: %v", err)
	}
}
