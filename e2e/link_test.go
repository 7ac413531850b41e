package e2e

import (
	"fmt"
	"net"
	"testing"
	"time"
)

// The link to the store stops carrying packets in the midst of uploads, and
// nobody is told; then it is back. What was under way holds no slots meanwhile,
// is all done soon after, and none of it ends twice.
func TestLinkLost(t *testing.T) {
	lasts, stall := 12*time.Second, "S3DAEMON_STALL_TIMEOUT=3s"
	if full() {
		lasts, stall = 30*time.Second, "S3DAEMON_STALL_TIMEOUT="
	} else {
		t.Parallel() // most of it is waiting
	}
	const within = 45 * time.Second
	l := newLink(t)
	p := newLinkedProxy(t, l)
	d := l.startDaemon(t, p, stall)
	bucket, file := newBucket(t), makeFile(t, "file", 18_000_000)

	// Some seconds for each, so that all are in the midst of it at once.
	p.follow(only("PutObject", always(fault{what: readsSlowly, pace: 10 * time.Millisecond})))
	var ids []string
	for n := range poolSize {
		ids = append(ids, d.pushAsync(t, file, fmt.Sprintf("s3://%s/%d", bucket, n)).ID)
	}
	waitFor(t, "all uploads to be in their midst", func() bool {
		sent, least := sentBytes(t, d, ids), p.leastRead(bucket)
		for _, r := range sent {
			if r.SentBytes > r.Size {
				t.Errorf("%d bytes of %d were sent", r.SentBytes, r.Size)
			}
		}
		return len(sent) == poolSize && least >= 1<<20
	})
	l.down(t)
	begin := time.Now()
	over := time.After(lasts)
	waitFor(t, "the daemon to find the store away", func() bool { return d.metric("s3daemon_store_reachable") == 0 })
	noticed := time.Since(begin)
	waitFor(t, "all slots to be free", func() bool { return d.metric("s3daemon_slots_in_use") == 0 })
	t.Logf("the outage was noticed after %.1f s, all slots were free after %.1f s", noticed.Seconds(), time.Since(begin).Seconds())
	for _, r := range receiptsOf(t, d, ids) {
		if ended(r.State) || r.SentBytes > 0 {
			t.Errorf("in the outage a push is %s with %d bytes sent", r.State, r.SentBytes)
		}
	}
	<-over
	if n := d.metric("s3daemon_slots_in_use"); n != 0 {
		t.Errorf("%v slots are in use in the outage", n)
	}
	p.follow(passAll)
	l.up(t)
	back := time.Now()
	if err := d.tryBarrier("", within); err != nil {
		t.Fatalf("after the link's return: %v", err)
	}
	t.Logf("all were done %.1f s after the link's return", time.Since(back).Seconds())
	for n, r := range receiptsOf(t, d, ids) {
		if r.State != "done" {
			t.Errorf("a push is %s: %+v", r.State, r.Problem)
		}
		checkObject(t, bucket, fmt.Sprint(n), file)
	}
	waitFor(t, "the log of all ends", func() bool { return len(d.endsLogged()) >= len(ids) })
	for id, n := range d.endsLogged() {
		if n != 1 {
			t.Errorf("%s ended %d times", id, n)
		}
	}
	if n := d.metric(`s3daemon_pushes_total{outcome="done"}`); int(n) != len(ids) {
		t.Errorf("%v pushes were counted as done, want %d", n, len(ids))
	}
	waitFor(t, "all slots to be free", func() bool { return d.metric("s3daemon_slots_in_use") == 0 })
}

