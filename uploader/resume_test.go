package uploader

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/source"
)

// TestWhatFollowsAnUpload has a line for each thing that can be known of the
// upload that an earlier run has left.
func TestWhatFollowsAnUpload(t *testing.T) {
	found := prior{begun: true, fits: true}
	with := func(p prior, change func(*prior)) prior { change(&p); return p }
	known := with(found, func(p *prior) { p.listed = listed })
	asked := with(known, func(p *prior) { p.asked, p.recent = true, true })
	looked := with(asked, func(p *prior) { p.looked = true })
	for _, tc := range []struct {
		name string
		is   prior
		want step
	}{
		{"there is none", prior{}, beginAnew},
		{"it has no id", prior{fits: true}, beginAnew},
		{"it is of something else", prior{begun: true}, beginAnew},
		{"it cannot be completed", with(found, func(p *prior) { p.useless = true }), beginAnew},
		{"it could not be, often", with(asked, func(p *prior) { p.inVain = true }), lookForObject},
		{"and there is no object", with(looked, func(p *prior) { p.inVain = true }), beginAnew},
		{"and there is the object", with(looked, func(p *prior) { p.inVain, p.made = true, true }), nothing},
		{"nothing is known of it yet", found, listParts},
		{"the store was asked to complete it", with(found, func(p *prior) { p.asked = true }), listParts},
		{"the store knows it", known, goOn},
		{"the store does not", with(found, func(p *prior) { p.listed = notThere }), lookForObject}, // an older journal was put back
		{"and has no object", with(found, func(p *prior) { p.listed, p.looked = notThere, true }), beginAnew},
		{"and has the object", with(found, func(p *prior) { p.listed, p.looked, p.made = notThere, true, true }), nothing},
		{"the store does not say", with(found, func(p *prior) { p.listed = notAllowed }), goOn},
		{"asked to complete, and known", asked, lookForObject},
		{"asked to complete, and not known", with(asked, func(p *prior) { p.listed = notThere }), lookForObject},
		{"asked to complete, and not told", with(asked, func(p *prior) { p.listed = notAllowed }), lookForObject},
		{"the object is there", with(looked, func(p *prior) { p.made = true }), nothing},
		{"and the upload is not", with(looked, func(p *prior) { p.made, p.listed = true, notThere }), nothing},
		{"neither is there, yet", with(looked, func(p *prior) { p.listed = notThere }), letItBe}, // some stores forget the upload first
		{"neither is there", with(looked, func(p *prior) { p.recent, p.listed = false, notThere }), beginAnew},
		{"no object yet", looked, letItBe},
		{"no object after a while", with(looked, func(p *prior) { p.recent = false }), goOn},
		{"no object after a while, and not told", with(looked, func(p *prior) { p.recent, p.listed = false, notAllowed }), goOn},
	} {
		if got := tc.is.next(); got != tc.want {
			t.Errorf("%s: step %d, want %d", tc.name, got, tc.want)
		}
	}
}

// TestWhichUploadFits changes one thing of an upload at a time.
func TestWhichUploadFits(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 3*testPart)
	d := r.deliveryOf(t, path)
	d.forget()
	for name, tc := range map[string]struct {
		change func(*journal.Upload)
		fits   bool
	}{
		"as it was begun":      {func(*journal.Upload) {}, true},
		"other parts":          {func(up *journal.Upload) { up.PartSize = testPart + 1 }, true},
		"one part":             {func(up *journal.Upload) { up.PartSize = 3 * testPart }, false},
		"too many parts":       {func(up *journal.Upload) { up.PartSize = 3*testPart/10_001 - 1 }, false},
		"no part size":         {func(up *journal.Upload) { up.PartSize = 0 }, false},
		"another name":         {func(up *journal.Upload) { up.Store += "x" }, true},
		"another bucket":       {func(up *journal.Upload) { up.Bucket += "x" }, false},
		"another key":          {func(up *journal.Upload) { up.Key += "x" }, false},
		"other checksums":      {func(up *journal.Upload) { up.Checksum = "md5" }, false},
		"another size":         {func(up *journal.Upload) { up.Size++ }, false},
		"another time":         {func(up *journal.Upload) { up.ModTime = up.ModTime.Add(1) }, false},
		"touched since":        {func(up *journal.Upload) { up.ChangedAt = up.ChangedAt.Add(-1) }, false},
		"of an earlier record": {func(up *journal.Upload) { up.ChangedAt = time.Time{} }, true},
		"another inode":        {func(up *journal.Upload) { up.Inode++ }, false},
		"inodes of two disks":  {func(up *journal.Upload) { up.Inode++; up.Device++ }, true},
	} {
		up := d.newUpload()
		tc.change(up)
		if got := d.fits(up); got != tc.fits {
			t.Errorf("%s: fits is %v", name, got)
		}
	}
}

