package uploader

import (
	"context"
	"crypto/md5"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/transport"
)

// long has files of one request go in parts where that is allowed: it takes the
// link for a long one with connections that remember little.
func (u *Uploader) long() {
	u.plan = plan{whole: wholeSize, minPart: minPartSize, split: leastPart}
	u.path = func(string) transport.Path {
		return transport.Path{RTT: time.Second, Rates: []float64{1e6, 1e6, 1e6, 1e6}, Rate: 100e6}
	}
}

// TestSmallFileInParts: on a long link a file that could go as a whole goes in
// parts, but not where some stores have less to offer for those.
func TestSmallFileInParts(t *testing.T) {
	r := newRig(t)
	r.long()
	path, content := r.file(t, "f", 2*leastPart+1)
	for name, tc := range map[string]struct {
		req   push.Request
		parts int
	}{
		"plain":  {push.Request{}, 2},
		"create": {push.Request{Overwrite: new(bool)}, 1},
		"tagged": {push.Request{Tags: map[string]string{"a": "b"}}, 1},
	} {
		tc.req.File, tc.req.Destination = path, "s3://bucket/"+name
		receipt, err := r.Push(t.Context(), tc.req)
		if err != nil || receipt.Parts != tc.parts {
			t.Errorf("%s: %v, %d parts, want %d", name, err, receipt.Parts, tc.parts)
		}
		r.wantObject(t, name, content)
	}
	if left := r.recorded(t); len(left) > 0 {
		t.Errorf("the journal has %+v", left[0])
	}
}

// TestPartsOfARunningPush: while it runs a push tells in how many parts it goes, as it
// does in the end.
func TestPartsOfARunningPush(t *testing.T) {
	r := newRig(t)
	r.long()
	held, letGo := make(chan struct{}, 2), make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.HasPrefix(operationOf(req), "UploadPart") {
			held <- struct{}{}
			<-letGo
		}
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", 2*leastPart+1)
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	<-held
	receipt, err := r.Get(t.Context(), id, 0)
	if err != nil || receipt.State != push.Running || receipt.Parts != 2 {
		t.Errorf("%v, receipt %+v", err, receipt)
	}
	close(letGo)
	if receipt := r.ended(t, id, push.Done); receipt.Parts != 2 {
		t.Errorf("receipt %+v", receipt)
	}
}

// TestSmallFileGoesOnAsBegun: what an earlier run has begun in parts goes on so,
// though the file would go as a whole by now.
func TestSmallFileGoesOnAsBegun(t *testing.T) {
	r := newRig(t)
	r.long()
	sent := make(map[string]int)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		operation := operationOf(req)
		r.mu.Lock()
		sent[operation]++
		fails := operation == "UploadPart 2" && sent[operation] <= r.cfg.Attempts
		if sent[operation] == r.cfg.Attempts {
			r.path = func(string) transport.Path { return transport.Path{} }
		}
		r.mu.Unlock()
		if fails {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		next.ServeHTTP(w, req)
	})
	path, content := r.file(t, "f", 2*leastPart+1)
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	receipt := r.ended(t, id, push.Done)
	if r.wantObject(t, "k", content); receipt.Parts != 2 {
		t.Errorf("receipt %+v", receipt)
	}
	want := map[string]int{"CreateMultipartUpload": 1, "UploadPart 1": 1, "UploadPart 2": r.cfg.Attempts + 1, askingParts: 1, completing: 1, asking: 1}
	if fmt.Sprint(sent) != fmt.Sprint(want) {
		t.Errorf("the store was asked for %v, want %v", sent, want)
	}
}

// TestSmallFileOfAnEarlierProcess: an upload that a process before has begun goes on,
// though to this one the file would be small.
func TestSmallFileOfAnEarlierProcess(t *testing.T) {
	r := newRig(t)
	r.long()
	held, over := make(chan struct{}, 1), make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if operationOf(req) == "UploadPart 2" {
			held <- struct{}{}
			<-over
			return
		}
		next.ServeHTTP(w, req)
	})
	path, content := r.file(t, "f", 2*leastPart+1)
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	<-held
	until(t, "the first part is on disk", func() bool {
		parts, err := r.journal.Parts(r.recorded(t)[0])
		return err == nil && len(parts) == 1
	})
	ended, end := context.WithCancel(t.Context())
	end()
	if r.stays = r.Drain(ended); r.stays != 1 {
		t.Fatalf("%d pushes stay", r.stays)
	}
	close(over)
	var again []string
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		r.mu.Lock()
		again = append(again, operationOf(req))
		r.mu.Unlock()
		next.ServeHTTP(w, req)
	})
	next := r.again(t, func(u *Uploader) { u.plan = plan{whole: wholeSize, minPart: minPartSize, split: leastPart} })
	receipt, err := next.Get(t.Context(), id, patience)
	if r.wantObject(t, "k", content); err != nil || receipt.State != push.Done || receipt.Parts != 2 {
		t.Errorf("%v, receipt %+v", err, receipt)
	}
	if want := []string{askingParts, "UploadPart 2", completing, asking}; !slices.Equal(again, want) {
		t.Errorf("the store was asked for %q, want %q", again, want)
	}
}

