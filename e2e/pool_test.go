package e2e

import "testing"

// All connections are open before there is a push, and again after the store was
// away, though nobody pushes.
func TestPoolOpensByItself(t *testing.T) {
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	open := func() int { p.mu.Lock(); defer p.mu.Unlock(); return len(p.conns) }
	waitFor(t, "all to be open", func() bool { return open() == poolSize })
	p.cutOff(cutClosed)
	waitFor(t, "the daemon to notice", func() bool { return d.metric("s3daemon_store_reachable") == 0 })
	if n := open(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
	p.restore(t)
	waitFor(t, "all to be open again", func() bool { return open() == poolSize })
	if n := d.metric("s3daemon_store_reachable"); n != 1 {
		t.Errorf("the store is reachable: %v", n)
	}
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	jobs := []job{{file, bucket, "key"}}
	checkCrowd(t, jobs, crowd(d, jobs)())
	if n := open(); n != poolSize {
		t.Errorf("%d connections are open after a push", n)
	}
}