// deliveryOf returns what a run of a push of the file has before its first
// request.
func (r *rig) deliveryOf(t *testing.T, path string) *delivery {
	t.Helper()
	file, err := source.New(source.Rules{}).Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &delivery{
		up: r.Uploader, id: push.NewID(time.Now(), 0, [8]byte{1}), req: push.Request{File: path, Destination: "s3://bucket/k"},
		dest: push.Destination{Bucket: "bucket", Key: "k"}, file: file,
	}
}

// TestPartsAreListedInPages: an upload of more parts than a store tells at once
// goes on with those that were recorded and that the store has alike.
func TestPartsAreListedInPages(t *testing.T) {
	const each, parts, page = 1 << 10, 2345, 1000
	r := newRig(t)
	path, _ := r.file(t, "f", each*parts)
	d := r.deliveryOf(t, path)
	d.partSize = each
	up := d.newUpload()
	up.ID = "u"
	r.journal.PutUpload(up, nil)
	for n := int32(1); n <= parts; n++ {
		if n != 7 { // which arrived, and nobody heard of it
			r.journal.PutPart(up, &journal.Part{Number: n, Size: each, ETag: fmt.Sprint("etag", n), CRC64NVME: uint64(n), Algorithm: "md5", By: byDaemon}, nil)
		}
	}
	var pages []string
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		query := req.URL.Query()
		after, _ := strconv.Atoi(query.Get("part-number-marker"))
		pages = append(pages, query.Get("part-number-marker"))
		fmt.Fprintf(w, "<ListPartsResult><UploadId>%s</UploadId>", query.Get("uploadId"))
		last := min(after+page, parts)
		for n := after + 1; n <= last; n++ {
			etag, size := fmt.Sprint("etag", n), each
			switch n {
			case 1001: // of which the store has another
				etag = "etag0"
			case 2001:
				size--
			case 2345:
				continue
			}
			fmt.Fprintf(w, `<Part><PartNumber>%d</PartNumber><ETag>"%s"</ETag><Size>%d</Size></Part>`, n, etag, size)
		}
		fmt.Fprintf(w, "<NextPartNumberMarker>%d</NextPartNumberMarker><IsTruncated>%v</IsTruncated></ListPartsResult>", last, last < parts)
	})
	if done, err := d.takeUp(t.Context()); done || err != nil || d.upload == nil || d.upload.ID != "u" || d.partSize != each {
		t.Fatalf("%v, %v, upload %+v in parts of %d", done, err, d.upload, d.partSize)
	}
	if fmt.Sprint(pages) != "[ 1000 2000]" {
		t.Errorf("pages after %q", pages)
	}
	for n := 1; n <= parts; n++ {
		missing := n == 7 || n == 1001 || n == 2001 || n == 2345
		if p := d.partOf(int32(n)); (p.size == 0) != missing || !missing && p.ours.crc != uint64(n) {
			t.Errorf("part %d is %+v", n, p)
		}
	}
	if n := d.sent.bytes(); n != each*(parts-4) {
		t.Errorf("%d bytes count as sent", n)
	}
}

