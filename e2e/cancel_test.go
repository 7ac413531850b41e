package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// cancelled asks for a cancel, and returns what it came to in the end.
func (d *daemon) cancelled(t testing.TB, id string) receipt {
	t.Helper()
	r, err := d.tryCancelled(id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (d *daemon) tryCancelled(id string) (r receipt, err error) {
	a, err := d.send(d.client, d.request(context.Background(), "DELETE", "/pushes/"+id, "", ""))
	if err == nil && a.status == http.StatusAccepted { // it is not known yet
		a, err = d.send(d.client, d.request(context.Background(), "GET", "/pushes/"+id+"?wait="+patience.String(), "", ""))
	}
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("the answer to a cancel is %d: %s", a.status, a.body)
	}
	if err == nil {
		err = json.Unmarshal(a.body, &r)
	}
	if err == nil && !ended(r.State) {
		err = fmt.Errorf("a push that was cancelled is %s after %v", r.State, patience)
	}
	return r, err
}

// A push that has not begun never reaches the store. It can be put back.
func TestCancelQueued(t *testing.T) {
	p := newFaultProxy(t)
	g := newGate()
	p.follow(always(fault{before: g.wait}))
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_MAX_CONNECTIONS=1")
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	first := d.pushAsync(t, file, "s3://"+bucket+"/first").ID
	waitFor(t, "it to be under way", func() bool { return p.nowHeld() == 1 })
	second := d.pushAsync(t, file, "s3://"+bucket+"/second").ID
	third := d.pushAsync(t, file, "s3://"+bucket+"/second").ID // behind the one that is cancelled
	waited := make(chan answer, 1)
	go func() {
		a, err := d.tryPushAs(context.Background(), wish{label: "waited"}, file, "s3://"+bucket+"/waited")
		if err != nil {
			t.Error(err)
		}
		waited <- a
	}()
	waitFor(t, "the caller to be in the queue", func() bool { return len(d.pageOf(t, "label=waited").Pushes) == 1 })
	fourth := d.pageOf(t, "label=waited").Pushes[0].ID

	for _, id := range []string{second, fourth} {
		if a := d.cancel(t, id); a.status != http.StatusOK || a.receiptOf(t).State != "cancelled" {
			t.Fatalf("DELETE of a queued push: %d: %s", a.status, a.body)
		}
		if r := d.cancel(t, id).receiptOf(t); r.State != "cancelled" { // and again
			t.Errorf("cancelled twice, it is %s", r.State)
		}
		if r := d.pushOf(t, id); r.State != "cancelled" || r.FinishedAt.IsZero() {
			t.Errorf("cancelled, it is %+v", r)
		}
	}
	if problem := (<-waited).refused(t, http.StatusConflict, "cancelled"); problem.ID != fourth {
		t.Errorf("who waited for it was told of the id %q, want %s", problem.ID, fourth)
	}
	g.open()
	d.doneOf(t, first)
	d.doneOf(t, third)
	d.cancel(t, first).refused(t, http.StatusConflict, "push_ended")
	d.retry(t, first).refused(t, http.StatusConflict, "push_not_failed")
	if n := p.requestsOf("waited"); n != 0 {
		t.Errorf("the store was asked %d times for a push that was cancelled before", n)
	}
	if n := len(p.objectsMade(bucket, "second")); n != 1 {
		t.Errorf("the store was given %d versions of an object of whose two pushes one was cancelled", n)
	}

	// What has been cancelled stays so across a crash, and can be put back.
	d.kill()
	d = d.restart(t)
	if r := d.pushOf(t, fourth); r.State != "cancelled" {
		t.Errorf("after a crash it is %s", r.State)
	}
	if r := d.retry(t, fourth).accepted(t); r.ID != fourth {
		t.Errorf("put back, it has the id %s, want %s", r.ID, fourth)
	}
	d.doneOf(t, fourth)
	checkObject(t, bucket, "waited", file)
	const unknown = "01a2099f-a374-7d75-988c-bfa863fc1e8f"
	for _, id := range []string{unknown, "nonsense"} {
		d.cancel(t, id).refused(t, http.StatusNotFound, "push_not_found")
		d.retry(t, id).refused(t, http.StatusNotFound, "push_not_found")
		d.get(t, "/pushes/"+id).refused(t, http.StatusNotFound, "push_not_found")
	}
}

// A push that runs is cut off. Where all of it had been sent, the store has
// the last word: what it has is done, and never reported as cancelled.
func TestCancelRunning(t *testing.T) {
	sideBySide(t)
	refuse := fault{status: http.StatusForbidden, code: "AccessDenied"}.instead() // which says for certain that nothing was done
	tests := []struct {
		name  string
		size  int64
		ops   string // what is held up
		fault fault
		after bool // held after the last byte, not before
		cut   bool // it is cut off there; else the store's answer is waited for
		want  string
	}{
		{"one request, before the last byte", 20_000_000, "PutObject", fault{}, false, true, "cancelled"},
		{"one request, and the store has it", 1_000_000, "PutObject", fault{}, true, false, "done"},
		{"one request, and the store refuses", 1_000_000, "PutObject", refuse, true, false, "cancelled"},
		{"one request, and the connection breaks", 1_000_000, "PutObject", fault{what: resetFirst}, true, false, "cancelled"},
		{"in parts, before the upload has an id", 2*oneRequest + 1, "CreateMultipartUpload", fault{}, false, false, "cancelled"},
		{"in parts, before the last byte", 2*oneRequest + 1, "UploadPart", fault{}, false, true, "cancelled"},
		{"in parts, when it is to be completed", 2*oneRequest + 1, "CompleteMultipartUpload", fault{}, false, false, "done"},
		{"in parts, and the store has it", 2*oneRequest + 1, "CompleteMultipartUpload", fault{}, true, false, "done"},
		{"in parts, and the store refuses", 2*oneRequest + 1, "CompleteMultipartUpload", refuse, true, false, "cancelled"},
	}
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket := newBucket(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGate()
			f := tt.fault
			if tt.after {
				f.after = g.wait
			} else {
				f.before = g.wait
			}
			p.follow(only(tt.ops, always(f)))
			file, key := makeFile(t, "file", tt.size), strings.NewReplacer(" ", "-", ",", "").Replace(tt.name)
			id := d.pushAsync(t, file, "s3://"+bucket+"/"+key).ID
			waitFor(t, "it to be held up", func() bool { return p.nowHeld() > 0 })
			if r := d.pushOf(t, id); r.State != "running" || r.StartedAt.IsZero() {
				t.Errorf("held up, it is %+v", r)
			}
			// What comes after the cancel gets through: a question, an abort.
			p.follow(passAll)
			var r receipt
			answered := make(chan error, 1)
			go func() {
				var err error
				r, err = d.tryCancelled(id)
				answered <- err
			}()
			var err error
			select {
			case err = <-answered:
			case <-time.After(500 * time.Millisecond):
				if tt.cut {
					t.Error("the store cannot make an object of it, and the cancel waits")
				}
				g.open()
				err = <-answered
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.State != tt.want {
				t.Errorf("cancelled, it is %s: %+v; want %s", r.State, r.Problem, tt.want)
			}
			if again := d.pushOf(t, id); again.State != r.State {
				t.Errorf("asked again, it is %s", again.State)
			}
			if r.State == "done" {
				checkObject(t, bucket, key, file)
			}
			g.open()
			waitFor(t, "nothing to be held", func() bool { return p.nowHeld() == 0 })
			if objects := listObjects(t, bucket); (objects[key].Key != nil) != (tt.want == "done") {
				t.Errorf("%s, and the store has it: %v", r.State, objects[key].Key != nil)
			}
			// The object's next push is not in its way.
			d.push(t, file, "s3://"+bucket+"/"+key).done(t)
			checkObject(t, bucket, key, file)
		})
	}
	untilNoUploads(t, bucket)
	d.client.CloseIdleConnections()
	d.signal(syscall.SIGTERM)
	d.wait()
}

