package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"
)

// refusesConnections waits until nobody listens any more: the daemon is
// draining.
func refusesConnections(t testing.TB, d *daemon) {
	t.Helper()
	waitFor(t, "the daemon to take no more connections", func() bool {
		conn, err := dialDaemon(d.addrs[0])
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
}

// SIGTERM in the middle of uploads, small ones and large ones: every caller
// gets his receipt, every object is whole, and the exit status is 0.
func TestDrain(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			p := storeProxy(t)
			d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
			bucket := newBucket(t)
			small, large := makeFile(t, "small", 5_000_000), makeFile(t, "large", 2*oneRequest+1)
			var jobs []job
			for i := range 25 {
				file := small
				if i%10 == 0 {
					file = large
				}
				jobs = append(jobs, job{file, bucket, fmt.Sprintf("key-%d", i)})
			}
			p.hold()
			wait := crowd(d, jobs)
			defer wait()
			defer p.release()
			// Every push has begun: the small ones have sent something, the
			// large ones ask for an upload's id, each on a connection.
			waitFor(t, "all pushes to be under way", func() bool { return p.nowHeld() == len(jobs) })

			d.signal(sig)
			refusesConnections(t, d)
			if !d.running() {
				t.Fatal("the daemon did not wait for its pushes")
			}
			p.release()
			all := wait()
			if code := d.wait(); code != 0 {
				t.Errorf("the daemon ended with %d (%v), want 0", code, d.waitErr)
			}
			checkCrowd(t, jobs, all)
			for _, j := range jobs {
				checkObject(t, j.bucket, j.key, j.file)
			}
		})
	}
}

// A caller whose connection was open before SIGTERM is told to come back. A
// second SIGTERM ends the daemon at once, pushes or not.
func TestDrainRefusesLateCallers(t *testing.T) {
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "file", 1_000_000)

	// A connection of our own, which no client closes behind our back.
	conn, err := dialDaemon(d.addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	reader := bufio.NewReader(conn)
	ask := func(req *http.Request) answer {
		t.Helper()
		// A client that speaks to this connection and no other.
		one := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if err := r.Write(conn); err != nil {
				return nil, err
			}
			return http.ReadResponse(reader, r)
		})}
		a, err := d.send(one, req)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask(d.request(context.Background(), "GET", "/readyz", "", "")); a.status != http.StatusOK {
		t.Fatalf("GET /readyz: %d", a.status)
	}

	p.hold()
	wait := crowd(d, []job{{file, bucket, "key"}})
	defer wait()
	defer p.release()
	waitFor(t, "the push to be under way", func() bool { return p.nowHeld() == 1 })
	d.signal(syscall.SIGTERM)
	refusesConnections(t, d)

	body, err := json.Marshal(map[string]string{"file": file, "destination": "s3://" + bucket + "/late"})
	if err != nil {
		t.Fatal(err)
	}
	a := ask(d.request(context.Background(), "POST", "/push", "application/json", string(body)))
	a.refused(t, http.StatusServiceUnavailable, "shutting_down")
	if a.header.Get("Retry-After") == "" {
		t.Errorf("the answer has no Retry-After: %v", a.header)
	}

	if !d.running() {
		t.Fatal("the daemon had ended before the second signal")
	}
	d.signal(syscall.SIGTERM)
	if code := d.wait(); code == 0 {
		t.Error("the second signal ended the daemon with exit status 0, though a push was cut off")
	}
	if one := wait()[0]; one.err == nil {
		t.Errorf("the push that was cut off has the receipt %+v", one.receipt)
	}
	p.close() // what the dead daemon had sent must not arrive now
	if objects := listObjects(t, bucket); len(objects) != 0 {
		t.Errorf("the bucket has %v", objects)
	}
}