// TestResumeWithoutList: a store that does not list parts to us is believed to
// have those of the record, once; each way of saying so is no failure.
func TestResumeWithoutList(t *testing.T) {
	for name, tc := range map[string]struct {
		status int
		body   string
		want   listing
		fails  bool
	}{
		"denied":               {403, "<Error><Code>AccessDenied</Code></Error>", notAllowed, false},
		"not allowed":          {405, "<Error><Code>MethodNotAllowed</Code></Error>", notAllowed, false},
		"not implemented":      {501, "<Error><Code>NotImplemented</Code></Error>", notAllowed, false},
		"of another upload":    {200, "<ListPartsResult><UploadId>v</UploadId></ListPartsResult>", notAllowed, false},
		"no such upload":       {404, "<Error><Code>NoSuchUpload</Code></Error>", notThere, false},
		"no such key":          {404, "<Error><Code>NoSuchKey</Code></Error>", notThere, false},
		"nothing of that name": {404, "<html>not found</html>", notListed, true},
		"not found, no body":   {404, "", notListed, true},
		"no such bucket":       {404, "<Error><Code>NoSuchBucket</Code></Error>", notListed, true},
		"not now":              {503, "<Error><Code>SlowDown</Code></Error>", notListed, true},
		"wrong credentials":    {403, "<Error><Code>InvalidAccessKeyId</Code></Error>", notListed, true},
		"nothing that S3 says": {200, "", notAllowed, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			path, _ := r.file(t, "f", 2*testPart)
			d := r.deliveryOf(t, path)
			d.forget()
			d.upload = d.newUpload()
			d.upload.ID = "u"
			d.parts[0] = sentPart{size: testPart, etag: "e"}
			r.spoil(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				w.WriteHeader(tc.status)
				fmt.Fprint(w, tc.body)
			})
			got, err := d.listParts(t.Context())
			if got != tc.want || (err != nil) != tc.fails || tc.fails && name != "no such bucket" && !transient(err) {
				t.Errorf("%d, %v; want %d", got, err, tc.want)
			}
			if got != listed && d.parts[0].size == 0 {
				t.Error("the record of a part is forgotten")
			}
		})
	}
}

// TestEndlessLists: a list without an end is read no further than any store needs,
// and not at all once the daemon stops.
func TestEndlessLists(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 2*testPart)
	d := r.deliveryOf(t, path)
	d.forget()
	d.upload = d.newUpload()
	d.upload.ID = "u"
	d.parts[0] = sentPart{size: testPart, etag: "e"}
	pages, stopAt := 0, -1
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		if pages++; pages == stopAt {
			r.mu.Lock()
			r.leaveRestLocked()
			r.mu.Unlock()
		}
		if req.URL.Query().Has("uploads") {
			fmt.Fprintf(w, "<ListMultipartUploadsResult><NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>%d</NextUploadIdMarker><IsTruncated>true</IsTruncated></ListMultipartUploadsResult>", pages)
			return
		}
		fmt.Fprintf(w, "<ListPartsResult><UploadId>u</UploadId><NextPartNumberMarker>%d</NextPartNumberMarker><IsTruncated>true</IsTruncated></ListPartsResult>", pages)
	})
	if got, err := d.listParts(t.Context()); got != notAllowed || err != nil || pages != mostPages || d.parts[0].size == 0 {
		t.Errorf("parts: %d, %v after %d pages; the record has %+v", got, err, pages, d.parts[0])
	}
	pages = 0
	if _, err := r.janitor.list(t.Context(), d); err == nil || pages != mostPages {
		t.Errorf("uploads: %v after %d pages", err, pages)
	}
	pages, stopAt = 0, 7
	if _, err := d.listParts(t.Context()); !errors.Is(err, errLeaving) || pages != stopAt {
		t.Errorf("parts: %v, %d pages where the daemon leaves after %d", err, pages, stopAt)
	}
	pages = 0
	if _, err := r.janitor.list(t.Context(), d); !errors.Is(err, errLeaving) || pages != 1 {
		t.Errorf("uploads: %v, %d pages after the daemon left", err, pages)
	}
}