// TestCompareSmallFileInParts: by its ETag an object is known for the file, in
// however many parts of one size it was sent; for what is of other parts it does not
// tell.
func TestCompareSmallFileInParts(t *testing.T) {
	r := newRig(t)
	r.long()
	path, content := r.file(t, "f", 3*leastPart+7)
	d := r.deliveryOf(t, path)
	etag := func(size int) string {
		var sums []byte
		n := 0
		for part := range slices.Chunk(content, size) {
			sum := md5.Sum(part)
			sums = append(sums, sum[:]...)
			n++
		}
		return fmt.Sprintf("%x-%d", md5.Sum(sums), n)
	}
	for _, tc := range []struct {
		size int
		want standing
	}{
		{(len(content) + 1) / 2, ourObject},
		{len(content)/3 + 1, ourObject},
		{minPartSize, ourObject}, // as others do, and we do with larger ones
		{9 << 20, otherObject},   // of as many parts
		{leastPart, someObject},  // of more than there would be
	} {
		head := &s3.HeadObjectOutput{ETag: aws.String(etag(tc.size)), ContentLength: aws.Int64(int64(len(content)))}
		if s := d.compare(head, nil); s.is != tc.want {
			t.Errorf("%s, of parts of %d bytes: %d, want %d", *head.ETag, tc.size, s.is, tc.want)
		}
	}
}

// TestWhatMayBeCut: what goes in one request on the longest link.
func TestWhatMayBeCut(t *testing.T) {
	r := newRig(t)
	r.long()
	path, _ := r.file(t, "f", 2*leastPart+1)
	for name, tc := range map[string]struct {
		change func(*delivery)
		cut    bool
	}{
		"plain":                     {func(d *delivery) { d.outlook = r.outlook("bucket") }, true},
		"one that nothing is known": {func(*delivery) {}, false},
		"create": {func(d *delivery) {
			d.outlook, d.req.Overwrite = r.outlook("bucket"), new(bool)
		}, false},
		"tagged": {func(d *delivery) {
			d.outlook, d.req.Tags = r.outlook("bucket"), map[string]string{"a": "b"}
		}, false},
		"one whose PutObject may have arrived": {func(d *delivery) {
			d.outlook, d.unclearSince = r.outlook("bucket"), time.Now()
		}, false},
	} {
		d := r.deliveryOf(t, path)
		tc.change(d)
		if cut := d.cut(); (cut > 0) != tc.cut {
			t.Errorf("%s: parts of %d bytes", name, cut)
		}
	}
	r.plan.split = 0
	d := r.deliveryOf(t, path)
	d.outlook = r.outlook("bucket")
	if cut := d.cut(); cut > 0 {
		t.Errorf("none is to be cut: parts of %d bytes", cut)
	}
}

// TestGoesAgain: what goes again at once, and is no attempt.
func TestGoesAgain(t *testing.T) {
	untaken, reused := &transport.BrokenError{Reused: true, Untaken: true}, &transport.BrokenError{Reused: true}
	replaces, creates := new(delivery), &delivery{req: push.Request{Overwrite: new(bool)}}
	for _, tc := range []struct {
		d         *delivery
		operation string
		err       error
		want      bool
	}{
		{replaces, putting, untaken, true}, {replaces, putting, reused, false}, {replaces, putting, nil, false},
		{creates, putting, untaken, false}, {creates, "UploadPart", untaken, true}, {creates, asking, untaken, true},
	} {
		if got := tc.d.goesAgain(tc.operation, tc.err); got != tc.want {
			t.Errorf("create %v, %s: %v", tc.d.condition() != nil, tc.operation, got)
		}
		if tc.operation == putting && tc.err != nil && tc.err == error(untaken) == unclear(tc.err) {
			t.Errorf("%+v: it is unclear whether there is an object: %v", tc.err, unclear(tc.err))
		}
	}
}
