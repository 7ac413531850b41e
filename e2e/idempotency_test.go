package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"
)

// Every request is sent twice with its Idempotency-Key, at one moment or later,
// while the store is there, while it is away, and while the daemon is killed: it
// is one push each, and where nothing was killed its object was made once.
func TestIdempotency(t *testing.T) {
	sideBySide(t)
	rounds, twins := 3, 50
	if full() {
		rounds, twins = 20, 100
	}
	if testing.Short() {
		twins = 20
	}
	seed := seedOf(t)
	r := &twinRun{proxy: newFaultProxy(t), bucket: newBucket(t), dice: rand.New(rand.NewPCG(seed, 6))}
	for i, size := range []int64{0, 1, 1000, 30_000, 40_000, 1 << 20, 9 << 20, oneRequest, oneRequest + 1, 5*partSize + 1} {
		r.files = append(r.files, newRandomFile(t, fmt.Sprintf("file-%d", i), size))
	}
	t.Cleanup(func() { abortUploads(t, r.bucket, "") })
	r.daemon = startDaemon(t, "S3_ENDPOINT_URL="+r.proxy.url(), "S3DAEMON_LISTEN=unix:"+socketPath(t), "S3DAEMON_ATTEMPTS=100")
	disturbances := []disturbance{r.quiet, r.outage, r.kills}
	for n := range rounds {
		if r.round(t, n, twins, disturbances[n%len(disturbances)], n%len(disturbances) != 2); t.Failed() {
			t.Fatalf("that was round %d", n)
		}
	}
	t.Logf("%d pushes, each asked for twice: %s", rounds*twins, r.proxy.summary())
}

// twinRun is the state of the test.
type twinRun struct {
	daemon *daemon // the one that lives
	proxy  *faultProxy
	bucket string
	dice   *rand.Rand
	files  []*randomFile
}

// twin is a push that is asked for twice.
type twin struct {
	key    string // of the request, and of its object
	file   *randomFile
	fields map[string]any
	asks   [2]ask
	moment moment
	ids    [2]string // as the answers have it
	errs   [2]error
}

// ask is how a request is written.
type ask struct {
	form   bool
	prefer string
}

// moment is when the second request comes.
type moment int

const (
	together moment = iota
	after           // the first was answered
	atTheEnd        // all are done, and the daemon has been killed and is another
	moments
)

func (r *twinRun) newTwin(name string) *twin {
	w := &twin{key: name, file: r.files[r.dice.IntN(len(r.files))], moment: moment(r.dice.IntN(int(moments)))}
	if w.file.sums.size > 1<<20 && r.dice.IntN(4) > 0 { // few of those
		w.file = r.files[r.dice.IntN(5)]
	}
	w.fields = map[string]any{"file": w.file.path, "destination": "s3://" + r.bucket + "/" + name}
	for field, value := range map[string]any{
		"label": "a label", "content_type": "image/fits", "overwrite": false,
		"metadata": map[string]string{"exposure": name, "filter": "r"}, "tags": map[string]string{"kind": "raw"},
	} {
		if r.dice.IntN(3) == 0 {
			w.fields[field] = value
		}
	}
	for i := range w.asks {
		w.asks[i] = ask{r.dice.IntN(2) == 0, []string{"", "respond-async", "wait=1"}[r.dice.IntN(3)]}
	}
	return w
}

// request writes the push in one of its two ways.
func (w *twin) request(d *daemon, n int) *http.Request {
	kind, body := "application/json", ""
	if w.asks[n].form {
		form := url.Values{}
		for name, value := range w.fields {
			members, ok := value.(map[string]string)
			if !ok {
				form.Set(name, fmt.Sprint(value))
			}
			for member, text := range members {
				form.Set(name+"."+member, text)
			}
		}
		kind, body = "application/x-www-form-urlencoded", form.Encode()
	} else {
		text, err := json.Marshal(w.fields)
		if err != nil {
			panic(err) // of strings
		}
		body = string(text)
	}
	req := d.request(context.Background(), "POST", "/push", kind, body)
	req.Header.Set("Idempotency-Key", w.key)
	if w.asks[n].prefer != "" {
		req.Header.Set("Prefer", w.asks[n].prefer)
	}
	return req
}