// TestPartIsKept: what is known of a part is the same after a restart.
func TestPartIsKept(t *testing.T) {
	for _, have := range []algorithms{withCRC, withCRC | withMD5, withCRC | withSHA256} {
		want := sentPart{size: 5, etag: "e", ours: digests{have: have, crc: 7}, proof: proof{"md5", byStore}, told: have == withCRC}
		if have&withMD5 != 0 {
			want.ours.md5[3] = 1
		}
		if have&withSHA256 != 0 {
			want.ours.sha256[3] = 1
		}
		if got := sentPartOf(want.record(9)); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// TestResumeAfterFailure: a push whose parts fail for good in one run has only
// those sent in the next that had not arrived; and one whose record is of other
// parts than the plan's goes on in those.
func TestResumeAfterFailure(t *testing.T) {
	r := newRig(t)
	parts, begun := make(map[string]int), 0
	failing := true
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		number := req.URL.Query().Get("partNumber")
		r.mu.Lock()
		parts[number]++
		if req.URL.Query().Has("uploads") {
			begun++
		}
		fails := failing && number == "3"
		if parts["3"] == r.cfg.Attempts {
			failing = false
			r.plan.minPart = 2 * testPart // as another version may have it
		}
		r.mu.Unlock()
		if fails {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		next.ServeHTTP(w, req)
	})
	path, content := r.file(t, "f", 4*testPart)
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	receipt, err := r.Get(t.Context(), id, time.Minute)
	if err != nil || receipt.State != push.Done || receipt.Parts != 4 || receipt.Checksum == nil || *receipt.Checksum != r.checksumOf(path) {
		t.Errorf("%v, receipt %+v", err, receipt)
	}
	r.wantObject(t, "k", content)
	if begun != 1 || parts["1"] != 1 || parts["2"] != 1 || parts["3"] != r.cfg.Attempts+1 {
		t.Errorf("%d uploads, and the parts were sent %v times", begun, parts)
	}
	if left := r.recorded(t); len(left) > 0 {
		t.Errorf("the journal has %+v", left[0])
	}
}

// TestRewrittenBetweenRuns: a file that is rewritten in place between two runs, by
// one who keeps its size and sets its modification time back, begins anew.
func TestRewrittenBetweenRuns(t *testing.T) {
	r := newRig(t)
	path, content := r.file(t, "f", 4*testPart)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.URL.Query().Get("partNumber") == "3" {
			<-req.Context().Done()
			return
		}
		next.ServeHTTP(w, req)
	})
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	until(t, "other parts have arrived", func() bool {
		left := r.recorded(t)
		if len(left) == 0 {
			return false
		}
		parts, err := r.journal.Parts(left[0])
		return err == nil && len(parts) > 1
	})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if r.stays = r.Drain(over); r.stays != 1 {
		t.Fatalf("%d pushes stay", r.stays)
	}
	before := r.recorded(t)[0]

	for i := range content {
		content[i] ^= 0xff
	}
	rewriteInSecret(t, path, content)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) { next.ServeHTTP(w, req) })
	next := r.again(t)
	if receipt, err := next.Get(t.Context(), id, patience); err != nil || receipt.State != push.Done {
		t.Errorf("%v, receipt %+v", err, receipt)
	}
	r.wantObject(t, "k", content)
	until(t, "what was begun before is given up", func() bool { return !r.inJournal(t, before) })
	if left := r.uploadsLeft(t); len(left) > 0 {
		t.Errorf("the store has the uploads %q", left)
	}
}

// rewriteInSecret gives a file other bytes, so that nothing but the time of the
// inode's change shows it, of which that is another then.
func rewriteInSecret(t *testing.T, path string, content []byte) {
	t.Helper()
	was := stateOf(t, path)
	for is := was; is.ChangedAt.Equal(was.ChangedAt); is = stateOf(t, path) { // until the kernel's clock has ticked
		err := errors.Join(os.WriteFile(path, content, 0), os.Chtimes(path, time.Time{}, was.ModTime))
		if err != nil || !stateOf(t, path).Same(was) {
			t.Errorf("%v, the file is %+v, was %+v", err, stateOf(t, path), was)
			return
		}
	}
}

func stateOf(t *testing.T, path string) source.Identity {
	t.Helper()
	f, err := source.New(source.Rules{}).Open(context.Background(), path)
	if err != nil {
		t.Error(err)
		return source.Identity{}
	}
	defer f.Close()
	return f.Identity()
}

// TestDrainAtPartBoundaries: once the daemon stops, no part begins that would not
// end in time; those under way end, and the push stays in the journal.
func TestDrainAtPartBoundaries(t *testing.T) {
	r := newRig(t)
	arrived, hold := make(chan struct{}, 100), make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.URL.Query().Has("partNumber") {
			arrived <- struct{}{}
			<-hold
		}
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", 20*testPart)
	r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	for range 3 { // all that parts may have of 4 slots
		<-arrived
	}
	// These take longer than is left, however fast this is.
	soon := time.Now().Add(time.Millisecond)
	r.cutOffAt.Store(&soon)
	until(t, "it is too late for another part", func() bool { return !r.timeFor(0) })
	close(hold)
	r.stays = 1
	if stay := r.Drain(t.Context()); stay != 1 {
		t.Errorf("%d pushes stay", stay)
	}
	left := r.recorded(t)
	if len(left) != 1 {
		t.Fatalf("the journal has %d uploads", len(left))
	}
	if parts, err := r.journal.Parts(left[0]); err != nil || len(parts) != 3 || len(arrived) != 0 {
		t.Errorf("%v, the journal has %d parts of 3, %d more were begun", err, len(parts), len(arrived))
	}
	if n := testutil.ToFloat64(r.metrics.requests.WithLabelValues("UploadPart", "error")); n != 0 {
		t.Errorf("%v requests are counted that were never made", n)
	}
}