// roundTrip makes a function a transport.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What does not end within the drain timeout is cut off, and its caller is
// told so. It stays in the journal, and the next daemon delivers it.
func TestDrainTimeout(t *testing.T) {
	p := newFaultProxy(t)
	g := newGate()
	p.follow(always(fault{before: g.wait}))
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_DRAIN_TIMEOUT=200ms")
	bucket := newBucket(t)
	files := map[string]string{"small": makeFile(t, "small", 1_000_000), "large": makeFile(t, "large", 2*oneRequest+1)}
	type told struct {
		key    string
		answer answer
		err    error
	}
	answered := make(chan told, len(files))
	for key, file := range files {
		go func() {
			a, err := d.tryPush(context.Background(), file, "s3://"+bucket+"/"+key)
			answered <- told{key, a, err}
		}()
	}
	waitFor(t, "the pushes to be under way", func() bool { return p.nowHeld() == len(files) })
	d.signal(syscall.SIGTERM)
	ids := map[string]string{}
	for range files {
		one := <-answered
		if one.err != nil {
			t.Fatalf("%s: %v", one.key, one.err)
		}
		if ids[one.key] = one.answer.refused(t, http.StatusServiceUnavailable, "shutting_down").ID; ids[one.key] == "" {
			t.Errorf("%s: the answer does not name the push: %s", one.key, one.answer.body)
		}
	}
	if code := d.wait(); code != 0 {
		t.Errorf("the daemon ended with %d, want 0: nothing is lost", code)
	}
	if n := len(logLines(d.out.bytes(), "push cut off: it stays in the journal")); n != len(files) {
		t.Errorf("the log names %d pushes that were cut off, want %d", n, len(files))
	}
	if objects := listObjects(t, bucket); len(objects) > 0 {
		t.Errorf("the bucket has %v", objects)
	}
	p.follow(passAll)
	g.open()
	d = d.restart(t)
	for key, file := range files {
		d.doneOf(t, ids[key])
		checkObject(t, bucket, key, file)
	}
}

// Pushes whose turn has not come when SIGTERM does stay in the journal. Those
// who wait for them are told their ids, and the next daemon delivers them.
func TestDrainLeavesQueue(t *testing.T) {
	p := newFaultProxy(t)
	g := newGate()
	p.follow(always(fault{before: g.wait}))
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_MAX_CONNECTIONS=2")
	bucket, file := newBucket(t), makeFile(t, "file", 10_000)
	const queued, callers = 30, 3
	pushAll(t, d, []string{file}, bucket, "queued", queued)
	waitFor(t, "two to be under way", func() bool { return p.nowHeld() == 2 })
	answers := make(chan answer, callers)
	for i := range callers {
		go func() {
			a, err := d.tryPushAs(context.Background(), wish{label: "waited"}, file, fmt.Sprintf("s3://%s/waited/%d", bucket, i))
			if err != nil {
				t.Error(err)
			}
			answers <- a
		}()
	}
	waitFor(t, "all to be in the queue", func() bool {
		return len(d.pageOf(t, "label=waited").Pushes) == callers && d.queueDepth("queued") == queued+callers-2 && d.queueDepth("running") == 2
	})
	d.signal(syscall.SIGTERM)
	var ids []string
	for range callers { // they need not wait for those that run
		ids = append(ids, (<-answers).refused(t, http.StatusServiceUnavailable, "shutting_down").ID)
	}
	if !d.running() {
		t.Error("the daemon did not wait for what runs")
	}
	g.open()
	d.client.CloseIdleConnections()
	if code := d.wait(); code != 0 {
		t.Errorf("the daemon ended with %d, want 0", code)
	}
	if n := len(listObjects(t, bucket)); n != 2 {
		t.Errorf("the store has %d objects, want those 2 whose pushes ran", n)
	}
	d = d.restart(t)
	d.barrier(t, "")
	for _, id := range ids {
		d.doneOf(t, id)
	}
	if n := len(listObjects(t, bucket)); n != queued+callers {
		t.Errorf("after the next start the store has %d objects, want %d", n, queued+callers)
	}
}