// ask asks until there is an answer, and keeps the id that it has.
func (w *twin) ask(d *daemon, n int) {
	begun := time.Now()
	a, err := d.send(d.client, w.request(d, n))
	for err != nil && time.Since(begun) < 2*patience {
		<-time.After(20 * time.Millisecond) // the daemon was killed, and another starts
		a, err = d.send(d.client, w.request(d, n))
	}
	var r receipt
	if err == nil && a.status != http.StatusOK && a.status != http.StatusAccepted {
		err = fmt.Errorf("the answer is %d: %s", a.status, a.body)
	}
	if err == nil {
		err = json.Unmarshal(a.body, &r)
	}
	w.ids[n], w.errs[n] = r.ID, err
}

// round has pushes asked for twice while something disturbs them, and looks at
// what there is in the end.
func (r *twinRun) round(t *testing.T, n, size int, disturb disturbance, sound bool) {
	t.Helper()
	var all []*twin
	for i := range size {
		all = append(all, r.newTwin(fmt.Sprintf("round-%d/%d", n, i)))
	}
	caller := r.daemon // its socket is every later daemon's too
	var callers sync.WaitGroup
	start := make(chan struct{})
	for _, w := range all {
		callers.Go(func() {
			<-start
			if w.moment == together {
				var other sync.WaitGroup
				other.Go(func() { w.ask(caller, 1) })
				defer other.Wait()
			}
			if w.ask(caller, 0); w.moment == after {
				w.ask(caller, 1)
			}
		})
	}
	disturb(t, size, func() { close(start) })
	callers.Wait()
	r.daemon.barrier(t, "")
	r.kill(t)
	for _, w := range all {
		if w.moment == atTheEnd {
			w.ask(r.daemon, 1)
		}
	}
	r.check(t, all, sound)
}

// disturbance is what happens while that many pushes are asked for, which begins
// when it says so.
type disturbance func(t *testing.T, pushes int, begin func())

func (r *twinRun) quiet(_ *testing.T, _ int, begin func()) { begin() }

// outage has the store away until all pushes are accepted.
func (r *twinRun) outage(t *testing.T, pushes int, begin func()) {
	t.Helper()
	r.proxy.cutOff(cutClosed)
	begin()
	waitFor(t, "all pushes to be accepted", func() bool { return int(r.daemon.metric("s3daemon_queue_depth")) == pushes })
	r.proxy.restore(t)
}

func (r *twinRun) kills(t *testing.T, _ int, begin func()) {
	t.Helper()
	begin()
	for range 3 {
		<-time.After(time.Duration(r.dice.Int64N(int64(300 * time.Millisecond))))
		r.kill(t)
	}
}

func (r *twinRun) kill(t *testing.T) {
	t.Helper()
	r.daemon.kill()
	r.daemon = r.daemon.restart(t)
}

// check compares the answers, the list and the store.
func (r *twinRun) check(t *testing.T, all []*twin, sound bool) {
	t.Helper()
	pushes := map[string][]receipt{}
	for _, p := range r.daemon.listOf(t, "") {
		pushes[p.Key] = append(pushes[p.Key], p)
	}
	for i, w := range all {
		if w.errs[0] != nil || w.errs[1] != nil || w.ids[0] != w.ids[1] || w.ids[0] == "" {
			t.Errorf("%s, asked for as %+v: %q, %v", w.key, w.asks, w.ids, w.errs)
			continue
		}
		if p := pushes[w.key]; len(p) != 1 || p[0].ID != w.ids[0] || p[0].State != "done" || p[0].Checksum.Value != w.file.sums.crc64nvme {
			t.Errorf("%s: there are the pushes %+v, want one that is done, %s", w.key, p, w.ids[0])
		}
		if got, err := digestObject(r.bucket, w.key); err != nil || got != w.file.digest {
			t.Errorf("%s: the store has %d bytes of %d, or others: %v", w.key, got.size, w.file.sums.size, err)
		}
		if made := r.proxy.objectsMade(r.bucket, w.key); len(made) != 1 && sound {
			t.Errorf("%s: the object was made %d times", w.key, len(made))
		}
		if i%10 == 0 {
			r.checkReuse(t, w)
		}
	}
}

// checkReuse uses the key of a push for another.
func (r *twinRun) checkReuse(t *testing.T, w *twin) {
	t.Helper()
	for field, value := range map[string]any{"label": "another", "destination": "s3://" + r.bucket + "/another", "content_type": "text/plain"} {
		other := *w
		other.fields = maps.Clone(w.fields)
		other.fields[field] = value
		r.daemon.do(t, other.request(r.daemon, 0)).refused(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	}
}