// TestRecordGoesFirst: whatever the store has of an upload, the journal on disk
// knows before: that it is to be begun, its id before its first part, and all its
// parts before it is completed.
func TestRecordGoesFirst(t *testing.T) {
	r := newRig(t)
	path, content := r.file(t, "f", 3*testPart)
	onDiskNow := func() (up journal.Upload, parts int) {
		err := r.journal.EachUpload(func(u *journal.Upload) error { up = *u; return nil })
		if err != nil {
			t.Error(err)
		}
		all, err := r.journal.Parts(&up)
		if err != nil {
			t.Error(err)
		}
		return up, len(all)
	}
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		up, parts := onDiskNow()
		switch op, _, _ := strings.Cut(operationOf(req), " "); op {
		case "CreateMultipartUpload":
			if up.BegunAt.IsZero() || up.ID != "" {
				t.Errorf("when the store is asked for an upload the journal has %+v", up)
			}
		case "UploadPart":
			if up.ID == "" || !up.CompletedAt.IsZero() {
				t.Errorf("when a part is sent the journal has %+v", up)
			}
		case completing:
			if up.CompletedAt.IsZero() || parts != 3 {
				t.Errorf("when it is completed the journal has %+v and %d parts", up, parts)
			}
		}
		next.ServeHTTP(w, req)
	})
	if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}); err != nil {
		t.Fatal(err)
	}
	r.wantObject(t, "k", content)
}

// TestPageComesAgain: a store that sends the same page for ever is asked twice.
func TestPageComesAgain(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 3*testPart)
	d := r.deliveryOf(t, path)
	d.forget()
	d.upload = d.newUpload()
	d.upload.ID = "u"
	pages := 0
	r.spoil(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		pages++
		fmt.Fprintf(w, "<ListPartsResult><UploadId>u</UploadId><NextPartNumberMarker>1</NextPartNumberMarker><IsTruncated>%v</IsTruncated></ListPartsResult>", pages < 10)
	})
	if got, err := d.listParts(t.Context()); got != listed || err != nil || pages != 2 {
		t.Errorf("%d, %v after %d pages", got, err, pages)
	}
}

// TestTakeUpOfACompleted: an upload that the store was asked to complete, and that
// it does not know any more, has become the object that is there only if that was
// written since; and nothing is sent before the store has said what is there.
func TestTakeUpOfACompleted(t *testing.T) {
	for name, tc := range map[string]struct {
		begun  time.Duration // after the object was written
		status int           // of the answer about the object; 0: the store's own
		older  bool          // the journal is, which was put back and knows of no completion
		done   bool
		fails  bool
	}{
		"it was written since":      {begun: -time.Minute, done: true},
		"it is older":               {begun: time.Minute},
		"the journal was put back":  {begun: -time.Minute, older: true, done: true},
		"so it was, it is older":    {begun: time.Minute, older: true},
		"the store may not tell us": {begun: -time.Minute, status: 403},
		"the store does not answer": {begun: -time.Minute, status: 503, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Attempts = 1 })
			path, _ := r.file(t, "f", 1000)
			d := r.deliveryOf(t, path)
			if _, err := r.Push(t.Context(), d.req); err != nil {
				t.Fatal(err)
			}
			d.partSize = 400
			up := d.newUpload()
			up.ID, up.BegunAt, up.CompletedAt = "no-such-upload", time.Now().Add(tc.begun), time.Now().Add(-time.Minute)
			if tc.older {
				up.CompletedAt = time.Time{}
			}
			r.journal.PutUpload(up, nil)
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if operationOf(req) == asking && tc.status != 0 {
					w.WriteHeader(tc.status)
					return
				}
				next.ServeHTTP(w, req)
			})
			done, err := d.takeUp(t.Context())
			if done != tc.done || (err != nil) != tc.fails {
				t.Fatalf("done %v, %v", done, err)
			}
			if over := d.got.over; done && (!d.stored || over == nil || over.ID != up.ID || d.got.parts != 3) {
				t.Errorf("it amounts to %+v, stored %v", d.got, d.stored)
			}
			if !done && !tc.fails && d.upload != nil {
				t.Errorf("it goes on with %+v", d.upload)
			}
		})
	}
}