// With S3DAEMON_DRAIN=queue the daemon does not end before all is delivered:
// beside a job that ends there is no next start.
func TestDrainQueue(t *testing.T) {
	for _, in := range []string{"time", "vain"} {
		t.Run("in "+in, func(t *testing.T) {
			p := newFaultProxy(t)
			g := newGate()
			p.follow(always(fault{before: g.wait}))
			env := []string{"S3_ENDPOINT_URL=" + p.url(), "S3DAEMON_MAX_CONNECTIONS=2", "S3DAEMON_DRAIN=queue"}
			if in == "vain" {
				env = append(env, "S3DAEMON_DRAIN_TIMEOUT=300ms")
			}
			d := startDaemon(t, env...)
			bucket, file := newBucket(t), makeFile(t, "file", 10_000)
			const queued = 40
			pushAll(t, d, []string{file}, bucket, "queued", queued)
			waitFor(t, "two to be under way", func() bool { return p.nowHeld() == 2 })
			d.signal(syscall.SIGTERM)
			refusesConnections(t, d)
			if in == "time" {
				g.open()
			}
			d.client.CloseIdleConnections()
			want, status := queued, 0
			if in == "vain" { // what it was told to do it has not done
				want, status = 0, 1
			}
			if code := d.wait(); code != status {
				t.Errorf("the daemon ended with %d, want %d", code, status)
			}
			if n := len(listObjects(t, bucket)); n != want {
				t.Errorf("at its end the store has %d objects, want %d", n, want)
			}
			g.open()
			d = d.restart(t)
			d.barrier(t, "")
			checkDelivered(t, d, []string{file}, bucket, "queued", queued)
			d.client.CloseIdleConnections()
		})
	}
}

// A daemon with nothing to do stops at once, and one that was killed starts
// again.
func TestKilledAndStartedAgain(t *testing.T) {
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	d := startDaemon(t)
	id := d.push(t, file, "s3://"+bucket+"/one").done(t).ID
	d.kill()
	again := d.restart(t, "S3DAEMON_LISTEN="+d.addrs[0])
	again.push(t, file, "s3://"+bucket+"/two").done(t)
	if got := again.addrs[0]; got != d.addrs[0] {
		t.Errorf("the daemon listens on %s, want %s", got, d.addrs[0])
	}
	if r := again.pushOf(t, id); r.State != "done" {
		t.Errorf("what was done before the kill is %+v", r)
	}
}

// A caller who hangs up does not cancel the push.
func TestCallerHangsUp(t *testing.T) {
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket := newBucket(t)
	for name, file := range map[string]string{"small": makeFile(t, "small", 3_000_000), "large": makeFile(t, "large", 2*oneRequest+1)} {
		t.Run(name, func(t *testing.T) {
			done := d.metric("s3daemon_push_duration_seconds_count")
			p.hold()
			defer p.release()
			ctx, hangUp := context.WithCancel(context.Background())
			defer hangUp()
			ended := make(chan error, 1)
			go func() {
				_, err := d.tryPush(ctx, file, "s3://"+bucket+"/"+name)
				ended <- err
			}()
			waitFor(t, "the push to be under way", func() bool { return p.nowHeld() == 1 })
			hangUp()
			if err := <-ended; err == nil {
				t.Fatal("the caller had an answer before the store had the file")
			}
			d.client.CloseIdleConnections()
			p.release()
			waitFor(t, "the push to be done", func() bool { return d.metric("s3daemon_push_duration_seconds_count") == done+1 })
			checkObject(t, bucket, name, file)
		})
	}
}

// SIGTERM at any moment, while callers push one file after another: the daemon ends
// when what was under way has, and does not wait for what does not start any more.
func TestDrainAtAnyMoment(t *testing.T) {
	const callers, rounds = 3, 12
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	dice := rand.New(rand.NewPCG(seedOf(t), 9))
	for round := range rounds {
		d := startDaemon(t, "S3DAEMON_DRAIN_TIMEOUT=1h") // more than this test waits
		ctx, stop := context.WithCancel(context.Background())
		var pushing sync.WaitGroup
		pushed := make(chan struct{}, callers)
		for c := range callers {
			pushing.Go(func() {
				for n := 0; ; n++ {
					a, err := d.tryPush(ctx, file, fmt.Sprintf("s3://%s/%d-%d-%d", bucket, round, c, n))
					if err != nil || a.status != http.StatusOK { // it stops
						return
					}
					if n == 0 {
						pushed <- struct{}{}
					}
				}
			})
		}
		for range callers {
			<-pushed
		}
		time.Sleep(time.Duration(dice.IntN(20_000)) * time.Microsecond) // the moment, not a wait
		d.signal(syscall.SIGTERM)
		if code := d.wait(); code != 0 {
			t.Errorf("the daemon ended with %d (%v), want 0", code, d.waitErr)
		}
		stop()
		pushing.Wait()
	}
}
