package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

// However much waits that nobody waits for, those who wait are served next.
// That is measured in requests to the store, since time would be the machine's.
func TestBacklogDoesNotHoldUpCallers(t *testing.T) {
	const pool = 4
	backlog, callers := 3000, 7
	if testing.Short() {
		backlog = 300
	}
	p := newFaultProxy(t)
	g := newGate()
	p.follow(always(fault{before: g.wait}))
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), fmt.Sprintf("S3DAEMON_MAX_CONNECTIONS=%d", pool))
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	pushAll(t, d, []string{file}, bucket, "backlog", backlog)
	waitFor(t, "the pool to be busy", func() bool { return p.nowHeld() == pool })

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var waiting sync.WaitGroup
	for i := range callers {
		waiting.Go(func() {
			a, err := d.tryPushAs(ctx, wish{label: "waited"}, file, fmt.Sprintf("s3://%s/waited/%d", bucket, i))
			if err == nil {
				_, err = a.tryDone()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, "the callers to be in the queue", func() bool { return len(d.pageOf(t, "label=waited").Pushes) == callers })
	// From here on, each request that ends makes room for one more.
	before := len(p.requests(""))
	for served := 0; served < callers; {
		if err := g.one(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the next request", func() bool { return p.nowHeld() == pool })
		served = 0
		for _, x := range p.requests("")[before:] {
			if len(x.key) > 6 && x.key[:6] == "waited" {
				served++
			}
		}
		// As many pushes as run may have had their turn before.
		if others := len(p.requests("")) - before - served; others > pool {
			t.Fatalf("%d pushes that nobody waits for went before %d of the %d that somebody does", others, callers-served, callers)
		}
	}
	t.Logf("%d requests began before the last of %d callers had his", len(p.requests(""))-before, callers)
	g.open()
	waiting.Wait()
	d.kill() // rather than deliver the rest
}

// And the backlog is not starved by callers who never stop coming.
func TestCallersDoNotStarveBacklog(t *testing.T) {
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_MAX_CONNECTIONS=2")
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var callers sync.WaitGroup
	for c := range 12 {
		callers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				d.tryPush(ctx, file, fmt.Sprintf("s3://%s/caller-%d/%d", bucket, c, i))
			}
		})
	}
	waitFor(t, "callers to be there", func() bool { return d.queueDepth("queued") > 0 })
	pushAll(t, d, []string{file}, bucket, "backlog", 20)
	if err := d.tryBarrier("backlog", patience); err != nil {
		t.Error(err)
	}
	cancel()
	callers.Wait()
	d.barrier(t, "")
}