// TestRecallKeepsWhatFits: a part of another size than the file has there is none.
func TestRecallKeepsWhatFits(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 1000)
	d := r.deliveryOf(t, path)
	d.partSize = 400
	up := d.newUpload()
	r.journal.PutUpload(up, nil)
	for number, size := range map[int32]int64{1: 399, 2: 400, 3: 200, 4: 400} {
		r.journal.PutPart(up, &journal.Part{Number: number, Size: size, ETag: "e"}, nil)
	}
	if err := onDisk(t.Context(), r.journal.Barrier); err != nil {
		t.Fatal(err)
	}
	if err := d.recall(up); err != nil {
		t.Fatal(err)
	}
	if n, bytes := d.delivered(); len(d.parts) != 3 || n != 2 || bytes != 600 || d.partOf(1).size != 0 {
		t.Errorf("%d of %d parts with %d bytes are there: %+v", n, len(d.parts), bytes, d.parts)
	}
}

// TestOlderObjectOfParts: an object of the same bytes that was there before does
// not count as what an unclear completion has made.
func TestOlderObjectOfParts(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", testPart+1)
	request := push.Request{File: path, Destination: "s3://bucket/k"}
	if _, err := r.Push(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	completions := 0
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		switch operationOf(req) {
		case asking:
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, req)
			maps.Copy(w.Header(), answer.Header())
			w.Header().Set("Last-Modified", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
			return
		case completing:
			if completions++; completions == 1 {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
		}
		next.ServeHTTP(w, req)
	})
	if _, err := r.Push(t.Context(), request); err != nil || completions != 2 {
		t.Errorf("%v after %d completions, want 2", err, completions)
	}
}

// TestResumeByAnotherName: a file goes on where the store's address is written in
// another way, if the store shows that it is the same by a part of ours.
func TestResumeByAnotherName(t *testing.T) {
	for name, tc := range map[string]struct {
		etag string // of the part that the store lists
		want string // the upload that the run goes on with
	}{
		"the same store": {"e", "u"},
		"another store":  {"other", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			path, _ := r.file(t, "f", 2*testPart)
			d := r.deliveryOf(t, path)
			d.forget()
			up := d.newUpload()
			up.ID, up.Store = "u", "http://localhost"
			r.journal.PutUpload(up, nil)
			r.journal.PutPart(up, &journal.Part{Number: 1, Size: testPart, ETag: "e", CRC64NVME: 1, Algorithm: "md5", By: byDaemon}, nil)
			r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
				if operationOf(req) == asking {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				fmt.Fprintf(w, `<ListPartsResult><UploadId>u</UploadId><Part><PartNumber>1</PartNumber><ETag>%s</ETag><Size>%d</Size></Part></ListPartsResult>`, tc.etag, testPart)
			})
			got := ""
			if done, err := d.takeUp(t.Context()); done || err != nil {
				t.Fatal(done, err)
			}
			if d.upload != nil {
				got = d.upload.ID
			}
			if parts, _ := d.delivered(); got != tc.want || (parts == 1) != (tc.want != "") {
				t.Errorf("it goes on with %q and %d parts", got, parts)
			}
			if d.upload != nil && d.upload.Store != r.name {
				t.Errorf("the upload is at %s still", d.upload.Store)
			}
		})
	}
}

// TestCompletionIsRecordedAnew: a completion that had to wait is asked for once its
// record is a new one, and on disk.
func TestCompletionIsRecordedAnew(t *testing.T) {
	r := newRig(t)
	path, content := r.file(t, "f", 2*testPart)
	d := r.deliveryOf(t, path)
	asked := make(chan struct{}, 1)
	var refused, held atomic.Bool
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		switch {
		case operationOf(req) != completing:
		case refused.CompareAndSwap(false, true):
			d.recordedAt = time.Now().Add(-recordHolds - time.Second)
			stuck := make(chan struct{})
			held.Store(true)
			r.journal.Barrier(func() { // the writer calls it, and writes nothing meanwhile
				close(stuck)
				select {
				case <-asked:
				case <-time.After(200 * time.Millisecond): // for a request that must not come
				}
				held.Store(false)
			})
			<-stuck
			w.WriteHeader(http.StatusTooManyRequests)
			return
		default:
			if held.Load() {
				t.Error("the store is asked to complete an upload, and that is not on disk")
			}
			asked <- struct{}{}
		}
		next.ServeHTTP(w, req)
	})
	if _, err := d.inParts(t.Context()); err != nil {
		t.Error(err)
	}
	r.wantObject(t, "k", content)
	if n := testutil.ToFloat64(r.metrics.requests.WithLabelValues(completing, "error")); n != 0 {
		t.Errorf("%v requests are counted that were never made", n)
	}
}

