package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Connections that were idle are all gone, and the daemon can know it only when it
// uses one: what was between it and the store has forgotten them. The push that
// meets that takes one more request on another connection, at once. Where the reset
// came before all of a file had left, the store cannot have it, and nobody is asked.
// What has left at once may have been taken before the reset, for all that the
// kernel here knows: so the store is asked for the object, once.
func TestIdleConnectionsForgotten(t *testing.T) {
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, small, large := newBucket(t), makeFile(t, "small", 1000), makeFile(t, "large", 18_000_000)
	for _, tt := range []struct {
		key, file       string
		attempts, asked int
	}{{"large", large, 1, 0}, {"small", small, 2, 1}} {
		t.Run(tt.key, func(t *testing.T) {
			fillPool(t, d, p, small, bucket)
			if n := p.forgetIdle(t); n != poolSize {
				t.Fatalf("%d connections were forgotten, want %d", n, poolSize)
			}
			before := len(p.requests(""))
			r := d.push(t, tt.file, "s3://"+bucket+"/"+tt.key).done(t)
			if r.Attempts != tt.attempts {
				t.Errorf("the push needed %d attempts, want %d", r.Attempts, tt.attempts)
			}
			seen := map[string]int{}
			for _, x := range p.requests("")[before:] {
				if x.key == tt.key {
					seen[x.op]++
				}
			}
			if seen["PutObject"] != 1 || seen["HeadObject"] != tt.asked {
				t.Errorf("the store was asked for %v", seen)
			}
			checkObject(t, bucket, tt.key, tt.file)
		})
	}
	if n := d.metric(`s3daemon_push_retries_total{reason="connection"}`); n != 0 {
		t.Errorf("%v pushes were tried again", n)
	}
}

// The store resets all that are idle: the daemon hears of that, and a push after
// it is like any other.
func TestIdleConnectionsReset(t *testing.T) {
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	fillPool(t, d, p, file, bucket)
	if n := p.resetIdle(nil); n != poolSize {
		t.Fatalf("%d connections were reset, want %d", n, poolSize)
	}
	if r := d.push(t, file, "s3://"+bucket+"/key").done(t); r.Attempts != 1 {
		t.Errorf("the push needed %d attempts", r.Attempts)
	}
	for _, x := range p.requests("") {
		if x.key == "key" && x.op != "PutObject" {
			t.Errorf("the store was asked for %s", x.op)
		}
	}
}

// fillPool has a request on every connection of a daemon's pool at the same time,
// and returns when they are idle.
func fillPool(t *testing.T, d *daemon, p *faultProxy, file, bucket string) {
	t.Helper()
	g := newGate()
	p.follow(always(fault{before: g.wait}))
	var all sync.WaitGroup
	for n := range poolSize {
		all.Go(func() {
			if a, err := d.tryPush(context.Background(), file, fmt.Sprintf("s3://%s/pool/%d", bucket, n)); err != nil || a.status != 200 {
				t.Errorf("fill the pool: %d, %v: %s", a.status, err, a.body)
			}
		})
	}
	waitFor(t, "every connection of the pool to have a request", func() bool { return p.nowHeld() == poolSize })
	g.open()
	all.Wait()
	p.follow(passAll)
	waitFor(t, "every connection to be idle", func() bool { return p.nowIdle() == poolSize })
}

// nowIdle returns how many connections carry no request.
func (p *faultProxy) nowIdle() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if c.idle {
			n++
		}
	}
	return n
}

// forgetIdle takes the connections that carry no request out of the kernel without
// a word to their other end, and returns their number. What is sent on one is
// answered by a reset, as by a firewall that has forgotten it.
func (p *faultProxy) forgetIdle(t *testing.T) (n int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can have the kernel forget a connection")
	}
	p.mu.Lock()
	var idle []*faultConn
	for c := range p.conns {
		if c.idle {
			idle = append(idle, c)
		}
	}
	p.mu.Unlock()
	for _, c := range idle {
		forget(t, c.TCPConn)
		c.Close()
	}
	return len(idle)
}

// forget has the closing of a connection be silent.
func forget(t *testing.T, conn *net.TCPConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
	}); err != nil {
		t.Fatal(err)
	}
}
