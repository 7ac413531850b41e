package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The ways to say how long a push is waited for.
func TestPreferences(t *testing.T) {
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	tests := []struct {
		name, prefer, applied string
		fields                map[string]any
		held                  bool
		status                int
	}{
		{"nothing", "", "", nil, false, 200},
		{"async", "respond-async", "respond-async", nil, true, 202},
		{"async in the body", "", "", map[string]any{"async": true}, true, 202},
		{"not async in the body", "", "", map[string]any{"async": false}, false, 200},
		{"wait that is over", "wait=1", "wait=1", nil, true, 202},
		{"wait that is not", "wait=60", "wait=60", nil, false, 200},
		{"async and wait", "respond-async, wait=60", "respond-async, wait=60", nil, false, 200},
		{"async in the body and wait", "wait=60", "wait=60", map[string]any{"async": true}, false, 200},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGate()
			defer g.open()
			p.follow(passAll)
			if tt.held {
				p.follow(always(fault{before: g.wait}))
			}
			key := fmt.Sprint(i)
			fields := map[string]any{"file": file, "destination": "s3://" + bucket + "/" + key}
			for name, value := range tt.fields {
				fields[name] = value
			}
			body, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			req := d.request(context.Background(), "POST", "/push", "application/json", string(body))
			if tt.prefer != "" {
				req.Header.Set("Prefer", tt.prefer)
			}
			a := d.do(t, req)
			if got := a.header.Get("Preference-Applied"); a.status != tt.status || got != tt.applied {
				t.Errorf("the answer is %d with the preferences %q, want %d and %q: %s", a.status, got, tt.status, tt.applied, a.body)
			}
			if a.status == 202 {
				id := a.accepted(t).ID
				if r := d.get(t, "/pushes/"+id+"?wait=50ms").receiptOf(t); ended(r.State) {
					t.Errorf("held up, it is %s", r.State)
				}
				g.open()
				d.doneOf(t, id)
			}
			checkObject(t, bucket, key, file)
		})
	}
}