// TestIntentIsRecordedAnew: an upload is begun once the intent on disk is a new one,
// since from then on it is looked for. The one that had to wait goes, unless an upload
// may have been begun by it.
func TestIntentIsRecordedAnew(t *testing.T) {
	for name, lost := range map[string]bool{"nothing was begun": false, "an id was lost": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			path, _ := r.file(t, "f", 2*testPart)
			d := r.deliveryOf(t, path)
			d.forget()
			old := func() {
				d.recordedAt = time.Now().Add(-recordHolds - time.Second)
				r.slots.inUse() // takes its lock: the run sees the time before it goes on
			}
			var intents []*journal.Upload // each time that the store is asked
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if req.Method == http.MethodPost { // a list of them is the janitor's
					intents = r.recorded(t)
					if lost && len(intents) == 1 {
						old()
						panic(http.ErrAbortHandler)
					}
				}
				next.ServeHTTP(w, req)
			})
			var first []*journal.Upload
			var turns [4]turn
			if !lost {
				for i := range turns {
					if err := r.slots.acquire(t.Context(), &turns[i], single); err != nil {
						t.Fatal(err)
					}
				}
			}
			ended := make(chan error, 1)
			go func() {
				_, err := d.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &d.dest.Bucket, Key: &d.dest.Key})
				ended <- err
			}()
			if !lost {
				until(t, "the intent is on disk", func() bool { first = r.recorded(t); return len(first) == 1 })
				old()
				for i := range turns {
					r.slots.release(&turns[i], single)
				}
			}
			if err := <-ended; err != nil || d.upload.ID == "" {
				t.Errorf("%v, upload %+v", err, d.upload)
			}
			if lost && (len(intents) != 2 || !intents[0].BegunAt.Before(intents[1].BegunAt)) || !lost && (len(intents) != 1 || !first[0].BegunAt.Before(intents[0].BegunAt)) {
				t.Errorf("when the store was asked, the journal had %+v", intents)
			}
		})
	}
}

// TestUploadIsGivenUp: where the completion of an upload fails unclearly again and
// again, the file goes by another one.
func TestUploadIsGivenUp(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	var sick string
	completed := make(map[string]int)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if operationOf(req) == completing {
			id := req.URL.Query().Get("uploadId")
			mu.Lock()
			sick = cmp.Or(sick, id)
			completed[id]++
			mu.Unlock()
			if id == sick {
				fails(w)
				return
			}
		}
		next.ServeHTTP(w, req)
	})
	path, content := r.file(t, "f", 2*testPart)
	r.ended(t, r.later(t, push.Request{File: path, Destination: "s3://bucket/k"}), push.Done)
	r.wantObject(t, "k", content)
	if len(completed) != 2 || completed[sick] != r.cfg.Attempts {
		t.Errorf("the uploads were completed %v times", completed)
	}
}