// A push whose bucket was missing is put back when it is there.
func TestRetryFailed(t *testing.T) {
	d := startDaemon(t)
	file := makeFile(t, "file", 1000)
	bucket := newBucket(t)
	if _, err := theStore.client.DeleteBucket(context.Background(), &s3.DeleteBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
	id := d.pushAs(t, async.labelled("a label"), file, "s3://"+bucket+"/key").accepted(t).ID
	r := d.endOf(t, id)
	if r.State != "failed" || r.Problem == nil || r.Problem.Code != "store_refused" || r.Problem.Store == nil || r.Problem.Store.Code != "NoSuchBucket" || r.Problem.Status != http.StatusBadGateway {
		t.Fatalf("without its bucket the push is %+v with the problem %+v", r, r.Problem)
	}
	d.kill()
	d = d.restart(t)
	if again := d.pushOf(t, id); again.State != "failed" || again.Problem == nil || again.Problem.Detail != r.Problem.Detail {
		t.Errorf("after a crash it is %+v with the problem %+v", again, again.Problem)
	}
	if _, err := theStore.client.CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
	back := d.retry(t, id).accepted(t)
	if back.ID != id || back.Label != "a label" {
		t.Errorf("put back, it is %+v", back)
	}
	if r := d.doneOf(t, id); r.Problem != nil {
		t.Errorf("done, it has the problem %+v", r.Problem)
	}
	checkObject(t, bucket, "key", file)
	if all := d.listOf(t, "label=a+label"); len(all) != 1 || all[0].State != "done" {
		t.Errorf("the list has %+v", all)
	}
}

// Once a newer push to the object was accepted, the older one cannot come back
// over it.
func TestRetrySuperseded(t *testing.T) {
	p := newFaultProxy(t)
	g := newGate()
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_MAX_CONNECTIONS=1")
	bucket, older, newer := newBucket(t), makeFile(t, "older", 1000), makeFile(t, "newer", 2000)
	p.follow(always(fault{before: g.wait}))
	blocker := d.pushAsync(t, older, "s3://"+bucket+"/blocker").ID
	waitFor(t, "the pool to be busy", func() bool { return p.nowHeld() == 1 })
	first := d.pushAsync(t, older, "s3://"+bucket+"/key").ID
	if r := d.cancelled(t, first); r.State != "cancelled" {
		t.Fatalf("cancelled, it is %s", r.State)
	}
	second := d.pushAsync(t, newer, "s3://"+bucket+"/key").ID
	d.retry(t, first).refused(t, http.StatusConflict, "superseded") // while the newer one is queued
	g.open()
	d.doneOf(t, second)
	d.doneOf(t, blocker)
	d.retry(t, first).refused(t, http.StatusConflict, "superseded") // when it is done
	d.kill()
	d = d.restart(t)
	d.retry(t, first).refused(t, http.StatusConflict, "superseded") // and after a crash
	checkObject(t, bucket, "key", newer)
}