// What a daemon had given to the kernel before the link was lost must not arrive
// after what it pushes later: the older file would be the object.
func TestLinkLate(t *testing.T) {
	t.Parallel() // most of it is waiting
	l := newLink(t)
	p := newLinkedProxy(t, l)
	d := l.startDaemon(t, p, "S3DAEMON_STALL_TIMEOUT=1s")
	bucket := newBucket(t)
	older, newer := makeFile(t, "older", 10_000), makeFile(t, "newer", 10_000)
	to := "s3://" + bucket + "/key"
	d.push(t, older, to).done(t) // over a connection that is there then
	l.down(t)
	id := d.pushAsync(t, older, to).ID
	waitFor(t, "the daemon to find the store away", func() bool { return d.metric("s3daemon_store_reachable") == 0 })
	l.up(t)
	d.doneOf(t, id)
	d.push(t, newer, to).done(t)
	waitFor(t, "the kernel to have nothing left to send", func() bool { return l.unsent(t) == 0 })
	checkObject(t, bucket, "key", newer)
}

// A link that carries little is none that has stalled: however long it takes,
// the first attempt comes to its end, and what is said to have been sent is
// what arrived.
func TestLinkSlow(t *testing.T) {
	// Alone: on a busy machine the link can stand still for a second indeed.
	p := newFaultProxy(t)
	p.readBuffer = 64 << 10
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_STALL_TIMEOUT=1s", "S3DAEMON_ATTEMPTS=1")
	bucket, file := newBucket(t), makeFile(t, "file", 1_000_000)
	p.follow(always(fault{what: readsSlowly, pace: 200 * time.Millisecond}))
	id := d.pushAsync(t, file, "s3://"+bucket+"/key").ID
	// What the two kernels hold at most on the receiver's side, with what was
	// read in between.
	const held = 512 << 10
	waitFor(t, "most of the file to be sent", func() bool {
		r := d.pushOf(t, id)
		if read := p.leastRead(bucket); r.SentBytes > read+held {
			t.Errorf("%d bytes are said to have been sent, and %d were read", r.SentBytes, read)
		}
		return ended(r.State) || r.SentBytes > r.Size/2
	})
	if r := d.doneOf(t, id); r.Attempts != 1 {
		t.Errorf("it took %d attempts", r.Attempts)
	}
	checkObject(t, bucket, "key", file)
}

// newLinkedProxy is newFaultProxy at the far side of a link.
func newLinkedProxy(t *testing.T, l *link) *faultProxy {
	t.Helper()
	addr := net.JoinHostPort(l.farIP, "0")
	return newFaultProxyOn(t, func() (listener net.Listener, err error) {
		_, err = inNamespace(l.far, func() (string, error) {
			listener, err = net.Listen("tcp", addr)
			return "", err
		})
		if err == nil {
			addr = listener.Addr().String()
		}
		return listener, err
	}, dialStore)
}

// startDaemon starts a daemon at the near side, which can be asked from
// anywhere.
func (l *link) startDaemon(t *testing.T, p *faultProxy, env ...string) (d *daemon) {
	t.Helper()
	binaryPath(t, "s3daemon") // which may have to be built first
	socket := socketPath(t)
	l.inside(t, l.near, func() (string, error) {
		d = startDaemon(t, append(env, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_LISTEN=unix:"+socket)...)
		return "", nil
	})
	return d
}

// leastRead returns the least that was read of the objects that are under way
// to a bucket; 0 while there are none.
func (p *faultProxy) leastRead(bucket string) (least int64) {
	found := false
	for _, x := range p.requests("PutObject") {
		if x.bucket == bucket && !x.ended && (!found || x.read < least) {
			found, least = true, x.read
		}
	}
	return least
}

func receiptsOf(t *testing.T, d *daemon, ids []string) (all []receipt) {
	t.Helper()
	for _, id := range ids {
		all = append(all, d.pushOf(t, id))
	}
	return all
}

// sentBytes returns those of the pushes of which something was sent.
func sentBytes(t *testing.T, d *daemon, ids []string) (some []receipt) {
	t.Helper()
	for _, r := range receiptsOf(t, d, ids) {
		if r.SentBytes > 0 {
			some = append(some, r)
		}
	}
	return some
}