// Whatever becomes of the daemon, whoever repeats a request with its key has
// pushed once.
func TestIdempotencyKey(t *testing.T) {
	p := newFaultProxy(t)
	g := newGate()
	p.follow(always(fault{before: g.wait}))
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	to := "s3://" + bucket + "/key"
	ask := func(callers int, w wish) (answers []answer) {
		t.Helper()
		var all sync.WaitGroup
		answers = make([]answer, callers)
		for i := range callers {
			all.Go(func() {
				var err error
				if answers[i], err = d.tryPushAs(context.Background(), w, file, to); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		return answers
	}
	id := ""
	for _, a := range ask(32, async.keyed("one")) {
		if r := a.accepted(t); id == "" {
			id = r.ID
		} else if r.ID != id {
			t.Fatalf("one key made the pushes %s and %s", id, r.ID)
		}
	}
	// In quotes it is the same key.
	if r := d.pushAs(t, async.keyed(`"one"`), file, to).accepted(t); r.ID != id {
		t.Errorf("in quotes, the key is of the push %s", r.ID)
	}
	d.pushAs(t, async.keyed("one"), file, to+"-other").refused(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	d.pushAs(t, async.labelled("other").keyed("one"), file, to).refused(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	d.kill()
	d = d.restart(t)
	if r := d.pushAs(t, async.keyed("one"), file, to).accepted(t); r.ID != id {
		t.Errorf("after a crash, the key is of the push %s, want %s", r.ID, id)
	}
	g.open()
	for _, a := range ask(8, wish{key: "one"}) { // and these wait
		if r := a.done(t); r.ID != id {
			t.Errorf("one key made the pushes %s and %s", id, r.ID)
		}
	}
	// Also when the file is gone, which was delivered.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for _, w := range []wish{{key: "one"}, async.keyed("one")} {
		if r := d.pushAs(t, w, file, to).done(t); r.ID != id {
			t.Errorf("when it was done, the key is of the push %s", r.ID)
		}
	}
	d.pushAs(t, wish{key: "two"}, file, to).refused(t, http.StatusNotFound, "file_not_found")
	if n := len(d.listOf(t, "")); n != 1 {
		t.Errorf("the list has %d pushes, want 1", n)
	}
	if n := len(p.objectsMade(bucket, "key")); n != 1 {
		t.Errorf("the object was made %d times", n)
	}
}

// The barrier holds as long as something with the label is under way, and
// nothing else holds it.
func TestBarrier(t *testing.T) {
	p := newFaultProxy(t)
	g := newGate()
	p.follow(only("PutObject", always(fault{before: g.wait})))
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_MAX_CONNECTIONS=1") // so that the gate lets them pass in order
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	if err := d.tryBarrier("", patience); err != nil {
		t.Errorf("with nothing to wait for: %v", err)
	}
	pushAll(t, d, []string{file}, bucket, "night", 10)
	d.pushAs(t, async.labelled("day"), file, "s3://"+bucket+"/day").accepted(t)
	for label, want := range map[string]int{"night": 10, "day": 1, "": 11} {
		query := "wait=100ms"
		if label != "" {
			query += "&label=" + label
		}
		if n := d.pageOf(t, query).Pending; n != want {
			t.Errorf("%d pushes with the label %q are pending, want %d", n, label, want)
		}
	}
	if err := d.tryBarrier("nobody", patience); err != nil {
		t.Errorf("a label that nothing has: %v", err)
	}
	passed := make(chan error, 1)
	go func() { passed <- d.tryBarrier("night", patience) }()
	for range 10 {
		if err := g.one(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-passed; err != nil {
		t.Errorf("the barrier: %v", err)
	}
	if n := len(d.listOf(t, "label=night&state=done")); n != 10 {
		t.Errorf("past the barrier %d pushes are done, want 10", n)
	}
	if n := d.pageOf(t, "").Pending; n != 1 {
		t.Errorf("%d pushes are pending, want the one of another label", n)
	}
	g.open()
	d.barrier(t, "")

	for _, query := range []string{"wait=soon", "wait=2h", "limit=0", "limit=1001", "state=gone", "cursor=x", "lable=night", "label=a&label=b"} {
		d.get(t, "/pushes?"+query).refused(t, http.StatusBadRequest, "invalid_parameter")
	}
}

// What the accepted push was about is what is delivered, or nothing is.
func TestFileChangesBeforeItsTurn(t *testing.T) {
	p := newFaultProxy(t)
	g := newGate()
	p.follow(always(fault{before: g.wait}))
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_MAX_CONNECTIONS=1")
	bucket := newBucket(t)
	d.pushAsync(t, makeFile(t, "first", 1000), "s3://"+bucket+"/first")
	waitFor(t, "it to be under way", func() bool { return p.nowHeld() == 1 })
	ids := map[string]string{}
	for name, change := range map[string]func(string) error{
		"gone": os.Remove,
		"longer": func(f string) error {
			return os.Truncate(f, 2000)
		},
		"touched": func(f string) error { return os.Chtimes(f, time.Time{}, time.Unix(1, 0)) },
		"replaced": func(f string) error { // by one of the same size and time
			info, err := os.Stat(f)
			if err != nil {
				return err
			}
			if err := os.WriteFile(f+".new", make([]byte, info.Size()), 0o600); err != nil {
				return err
			}
			if err := os.Chtimes(f+".new", time.Time{}, info.ModTime()); err != nil {
				return err
			}
			return os.Rename(f+".new", f)
		},
	} {
		file := makeFile(t, name, 1000)
		ids[name] = d.pushAsync(t, file, "s3://"+bucket+"/"+name).ID
		if err := change(file); err != nil {
			t.Fatal(err)
		}
	}
	g.open()
	for name, id := range ids {
		code := "file_changed"
		if name == "gone" {
			code = "file_not_found"
		}
		if r := d.endOf(t, id); r.State != "failed" || r.Problem == nil || r.Problem.Code != code {
			t.Errorf("%s: %s, %+v; want failed with the code %s", name, r.State, r.Problem, code)
		}
	}
	if n := len(listObjects(t, bucket)); n != 1 {
		t.Errorf("the store has %d objects, want 1", n)
	}
}

// An idle daemon leaves its disk alone.
func TestIdleDaemonWritesNothing(t *testing.T) {
	d := startDaemon(t)
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	d.push(t, file, "s3://"+bucket+"/key").done(t)
	before := d.writes()
	d.get(t, "/pushes")
	<-time.After(1500 * time.Millisecond) // longer than any tick of a second
	if after := d.writes(); after != before {
		t.Errorf("idle, the daemon wrote %d bytes to disk", after-before)
	}
	d.client.CloseIdleConnections()
	d.signal(syscall.SIGTERM)
	d.wait()
}
