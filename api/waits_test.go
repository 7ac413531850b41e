package api

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lsst-dm/s3daemon/push"
)

// TestWaitsShares has who may wait among so many callers: whatever others do,
// some places are left for those who do not wait, and half of the rest for those
// who wait for their own push.
func TestWaitsShares(t *testing.T) {
	for callers, want := range map[int]struct{ most, asking int }{1: {1, 1}, 2: {1, 1}, 5: {4, 3}, 100: {94, 50}, 2000: {1875, 1000}} {
		w := newWaits(callers, prometheus.NewRegistry())
		asking := 0
		for w.enter(true) {
			asking++
		}
		all := asking
		for w.enter(false) {
			all++
		}
		if asking != want.asking || all != want.most {
			t.Errorf("of %d callers %d may ask and %d wait, want %d and %d", callers, asking, all, want.asking, want.most)
		}
		if n := testutil.ToFloat64(w.refused); n != 2 {
			t.Errorf("%v are counted as refused, want 2", n)
		}
		w.leave(true)
		if !w.enter(true) {
			t.Error("one has left, and none may enter")
		}
		for range asking {
			w.leave(true)
		}
		if want.asking < want.most && !w.enter(true) {
			t.Error("all who asked have left, and none may enter")
		}
	}
	w := newWaits(0, prometheus.NewRegistry())
	for range 10_000 {
		if !w.enter(true) {
			t.Fatal("without a bound there is one")
		}
	}
}

// waitsQueue holds whoever waits until the test lets him go.
type waitsQueue struct {
	fakeQueue
	waiting chan struct{}
	free    chan struct{}
}

func (q *waitsQueue) Get(_ context.Context, _ push.ID, wait time.Duration) (push.Receipt, error) {
	q.hold(wait)
	return receiptOf(push.Queued), nil
}

func (q *waitsQueue) List(_ context.Context, _ push.Filter, wait time.Duration) (push.Page, error) {
	q.hold(wait)
	return push.Page{Pending: 7}, nil
}

func (q *waitsQueue) hold(wait time.Duration) {
	if wait > 0 {
		q.waiting <- struct{}{}
		<-q.free
	}
}

// waitsPusher does the same.
type waitsPusher struct {
	fakePusher
	queue *waitsQueue
}

func (p *waitsPusher) Push(_ context.Context, _ push.Request, opts push.Options) (push.Receipt, error) {
	if opts.Wait == 0 {
		return receiptOf(push.Queued), nil
	}
	p.queue.hold(time.Hour)
	return receiptOf(push.Done), nil
}

// TestWaitersKeepNobodyOut fills all places for those who wait: pushes that
// nobody waits for are accepted, who asks is told how things stand, and only who
// would wait for a push is refused.
func TestWaitersKeepNobodyOut(t *testing.T) {
	queue := &waitsQueue{waiting: make(chan struct{}), free: make(chan struct{})}
	r := newRigWith(t, func(c *Config) {
		c.Queue, c.Pusher, c.Callers = queue, &waitsPusher{queue: queue}, 5
	})
	answered := make(chan int, 4)
	ask := func(method, path string) {
		req, err := http.NewRequest(method, r.server.URL+path, strings.NewReader(somePush))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", formType)
		go func() {
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				answered <- 0
				return
			}
			resp.Body.Close()
			answered <- resp.StatusCode
		}()
		<-queue.waiting
	}
	ask("GET", "/pushes?wait=1h&limit=1")
	ask("GET", "/pushes?wait=1h")
	ask("GET", "/pushes/"+someID+"?wait=1h")

	for _, path := range []string{"/pushes?wait=1h", "/pushes?wait=1h&limit=1"} {
		if resp, body := r.do(t, "GET", path, "", ""); resp.StatusCode != 200 || !strings.Contains(body, `"pending":7`) {
			t.Errorf("%s is answered %s\n%s", path, resp.Status, body)
		}
	}
	if resp, body := r.do(t, "GET", "/pushes/"+someID+"?wait=1h", "", ""); resp.StatusCode != 200 || !strings.Contains(body, `"queued"`) {
		t.Errorf("a push is answered %s\n%s", resp.Status, body)
	}
	ask("POST", "/push") // for which there is a place still
	resp, body := r.do(t, "POST", "/push", formType, somePush)
	wantProblem(t, resp, body, 503, push.TooManyCallers)
	if resp, body := r.do(t, "POST", "/push", formType, somePush+"&async=true"); resp.StatusCode != 202 {
		t.Errorf("a push that nobody waits for is answered %s\n%s", resp.Status, body)
	}
	resp, body = r.do(t, "POST", "/push", formType, somePush, func(req *http.Request) { req.Header.Set("Prefer", "wait=10") })
	if resp.StatusCode != 202 || resp.Header.Get("Preference-Applied") != "" {
		t.Errorf("one who would wait for some time is answered %s, %v\n%s", resp.Status, resp.Header, body)
	}
	close(queue.free)
	for range cap(answered) {
		if status := <-answered; status != 200 {
			t.Errorf("one who waited is answered %d", status)
		}
	}
}

// TestBudget: who wants bytes that are not there waits, in order, until they
// are, or he gives up.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &budget{left: 10}
		if !b.take(t.Context(), 7) {
			t.Fatal("7 of 10 are not there")
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		gaveUp, second, third := make(chan bool, 1), make(chan bool, 1), make(chan bool, 1)
		for _, c := range []struct {
			ctx   context.Context
			bytes int
			told  chan bool
		}{{impatient, 9, gaveUp}, {t.Context(), 4, second}, {t.Context(), 3, third}} {
			go func() { c.told <- b.take(c.ctx, c.bytes) }()
			synctest.Wait()
		}
		if len(gaveUp)+len(second)+len(third) > 0 {
			t.Error("one has what is not there, or goes before who came first")
		}
		if <-gaveUp {
			t.Error("one has 9 of 3")
		}
		synctest.Wait()
		if len(second)+len(third) > 0 {
			t.Error("one goes before who came first")
		}
		b.give(7)
		if !<-second || !<-third {
			t.Error("they have not what is there")
		}
		b.give(4)
		b.give(3)
		if b.left != 10 || len(b.line) > 0 {
			t.Errorf("%d are left, and %d wait", b.left, len(b.line))
		}
	})
}