// TestCompletionIsLetBe: after a completion without an answer the push goes back to
// the queue, and no further one is made before its time, whoever comes to wait; once
// the object is there the push is done.
func TestCompletionIsLetBe(t *testing.T) {
	r := newRig(t)
	r.retry.completes = time.Hour
	var completed, looks atomic.Int32
	var later atomic.Pointer[func()]
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		switch operationOf(req) {
		case completing:
			completed.Add(1)
			body, _ := io.ReadAll(req.Body)
			again := req.Clone(context.WithoutCancel(req.Context()))
			again.Body = io.NopCloser(bytes.NewReader(body))
			complete := func() { next.ServeHTTP(httptest.NewRecorder(), again) }
			later.Store(&complete)
			breaksOff(w)
			return
		case asking:
			looks.Add(1)
		}
		next.ServeHTTP(w, req)
	})
	path, content := r.file(t, "f", 2*testPart)
	request := push.Request{File: path, Destination: "s3://bucket/k"}
	receipt, err := r.Uploader.Push(t.Context(), request, push.Options{IdempotencyKey: "key"})
	if err != nil {
		t.Fatal(err)
	}
	id := parseID(t, receipt.ID)
	waits := func() bool {
		receipt, _ = r.Get(t.Context(), id, 0)
		return receipt.State == push.Queued && !receipt.RetryAt.IsZero()
	}
	until(t, "the push waits", waits)
	if left := time.Until(receipt.RetryAt); left < longestSettling-time.Minute {
		t.Errorf("it goes on in %v", left)
	}
	// Somebody who waits has it looked for again, and no more.
	before := looks.Load()
	r.Uploader.Push(t.Context(), request, push.Options{IdempotencyKey: "key", Wait: time.Millisecond})
	until(t, "another look", func() bool { return looks.Load() > before })
	until(t, "the push waits again", waits)
	if left := time.Until(receipt.RetryAt); left < longestSettling-time.Minute || receipt.Attempts != 1 || completed.Load() != 1 {
		t.Errorf("then it goes on in %v, %d attempts, %d completions", left, receipt.Attempts, completed.Load())
	}
	(*later.Load())()
	receipt, err = r.Uploader.Push(t.Context(), request, push.Options{IdempotencyKey: "key", Wait: push.Forever})
	if err != nil || receipt.State != push.Done || completed.Load() != 1 {
		t.Errorf("%v, %+v after %d completions", err, receipt, completed.Load())
	}
	r.wantObject(t, "k", content)
}

// TestCancelledWhileLetBe: a push is not called cancelled that the store may still be
// completing.
func TestCancelledWhileLetBe(t *testing.T) {
	r := newRig(t)
	r.retry.completes = time.Hour
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if operationOf(req) == completing {
			breaksOff(w)
			return
		}
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", 2*testPart)
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	until(t, "the push waits", func() bool {
		receipt, _ := r.Get(t.Context(), id, 0)
		return receipt.State == push.Queued && !receipt.RetryAt.IsZero()
	})
	receipt, err := r.Cancel(t.Context(), id)
	wantCode(t, err, push.PushEnded)
	if receipt.State != push.Failed {
		t.Errorf("%+v", receipt)
	}
}

// TestTwinUploads: of two pushes of one file to one object the second does not take
// the first one's object for its own when its completion ends unclearly, and leaves
// no upload.
func TestTwinUploads(t *testing.T) {
	r := newRig(t)
	r.retry.apart = writtenSlack + time.Second
	var completed atomic.Int32
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if operationOf(req) == completing && completed.Add(1) == 2 {
			io.Copy(io.Discard, req.Body)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		next.ServeHTTP(w, req)
	})
	path, content := r.file(t, "f", 2*testPart)
	for range 2 {
		r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	}
	until(t, "both are over", func() bool { queued, running := r.depth(); return queued+running == 0 })
	r.wantObject(t, "k", content)
	if n := completed.Load(); n != 3 {
		t.Errorf("%d completions, want one of the first upload and two of the second", n)
	}
}

// TestUploadStandsApart: after an upload that was completed, and wrongly, another one
// is begun only when their objects can be told by their age.
func TestUploadStandsApart(t *testing.T) {
	r := newRig(t)
	r.retry.apart = 200 * time.Millisecond
	var completed, begun atomic.Pointer[time.Time]
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		now := time.Now()
		switch operationOf(req) {
		case "CreateMultipartUpload":
			if completed.Load() != nil {
				begun.Store(&now)
			}
		case completing:
			if completed.Load() == nil {
				rec := httptest.NewRecorder()
				next.ServeHTTP(rec, req)
				now = time.Now()
				completed.Store(&now)
				end := "</CompleteMultipartUploadResult>"
				io.WriteString(w, strings.Replace(rec.Body.String(), end, "<ChecksumCRC64NVME>AAAAAAAAAAA=</ChecksumCRC64NVME>"+end, 1))
				return
			}
		}
		next.ServeHTTP(w, req)
	})
	path, content := r.file(t, "f", 2*testPart)
	if _, err := r.Uploader.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}, push.Options{Wait: push.Forever}); err != nil {
		t.Fatal(err)
	}
	r.wantObject(t, "k", content)
	if begun.Load() == nil {
		t.Fatal("no other upload was begun")
	}
	if apart := begun.Load().Sub(*completed.Load()); apart < r.retry.apart {
		t.Errorf("the other upload was begun %v after the first was completed, want %v", apart, r.retry.apart)
	}
}
