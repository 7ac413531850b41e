package e2e

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// beginUpload begins a multipart upload past the daemon, perhaps with a part, and
// returns its id. It is aborted at the test's end.
func beginUpload(t *testing.T, bucket, key string, withPart bool) string {
	t.Helper()
	ctx := context.Background()
	out, err := theStore.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := theStore.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &bucket, Key: &key, UploadId: out.UploadId}); err != nil {
			t.Errorf("abort the test's own upload of %s: %v", key, err)
		}
	})
	if withPart {
		_, err := theStore.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &bucket, Key: &key, UploadId: out.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("part"),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return *out.UploadId
}

// The daemon is killed when the store has begun an upload and its id has not been
// heard. That upload is found and aborted, and no other.
func TestUploadNobodyHeardOf(t *testing.T) {
	p := newFaultProxy(t)
	bucket, file := newBucket(t), sparseFile(t, "file", oneRequest+1)
	others := map[string]string{}
	for _, key := range []string{"key", "key2", "key/below", "ke", "another"} {
		others[beginUpload(t, bucket, key, false)] = key
	}
	others[beginUpload(t, bucket, "key", true)] = "key, with a part"
	// The store keeps times to the second.
	for begun := time.Now().Unix(); time.Now().Unix() == begun; {
		<-time.After(10 * time.Millisecond)
	}
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	g := newGate()
	p.follow(only("CreateMultipartUpload", always(fault{after: g.wait})))
	id := d.pushAsync(t, file, "s3://"+bucket+"/key").ID
	waitFor(t, "the store to have begun an upload", func() bool { return p.nowHeld() == 1 })
	d.kill()
	g.open()
	if left, err := listUploads(bucket); err != nil || len(left) != len(others)+1 {
		t.Fatalf("the store has %d uploads, %v, want one more than %d", len(left), err, len(others))
	}
	// While there is one of the next daemon, too.
	others[beginUpload(t, bucket, "key", true)] = "key, begun later, with a part"
	d = d.restart(t)
	d.doneOf(t, id)
	checkObject(t, bucket, "key", file)
	waitFor(t, "the upload to be aborted", func() bool {
		left, err := listUploads(bucket)
		if err != nil {
			t.Fatal(err)
		}
		return len(left) <= len(others)
	})
	left, err := listUploads(bucket)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range left {
		delete(others, aws.ToString(u.UploadId))
	}
	for id, key := range others {
		t.Errorf("the upload %s of %s is gone, which the daemon had not begun", id, key)
	}
	if n := d.metric("s3daemon_multipart_aborts_total"); n != 1 {
		t.Errorf("%v aborts are counted, want 1", n)
	}
}

// A daemon is killed while it sends a large file, and what happens then leads to
// no object: nothing of it is left.
func TestNothingIsLeft(t *testing.T) {
	tests := []struct {
		name string
		// while no daemon runs
		between func(t *testing.T, file string)
		// once one runs again
		after       func(t *testing.T, d *daemon, id string)
		state, code string
	}{
		{name: "cancelled", state: "cancelled", code: "cancelled",
			after: func(t *testing.T, d *daemon, id string) { d.cancel(t, id) }},
		{name: "the file is gone", state: "failed", code: "file_not_found",
			between: func(t *testing.T, file string) {
				if err := os.Remove(file); err != nil {
					t.Error(err)
				}
			}},
		{name: "the file is another", state: "failed", code: "file_changed",
			between: func(t *testing.T, file string) {
				if err := os.WriteFile(file, []byte("another"), 0o644); err != nil {
					t.Error(err)
				}
			}},
		{name: "nothing happened", state: "done"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newFaultProxy(t)
			bucket, file := newBucket(t), sparseFile(t, "file", 2*oneRequest)
			d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
			g := newGate()
			sent := 0
			parts := func(request) fault { // two arrive, and the others stand still
				if sent++; sent <= 2 {
					return fault{}
				}
				return fault{before: g.wait}
			}
			p.follow(only("UploadPart", parts))
			id := d.pushAsync(t, file, "s3://"+bucket+"/key").ID
			waitFor(t, "two parts to have arrived", func() bool {
				return p.nowHeld() > 0 && len(p.requests("UploadPart")) > 2 && p.arrived("UploadPart") == 2
			})
			d.kill()
			if tt.between != nil {
				tt.between(t, file)
			}
			d = d.restart(t)
			if tt.after != nil {
				tt.after(t, d, id)
			}
			g.open()
			r := d.endOf(t, id)
			if r.State != tt.state || r.Problem != nil && r.Problem.Code != tt.code {
				t.Errorf("it is %s: %+v, want %s", r.State, r.Problem, tt.state)
			}
			untilNoUploads(t, bucket)
			waitFor(t, "the journal to know that", func() bool { return d.metric("s3daemon_multipart_uploads") == 0 })
			checkNothingDeleted(t, p)
		})
	}
}

// arrived returns how many requests of an operation the store has carried out.
func (p *faultProxy) arrived(op string) (n int) {
	for _, x := range p.requests(op) {
		if x.status/100 == 2 {
			n++
		}
	}
	return n
}

// The store is away when an upload is to be aborted. That is done when it is
// back, and holds up neither its pushes nor the end of a daemon.
func TestAbortsWaitForTheStore(t *testing.T) {
	p := newFaultProxy(t)
	bucket, file, small := newBucket(t), sparseFile(t, "file", 2*oneRequest), makeFile(t, "small", 1000)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	g := newGate()
	p.follow(only("UploadPart", always(fault{before: g.wait})))
	id := d.pushAsync(t, file, "s3://"+bucket+"/key").ID
	waitFor(t, "it to be under way", func() bool { return p.nowHeld() > 0 })
	p.follow(passAll)
	p.cutOff(cutClosed)
	g.open()
	d.cancel(t, id)
	if r := d.endOf(t, id); r.State != "cancelled" {
		t.Errorf("it is %s: %+v", r.State, r.Problem)
	}
	begun := time.Now()
	d.signal(os.Interrupt)
	if code := d.wait(); code != 0 || time.Since(begun) > patience/4 {
		t.Errorf("it ended with %d, after %v", code, time.Since(begun))
	}
	d = d.restart(t)
	other := d.pushAsync(t, small, "s3://"+bucket+"/other").ID
	waitFor(t, "the outage to be known", func() bool { return d.metric("s3daemon_store_reachable") == 0 })
	if left, err := listUploads(bucket); err != nil || len(left) != 1 {
		t.Errorf("the store has %d uploads, %v", len(left), err)
	}
	p.restore(t)
	d.doneOf(t, other)
	untilNoUploads(t, bucket)
}
