package uploader

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/crc64nvme"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

func TestOwnUpload(t *testing.T) {
	at := func(n int) time.Time { return time.Unix(1000, int64(n)) }
	uploads := func(times ...int) (all []journal.Upload) {
		for _, n := range times {
			all = append(all, journal.Upload{BegunAt: at(n)})
		}
		return all
	}
	probe := append(uploads(3), journal.Upload{BegunAt: at(4), Probe: true})
	for name, tc := range map[string]struct {
		push    *journal.Record
		uploads []journal.Upload
		want    int // -1: none
	}{
		"none was begun":              {&journal.Record{State: push.Queued}, nil, -1},
		"the newest":                  {&journal.Record{State: push.Queued}, uploads(3, 4), 1},
		"done":                        {&journal.Record{State: push.Done}, uploads(3, 4), -1},
		"failed":                      {&journal.Record{State: push.Failed}, uploads(3), -1},
		"not in the history":          {nil, uploads(3), -1},
		"put back since":              {&journal.Record{State: push.Queued, RetriedAt: at(5)}, uploads(3, 4), -1},
		"begun after it was put back": {&journal.Record{State: push.Queued, RetriedAt: at(4)}, uploads(3, 4), 1},
		"a question to the store":     {&journal.Record{State: push.Queued}, probe, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var want *journal.Upload
			if tc.want >= 0 {
				want = &tc.uploads[tc.want]
			}
			if got := ownUpload(tc.push, tc.uploads); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// TestPutBackDoesNotGoOn: what was begun before a push was put back may be aborted
// at that very moment, and some stores lose an object whose upload is completed
// meanwhile. So its run does not go on with that, and what it begins is its own
// even if the clock was set back.
func TestPutBackDoesNotGoOn(t *testing.T) {
	j, err := journal.Open(t.Context(), journal.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	r := &journal.Record{ID: push.ID{1}, State: push.Queued}
	d := &delivery{up: &Uploader{journal: j}, id: r.ID}
	begun := &journal.Upload{Push: r.ID, BegunAt: d.nextBegunAt(), ID: "first"}
	j.PutUpload(begun, nil)
	if last, err := d.lastUpload(t.Context()); err != nil || last == nil || last.ID != "first" {
		t.Fatalf("a run goes on with %+v, %v", last, err)
	}

	r.RetriedAt = time.Now().Add(time.Hour).UTC()
	d = &delivery{up: d.up, id: r.ID, retriedAt: r.RetriedAt}
	if last, err := d.lastUpload(t.Context()); err != nil || last != nil {
		t.Errorf("the run of a push that was put back goes on with %+v, %v", last, err)
	}
	j.PutUpload(&journal.Upload{Push: r.ID, BegunAt: d.nextBegunAt(), ID: "second"}, nil)
	last, err := d.lastUpload(t.Context())
	if err != nil || last == nil || last.ID != "second" {
		t.Errorf("the run goes on with %+v, %v", last, err)
	}
	uploads, err := j.Uploads(r.ID)
	if own := ownUpload(r, uploads); err != nil || own == nil || own.ID != "second" {
		t.Errorf("of %+v, %+v is its own, %v", uploads, own, err)
	}
}

func TestDuty(t *testing.T) {
	now := time.Now()
	for name, tc := range map[string]struct {
		upload journal.Upload
		want   duty
	}{
		"its id is known":                {journal.Upload{Store: "here", ID: "x"}, give},
		"its completion was asked for":   {journal.Upload{Store: "here", ID: "x", CompletedAt: now}, ask},
		"its id is not known":            {journal.Upload{Store: "here"}, search},
		"a question to the store":        {journal.Upload{Store: "here", Probe: true, CompletedAt: now}, clean},
		"another store has it":           {journal.Upload{Store: "there", ID: "x"}, spare},
		"another store may have made it": {journal.Upload{Store: "there"}, spare},
	} {
		if got := dutyOf(&tc.upload, "here"); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

// TestPostponed: the pauses grow to an hour, and only what is old and was tried
// that often is given up.
func TestPostponed(t *testing.T) {
	now := time.Now()
	young, old := &journal.Upload{BegunAt: now.Add(-time.Hour)}, &journal.Upload{BegunAt: now.Add(-8 * 24 * time.Hour)}
	var p postponed
	var sum time.Duration
	for p.tries < enoughTries {
		if p.hopeless(old, now) {
			t.Errorf("given up after %d tries", p.tries)
		}
		p.again(now)
		if pause := p.due.Sub(now); pause < firstPause || pause > time.Hour+time.Second {
			t.Errorf("after %d tries it waits for %v", p.tries, pause)
		} else {
			sum += pause
		}
	}
	if last := p.due.Sub(now); last < time.Hour || sum < time.Hour {
		t.Errorf("the last pause is %v, all are %v", last, sum)
	}
	p.tries = 1000
	p.again(now)
	if p.due.Sub(now) < time.Hour || !p.hopeless(old, now) || p.hopeless(young, now) {
		t.Errorf("%+v", p)
	}
}

func TestStoreClock(t *testing.T) {
	at := func(s float64) time.Time { return time.UnixMilli(1_000_000_000_000 + int64(1000*s)) }
	type answer struct{ sent, came, date float64 }
	for name, tc := range map[string]struct {
		answers []answer
		want    time.Duration
	}{
		"nothing is known":                   {nil, 0},
		"alike":                              {[]answer{{5.2, 5.4, 5}}, 0},
		"alike, at a second's end":           {[]answer{{5.9, 6.1, 6}}, 0},
		"an hour ahead":                      {[]answer{{5.2, 5.4, 3605}}, 3600*time.Second - 400*time.Millisecond},
		"an hour behind":                     {[]answer{{5.2, 5.4, -3595}}, -3600*time.Second - 400*time.Millisecond},
		"alike, with a Date of a second ago": {[]answer{{5.7, 5.7, 4}}, 0},
		"behind by more than a second, which not all answers show": {[]answer{{5.7, 5.7, 4}}, 0},
		"and one does": {[]answer{{5.7, 5.7, 4}, {6.6, 6.6, 4}}, -1700 * time.Millisecond},
		"it was set":   {[]answer{{5.2, 5.4, 3605}, {6.2, 6.4, 6}}, 0},
	} {
		var c storeClock
		for _, a := range tc.answers {
			c.note(at(a.sent), at(a.came), at(a.date))
		}
		if got := c.ahead(time.Second); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// TestSearchByTheClock: an upload whose id nobody heard is found wherever the store's
// clock stands, also a little off ours, before the search is given up; what somebody
// else had begun a second before stays.
func TestSearchByTheClock(t *testing.T) {
	for _, took := range []time.Duration{time.Millisecond, 200 * time.Millisecond} {
		for off := -1500 * time.Millisecond; off <= 1500*time.Millisecond; off += 100 * time.Millisecond {
			for phase := range 20 {
				intent := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC).Add(time.Duration(phase) * 50 * time.Millisecond)
				at := func(after time.Duration) *time.Time {
					return aws.Time(intent.Add(after + off).Truncate(time.Millisecond))
				}
				listed := []types.MultipartUpload{{UploadId: aws.String("ours"), Initiated: at(took/2 + 3*time.Millisecond)}, {UploadId: aws.String("early"), Initiated: at(-time.Second)}}
				var c storeClock
				var p postponed
				found, others := false, false
				for now := intent.Add(took); now.Sub(intent) < creationTakes; now = p.due {
					c.note(now, now.Add(took), now.Add(took/2+off).Truncate(time.Second))
					ids := unheard(listed, nil, intent, c)
					found, others = found || slices.Contains(ids, "ours"), others || slices.Contains(ids, "early")
					p.again(now.Add(took))
				}
				if !found || others && off == 0 {
					t.Fatalf("the store's clock is %v off, answers take %v: found %v, another's %v", off, took, found, others)
				}
			}
		}
	}
}

// TestUnheard: what was begun before the intent, and what is known, is nobody's to
// abort.
func TestUnheard(t *testing.T) {
	intent := time.Date(2026, 11, 26, 10, 0, 5, 600_000_000, time.UTC)
	listed := func(times ...string) (all []types.MultipartUpload) {
		for _, text := range times {
			at, err := time.Parse("5.999", text)
			if err != nil {
				t.Fatal(err)
			}
			at = time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC).Add(time.Duration(at.Second())*time.Second + time.Duration(at.Nanosecond()))
			all = append(all, types.MultipartUpload{UploadId: &text, Initiated: &at})
		}
		return all
	}
	exact := storeClock{known: true, lo: 0, hi: time.Second}
	for name, tc := range map[string]struct {
		listed []types.MultipartUpload
		clock  storeClock
		want   []string
	}{
		"whole seconds":             {listed("3", "4", "5", "6"), exact, []string{"5", "6"}},
		"milliseconds":              {listed("4.2", "5.599", "5.600", "6"), exact, []string{"5.600", "6"}},
		"the store's clock is fast": {listed("5.9", "15.1", "15.7"), storeClock{known: true, lo: 10 * time.Second, hi: 11 * time.Second}, []string{"15.7"}},
		"the store's clock is slow": {listed("1.1", "2.7", "5.9"), storeClock{known: true, lo: -3 * time.Second, hi: -2 * time.Second}, []string{"2.7", "5.9"}},
		"its clock is not known":    {listed("1", "6"), storeClock{}, []string{"1", "6"}},
		"one is known":              {listed("7", "8"), exact, []string{"7"}},
		"without an id or a time":   {[]types.MultipartUpload{{UploadId: aws.String("x")}, {Initiated: aws.Time(intent.Add(time.Hour))}}, exact, nil},
	} {
		if got := unheard(tc.listed, []journal.Upload{{ID: ""}, {ID: "8"}}, intent, tc.clock); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

// begin begins an upload past the daemon, perhaps with a part.
func (r *rig) begin(t *testing.T, key string, parts ...[]byte) string {
	t.Helper()
	out, err := r.client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("bucket"), Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range parts {
		_, err := r.client.UploadPart(t.Context(), &s3.UploadPartInput{
			Bucket: aws.String("bucket"), Key: &key, UploadId: out.UploadId, PartNumber: aws.Int32(int32(i + 1)), Body: strings.NewReader(string(p)),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return *out.UploadId
}

// uploadsLeft returns the ids of all uploads that the store has.
func (r *rig) uploadsLeft(t *testing.T) (ids []string) {
	t.Helper()
	out, err := r.client.ListMultipartUploads(context.Background(), &s3.ListMultipartUploadsInput{Bucket: aws.String("bucket")})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range out.Uploads {
		ids = append(ids, aws.ToString(u.UploadId))
	}
	return ids
}

// orphan puts an upload into the journal that no push goes on with.
func (r *rig) orphan(t *testing.T, key, id string, change ...func(*journal.Upload)) *journal.Upload {
	t.Helper()
	up := &journal.Upload{Push: push.NewID(time.Now(), 0, [8]byte{byte(len(key))}), BegunAt: time.Now(), Store: r.name, Bucket: "bucket", Key: key, ID: id}
	for _, f := range change {
		f(up)
	}
	done := make(chan struct{})
	r.journal.PutUpload(up, func() { close(done) })
	<-done
	return up
}

// inJournal reports whether the journal has the upload.
func (r *rig) inJournal(t *testing.T, up *journal.Upload) bool {
	t.Helper()
	found, err := r.journal.Uploads(up.Push)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(found, func(f journal.Upload) bool { return nameOf(&f) == nameOf(up) })
}

// TestJanitorAborts: what the journal knows and no push goes on with is aborted,
// at the start and later, and nothing else.
func TestJanitorAborts(t *testing.T) {
	r := newRig(t)
	foreign := []string{r.begin(t, "k"), r.begin(t, "k", []byte("part")), r.begin(t, "k/x")}
	first, second := r.begin(t, "k", []byte("part")), r.begin(t, "other")
	r.Drain(t.Context())
	orphans := []*journal.Upload{r.orphan(t, "k", first), r.orphan(t, "gone", "no-such-upload")}
	next := r.again(t)
	settled := func() bool {
		return !slices.ContainsFunc(orphans, func(o *journal.Upload) bool { return r.inJournal(t, o) })
	}
	until(t, "those of an earlier process", settled)
	orphans = append(orphans, r.orphan(t, "other", second))
	next.janitor.wake()
	until(t, "those of later", settled)
	if left := r.uploadsLeft(t); !sameSet(left, foreign) {
		t.Errorf("the store has the uploads %q, want %q", left, foreign)
	}
	if n := testutil.ToFloat64(next.metrics.aborts); n != 2 {
		t.Errorf("%v aborts counted", n)
	}
	for _, id := range []string{first, second} {
		if n := strings.Count(r.log.String(), fmt.Sprintf(`"upload_id":%q`, id)); n != 1 {
			t.Errorf("the log has upload %s %d times", id, n)
		}
	}
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// TestJanitorTriesAgain: an abort that fails is repeated, not at each wake.
func TestJanitorTriesAgain(t *testing.T) {
	r := newRig(t)
	id := r.begin(t, "k")
	var asked atomic.Int32
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodDelete && asked.Add(1) < 3 {
			refuse(500)(w, req, next)
			return
		}
		next.ServeHTTP(w, req)
	})
	o, begun := r.orphan(t, "k", id), time.Now()
	until(t, "an abort", func() bool {
		r.janitor.wake()
		return !r.inJournal(t, o)
	})
	if took := time.Since(begun); asked.Load() != 3 || took < 3*firstPause {
		t.Errorf("aborted after %d requests in %v", asked.Load(), took)
	}
	if left := r.uploadsLeft(t); len(left) > 0 {
		t.Errorf("the store has the uploads %q", left)
	}
}

// TestCompletedInTheFuture: where the clock was set back after a completion was asked
// for, that has its time from when this process saw it first, and no longer.
func TestCompletedInTheFuture(t *testing.T) {
	r := newRig(t)
	j := newJanitor(r.Uploader)
	o := r.orphan(t, "k", r.begin(t, "k", []byte("part")), func(up *journal.Upload) { up.CompletedAt = time.Now().Add(5 * time.Hour) })
	j.remember([]journal.Upload{*o})
	seen := *o
	if j.visit(&seen); len(r.uploadsLeft(t)) != 1 {
		t.Error("it was aborted at the first sight")
	}
	p := j.later[nameOf(o)]
	p.seen, p.due = time.Now().Add(-completionTakes), time.Time{}
	seen = *o
	if j.visit(&seen); len(r.uploadsLeft(t)) != 0 {
		t.Error("it was not aborted after an hour")
	}
}

// TestJanitorIsRefused: a store that refuses the aborts in one bucket is not asked
// about each of its orphans, those of another are aborted all the same, and once the
// store allows it all are.
func TestJanitorIsRefused(t *testing.T) {
	r := newRig(t)
	if _, err := r.client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("other")}); err != nil {
		t.Fatal(err)
	}
	var refused atomic.Int32
	var allowed atomic.Bool
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodDelete && strings.HasPrefix(req.URL.Path, "/bucket/") && !allowed.Load() {
			refused.Add(1)
			refuse(403)(w, req, next)
			return
		}
		next.ServeHTTP(w, req)
	})
	begun := time.Now()
	for n := range 50 {
		key := fmt.Sprint(n)
		r.orphan(t, key, r.begin(t, key))
	}
	elsewhere := r.orphan(t, "k", "no-such-upload", func(up *journal.Upload) { up.Bucket = "other" })
	r.janitor.wake()
	until(t, "the other bucket's", func() bool { return !r.inJournal(t, elsewhere) })
	r.janitor.wake()
	most := enoughRefusals + 1 // and one more after each pause
	for pause := firstPause; pause < time.Since(begun); pause *= 2 {
		most++
	}
	if n := int(refused.Load()); n < enoughRefusals || n > most {
		t.Errorf("the store has refused %d aborts, want %d to %d", n, enoughRefusals, most)
	}
	allowed.Store(true)
	until(t, "all are aborted", func() bool { return len(r.uploadsLeft(t)) == 0 && len(r.recorded(t)) == 0 })
	r.Drain(t.Context()) // so that nobody writes to the log
	if n := strings.Count(r.log.String(), `"waiting"`); n != 1 {
		t.Errorf("the log tells %d times that uploads are left for now", n)
	}
}

// TestJanitorSearches: of an upload whose id nobody heard it aborts what was
// begun since, of exactly that key, that nobody goes on with.
func TestJanitorSearches(t *testing.T) {
	r := newRig(t)
	early := r.begin(t, "k")
	for begun := time.Now(); time.Since(begun) < 2*time.Millisecond; { // the store keeps times to the millisecond
		runtime.Gosched()
	}
	ours := r.orphan(t, "k", "")
	stay := []string{early, r.begin(t, "k2"), r.begin(t, "k/x"), r.begin(t, "K"), r.begin(t, "k", []byte("somebody is at it"))}
	lost, again := r.begin(t, "k"), r.begin(t, "k")
	named := r.begin(t, "k")
	r.orphan(t, "k", named, func(up *journal.Upload) { r.conditions.probes.Store(nameOf(up), nil) }) // so that it stays
	r.janitor.wake()
	stay = append(stay, named)
	until(t, "the search", func() bool {
		left := r.uploadsLeft(t)
		return !slices.Contains(left, lost) && !slices.Contains(left, again)
	})
	if left := r.uploadsLeft(t); !sameSet(left, stay) {
		t.Errorf("the store has the uploads %q, want %q", left, stay)
	}
	// Another may appear yet: the request for it may still be on its way.
	late := r.begin(t, "k")
	until(t, "the next search", func() bool { return !slices.Contains(r.uploadsLeft(t), late) })
	if left := r.uploadsLeft(t); !sameSet(left, stay) {
		t.Errorf("after the next search the store has the uploads %q, want %q", left, stay)
	}
	if !r.inJournal(t, ours) {
		t.Error("nobody looks any more, so soon")
	}
}

// TestSearchWithoutClock: where no answer tells the store's time, nothing shows
// whose an upload is, and none is aborted.
func TestSearchWithoutClock(t *testing.T) {
	r := newRig(t)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		w.Header()["Date"] = nil // none is added either
		next.ServeHTTP(w, req)
	})
	id := r.begin(t, "k")
	intent := journal.Upload{Push: push.NewID(time.Now(), 0, [8]byte{}), BegunAt: time.Now().Add(-time.Minute), Store: r.name, Bucket: "bucket", Key: "k"}
	d := &delivery{up: r.Uploader, dest: push.Destination{Bucket: "bucket", Key: "k"}}
	search := func() error {
		return r.janitor.clear(t.Context(), d, []journal.Upload{intent}, func() bool { return true })
	}
	if err := search(); !errors.Is(err, errNoClock) || !slices.Contains(r.uploadsLeft(t), id) {
		t.Errorf("%v, the store has %q", err, r.uploadsLeft(t))
	}
	r.fault.Store(nil)
	if err := search(); err != nil || len(r.uploadsLeft(t)) != 0 {
		t.Errorf("with a clock: %v, the store has %q", err, r.uploadsLeft(t))
	}
}

// TestJanitorSearchesOnAfterAStart: an intent of an earlier process may have waited
// for long until the store was asked, so its age alone does not end the search.
func TestJanitorSearchesOnAfterAStart(t *testing.T) {
	r := newRig(t)
	r.Drain(t.Context()) // which ends the janitor
	o := r.orphan(t, "k", "", func(up *journal.Upload) { up.BegunAt = time.Now().Add(-creationTakes) })
	d := &delivery{up: r.Uploader, dest: push.Destination{Bucket: "bucket", Key: "k"}}
	if err := r.janitor.searchFor(t.Context(), d, o); !errors.Is(err, errTooEarly) {
		t.Errorf("just after the start: %v", err)
	}
	r.janitor.begun = time.Now().Add(-creationTakes)
	if err := r.janitor.searchFor(t.Context(), d, o); err != nil {
		t.Errorf("later: %v", err)
	}
}

// TestJanitorStopsSearching: after some time no upload can appear any more.
func TestJanitorStopsSearching(t *testing.T) {
	r := newRig(t)
	r.janitor.begun = time.Now().Add(-time.Hour)
	lost := r.begin(t, "k") // first: the janitor may look at once
	o := r.orphan(t, "k", "", func(up *journal.Upload) { up.BegunAt = time.Now().Add(-creationTakes) })
	r.janitor.wake()
	until(t, "the end of the search", func() bool { return !r.inJournal(t, o) })
	if left := r.uploadsLeft(t); len(left) > 0 {
		t.Errorf("the store has the uploads %q of which one was %s", left, lost)
	}
}

// TestJanitorLeavesToTheRun: while a push to the object is in the queue, its run
// may be beginning an upload of which nothing is known yet.
func TestJanitorLeavesToTheRun(t *testing.T) {
	r := newRig(t)
	var lists atomic.Int32
	g := r.hold(t, true, pass)
	path, _ := r.file(t, "f", 100)
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	<-g.arrived
	held := *r.fault.Load()
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		switch {
		case req.URL.Query().Has("uploads") && req.Method == http.MethodGet:
			lists.Add(1)
			next.ServeHTTP(w, req)
		case req.URL.Query().Has("uploads") || req.URL.Query().Has("uploadId"):
			next.ServeHTTP(w, req)
		default:
			held(w, req, next)
		}
	})
	o := r.orphan(t, "k", "")
	lost := r.begin(t, "k")
	d := &delivery{up: r.Uploader, dest: push.Destination{Bucket: "bucket", Key: "k"}}
	if err := r.janitor.searchFor(t.Context(), d, o); !errors.Is(err, errTooEarly) || lists.Load() != 0 {
		t.Errorf("%v, and %d lists", err, lists.Load())
	}
	// The run itself knows what it does.
	if err := d.clearIntents(t.Context()); err != nil || slices.Contains(r.uploadsLeft(t), lost) {
		t.Errorf("%v, and the store has the upload", err)
	}
	g.let()
	r.ended(t, id, push.Done)
}

// TestClearAsksWhetherItMay: a push may have come while the store was asked for its
// uploads, and what it has begun since is its own.
func TestClearAsksWhetherItMay(t *testing.T) {
	r := newRig(t)
	r.Drain(t.Context()) // which ends the janitor
	o := r.orphan(t, "k", "")
	begun := ""
	d := &delivery{up: r.Uploader, dest: push.Destination{Bucket: "bucket", Key: "k"}}
	lists := 0
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if lists++; begun == "" {
			r.spoil(pass)
			begun = r.begin(t, "k")
		}
		next.ServeHTTP(w, req)
	})
	may := func() bool { return begun == "" }
	if err := r.janitor.clear(t.Context(), d, []journal.Upload{*o}, may); !errors.Is(err, errTooEarly) || lists != 1 {
		t.Errorf("%v after %d lists", err, lists)
	}
	if left := r.uploadsLeft(t); !slices.Equal(left, []string{begun}) {
		t.Errorf("the store has the uploads %q, want %q", left, begun)
	}
}

// TestRemovedVersions: of the versions listed those of exactly the key are deleted.
func TestRemovedVersions(t *testing.T) {
	r := newRig(t)
	var deleted []string
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		if req.Method == http.MethodDelete {
			deleted = append(deleted, req.URL.Path+" "+req.URL.Query().Get("versionId"))
			w.WriteHeader(http.StatusNoContent)
			return
		}
		io.WriteString(w, "<ListVersionsResult>")
		for _, kind := range []string{"Version", "DeleteMarker"} {
			for _, key := range []string{"k", "k/x"} {
				fmt.Fprintf(w, "<%s><Key>%s</Key><VersionId>%s of %s</VersionId></%s>", kind, key, kind, key, kind)
			}
		}
		io.WriteString(w, "</ListVersionsResult>")
	})
	d := &delivery{up: r.Uploader, dest: push.Destination{Bucket: "bucket", Key: "k"}}
	if err := d.deleteVersions(t.Context()); err != nil {
		t.Error(err)
	}
	if want := []string{"/bucket/k Version of k", "/bucket/k DeleteMarker of k"}; !slices.Equal(deleted, want) {
		t.Errorf("deleted are %q, want %q", deleted, want)
	}
}

// TestClearIntentsAsksForNothing: a run that has nothing to clear costs no request.
func TestClearIntentsAsksForNothing(t *testing.T) {
	r := newRig(t)
	r.Drain(t.Context()) // which ends the janitor
	r.orphan(t, "k2", "")
	r.orphan(t, "k", "no-such-upload")
	r.orphan(t, "k", "", func(up *journal.Upload) { up.Store = "another" })
	r.spoil(func(http.ResponseWriter, *http.Request, http.Handler) { t.Error("a request") })
	d := &delivery{up: r.Uploader, dest: push.Destination{Bucket: "bucket", Key: "k"}}
	if err := d.clearIntents(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestJanitorAndCompletions: an upload whose completion was asked for is aborted
// only where that cannot harm an object.
func TestJanitorAndCompletions(t *testing.T) {
	r := newRig(t)
	content := strings.Repeat("x", 1000)
	sum := md5.Sum([]byte(content))
	part := journal.Part{Number: 1, Size: 1000, ETag: hex.EncodeToString(sum[:]), CRC64NVME: crc64nvme.Checksum([]byte(content)), MD5: sum[:]}
	long := time.Now().Add(-completionTakes - time.Second)
	made := func(key string) { r.madeOf(t, key, content, part.ETag) }
	type outcome int
	const (
		waits outcome = iota
		aborted
	)
	for _, tc := range []struct {
		name      string
		completed time.Time
		before    func(key string)
		want      outcome
	}{
		{"a moment ago", time.Now(), func(string) {}, waits},
		{"long ago, and there is no object", long, func(string) {}, aborted},
		{"long ago, and the object is another", long, func(key string) { r.store.Put("bucket", key, []byte("another")) }, aborted},
		{"long ago, and the object may be of it", long, made, waits},
	} {
		t.Run(tc.name, func(t *testing.T) {
			key := "k/" + tc.name
			tc.before(key)
			id := r.begin(t, key, []byte(content))
			o := r.orphan(t, key, id, func(up *journal.Upload) { up.CompletedAt, up.Size, up.Probe = tc.completed, 1000, false })
			done := make(chan struct{})
			r.journal.PutPart(o, &part, func() { close(done) })
			<-done
			d := &delivery{up: r.Uploader, dest: push.Destination{Bucket: "bucket", Key: key}}
			err := d.abortUnlessCompleted(t.Context(), o)
			if left := slices.Contains(r.uploadsLeft(t), id); left != (tc.want == waits) || (err == nil) != (tc.want == aborted) {
				t.Errorf("%v, left: %v", err, left)
			}
		})
	}
	// One that the store does not know was completed, or never will be.
	o := r.orphan(t, "k", "no-such-upload", func(up *journal.Upload) { up.CompletedAt = time.Now() })
	r.janitor.wake()
	until(t, "it to be dropped", func() bool { return !r.inJournal(t, o) })
}

// madeOf makes an object of an upload of one part, and returns its ETag.
func (r *rig) madeOf(t *testing.T, key, content, etag string) string {
	t.Helper()
	id := r.begin(t, key, []byte(content))
	out, err := r.client.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: aws.String("bucket"), Key: &key, UploadId: &id,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: &etag}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return bareETag(aws.ToString(out.ETag))
}

// TestJanitorAndLaterPushes: an object that an upload may have been completed to is
// a later push's if that has replaced it, and nobody has written it since.
func TestJanitorAndLaterPushes(t *testing.T) {
	const content = "what both were to deliver"
	sum := md5.Sum([]byte(content))
	part := journal.Part{Number: 1, Size: int64(len(content)), ETag: hex.EncodeToString(sum[:]), CRC64NVME: crc64nvme.Checksum([]byte(content)), MD5: sum[:], Algorithm: "md5", By: byDaemon}
	asked := time.Now().Add(-completionTakes - time.Minute) // of the orphan, to be completed
	type later struct {
		record  journal.Record // of the later push
		written time.Time      // when the object was, by the store
		earlier bool           // it was accepted before the orphan's
		has     bool           // an upload in the journal
		hidden  bool           // the orphan, by the store
	}
	for name, tc := range map[string]struct {
		change  func(*later)
		aborted bool
	}{
		"it replaced the object":         {func(*later) {}, true},
		"and somebody else did so since": {func(l *later) { l.written = time.Now() }, false},
		"the object is an older one":     {func(l *later) { l.written = asked.Add(-time.Minute) }, false},
		"the object is another":          {func(l *later) { l.record.ETag = "x-1" }, false},
		"it failed":                      {func(l *later) { l.record.State = push.Failed }, false},
		"it is to another object":        {func(l *later) { l.record.Request.Destination += "x" }, false},
		"it may have found the object":   {func(l *later) { l.record.Request.Overwrite = new(bool) }, false},
		"it ended before that was asked": {func(l *later) { l.record.FinishedAt = asked.Add(-time.Second) }, false},
		"it was accepted before":         {func(l *later) { l.earlier = true }, false},
		"it has left an upload itself":   {func(l *later) { l.has = true }, false},
		"the orphan is not shown":        {func(l *later) { l.hidden = true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			l := later{written: asked.Add(20 * time.Second), record: journal.Record{
				State: push.Queued, Request: push.Request{File: "/f", Destination: "s3://bucket/k"}, ETag: r.madeOf(t, "k", content, part.ETag),
			}}
			r.journal.Accept(&l.record, func(error) {})
			l.record.State, l.record.AcceptedAt, l.record.FinishedAt = push.Done, asked.Add(10*time.Second), asked.Add(30*time.Second)
			tc.change(&l)
			r.journal.End(&l.record, nil)
			o := &journal.Upload{Push: push.NewID(time.Now().Add(-time.Hour), 0, [8]byte{}), BegunAt: asked, Store: r.name, Bucket: "bucket", Key: "k", Size: part.Size, CompletedAt: asked}
			if l.earlier {
				o.Push = push.NewID(time.Now().Add(time.Hour), 0, [8]byte{})
			}
			o.ID = r.begin(t, "k", []byte(content))
			if l.has {
				r.journal.PutUpload(&journal.Upload{Push: l.record.ID, BegunAt: asked, Store: r.name, Bucket: "bucket", Key: "k"}, nil)
			}
			r.journal.PutUpload(o, nil)
			r.journal.PutPart(o, &part, nil)
			if err := onDisk(t.Context(), r.journal.Barrier); err != nil {
				t.Fatal(err)
			}
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if req.Method == http.MethodGet && l.hidden {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				if req.Method != http.MethodHead {
					next.ServeHTTP(w, req)
					return
				}
				answer := httptest.NewRecorder()
				next.ServeHTTP(answer, req)
				maps.Copy(w.Header(), answer.Header())
				w.Header().Set("Last-Modified", l.written.UTC().Format(http.TimeFormat))
				w.WriteHeader(answer.Code)
			})
			d := &delivery{up: r.Uploader, dest: push.Destination{Bucket: "bucket", Key: "k"}}
			err := d.abortUnlessCompleted(t.Context(), o)
			r.fault.Store(nil)
			if left := slices.Contains(r.uploadsLeft(t), o.ID); left == tc.aborted || (err == nil) != tc.aborted {
				t.Errorf("%v, left: %v", err, left)
			}
		})
	}
}

// TestJanitorAndETags: an object may be what an upload was completed to unless its
// ETag shows that it is another, as one may do that is known not to be encrypted.
func TestJanitorAndETags(t *testing.T) {
	content := strings.Repeat("x", 1000)
	sum := md5.Sum([]byte(content))
	part := journal.Part{Number: 1, Size: 1000, ETag: hex.EncodeToString(sum[:]), CRC64NVME: crc64nvme.Checksum([]byte(content)), MD5: sum[:], Algorithm: "md5", By: byDaemon}
	plain, encrypted := new(push.Request), &push.Request{Encryption: byKMS}
	other := strings.Repeat("0", 32)
	for name, tc := range map[string]struct {
		request *push.Request // nil: the push has left the history
		etag    string
		aborted bool
	}{
		"of as many parts":                            {plain, other + "-1", true},
		"of as many parts, encrypted":                 {encrypted, other + "-1", false},
		"of as many parts, and nobody knows the push": {nil, other + "-1", false},
		"of other parts":                              {plain, other + "-7", false},
		"made in another way":                         {plain, "x", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			id := r.begin(t, "k", []byte(content))
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if req.Method == http.MethodHead {
					w.Header().Set("Content-Length", "1000")
					w.Header().Set("Etag", tc.etag)
					return
				}
				next.ServeHTTP(w, req)
			})
			o := &journal.Upload{
				Push: push.NewID(time.Now(), 0, [8]byte{1}), BegunAt: time.Now(), Store: r.name, Bucket: "bucket", Key: "k", ID: id,
				Size: 1000, CompletedAt: time.Now().Add(-completionTakes - time.Second),
			}
			if tc.request != nil {
				tc.request.File, tc.request.Destination = "/f", "s3://bucket/k"
				kept := &journal.Record{State: push.Queued, Request: *tc.request}
				r.journal.Accept(kept, func(error) {})
				o.Push = kept.ID
			}
			r.journal.PutUpload(o, nil)
			r.journal.PutPart(o, &part, nil)
			if err := onDisk(t.Context(), r.journal.Barrier); err != nil {
				t.Fatal(err)
			}
			d := &delivery{up: r.Uploader, dest: push.Destination{Bucket: "bucket", Key: "k"}}
			err := d.abortUnlessCompleted(t.Context(), o)
			if left := len(r.uploadsLeft(t)) == 1; left == tc.aborted || (err == nil) != tc.aborted {
				t.Errorf("%v, left: %v", err, left)
			}
		})
	}
}

// TestStoreByAnotherName: what was begun when the store had another name is aborted
// if this store knows it; else it stays known, be it to come back.
func TestStoreByAnotherName(t *testing.T) {
	r := newRig(t)
	elsewhere := func(up *journal.Upload) { up.Store = "another" }
	long := func(up *journal.Upload) { up.CompletedAt = time.Now().Add(-completionTakes - time.Second) }
	aborted := []*journal.Upload{
		r.orphan(t, "k", r.begin(t, "k"), elsewhere),
		r.orphan(t, "kk", r.begin(t, "kk"), elsewhere, long),
	}
	stay := []*journal.Upload{
		r.orphan(t, "kkk", "no-such-upload", elsewhere),
		r.orphan(t, "kkkk", "no-such-upload", elsewhere, long),
		r.orphan(t, "kkkkk", "", elsewhere),
	}
	for _, o := range append(stay, aborted...) {
		r.janitor.settle(o, new(postponed))
	}
	if err := onDisk(t.Context(), r.journal.Barrier); err != nil {
		t.Fatal(err)
	}
	if left := r.uploadsLeft(t); len(left) > 0 || r.inJournal(t, aborted[0]) || r.inJournal(t, aborted[1]) {
		t.Errorf("what this store has is not aborted: %q", left)
	}
	for _, o := range stay {
		if n := strings.Count(r.log.String(), fmt.Sprintf(`"key":%q`, o.Key)); !r.inJournal(t, o) || n == 0 {
			t.Errorf("%s: what this store does not know is forgotten, or nobody hears of it", o.Key)
		}
	}
}

// TestJanitorGivesUp: what nothing can be done about for a week is left, with a
// word of it.
func TestJanitorGivesUp(t *testing.T) {
	r := newRig(t)
	r.spoil(refuse(403))
	old := time.Now().Add(-orphansKept - time.Second)
	for name, o := range map[string]*journal.Upload{
		"abort":  {ID: "upload-1", Store: r.name},
		"search": {Store: r.name},
		"spare":  {ID: "upload-3", Store: "another"},
	} {
		o.Push, o.Bucket, o.Key = push.NewID(time.Now(), 1, [8]byte{}), "bucket", name
		for _, tc := range []struct {
			begun time.Time
			tries int
			kept  bool
		}{{old, 0, true}, {time.Now(), enoughTries, true}, {old, enoughTries, false}} {
			o.BegunAt = tc.begun
			up := r.orphan(t, "", "", func(up *journal.Upload) { *up = *o })
			r.janitor.settle(up, &postponed{tries: tc.tries})
			done := make(chan struct{})
			r.journal.Barrier(func() { close(done) })
			<-done
			if kept := r.inJournal(t, up); kept != tc.kept {
				t.Errorf("%s, begun %v, after %d tries: kept %v", name, tc.begun, tc.tries, kept)
			}
			r.journal.DropUpload(up, nil)
		}
		if !strings.Contains(r.log.String(), fmt.Sprintf(`"key":%q`, name)) || !strings.Contains(r.log.String(), "left behind") {
			t.Errorf("%s: the log has %s", name, r.log.String())
		}
	}
}

// TestJanitorAndOutages: while the store is away it is not asked for this either,
// which does not hold up the end of the daemon; when it is back, what had to wait
// is done.
func TestJanitorAndOutages(t *testing.T) {
	r := newRig(t)
	id := r.begin(t, "k")
	r.endpoint.lost(io.ErrUnexpectedEOF)
	o := r.orphan(t, "k", id)
	r.janitor.wake()
	until(t, "the abort, since the store answers again", func() bool { return !r.inJournal(t, o) })
	if left := r.uploadsLeft(t); len(left) > 0 {
		t.Errorf("the store has the uploads %q", left)
	}
	r.endpoint.ask = func(context.Context) error { return io.ErrUnexpectedEOF }
	r.endpoint.lost(io.ErrUnexpectedEOF)
	r.orphan(t, "k", "some-upload")
	r.janitor.wake()
	begun := time.Now()
	if r.Drain(t.Context()); time.Since(begun) > 5*time.Second {
		t.Errorf("the end took %v", time.Since(begun))
	}
}

// TestJanitorCleansUp: what a question of an earlier process has made goes, with
// its object; one of this process is left to that.
func TestJanitorCleansUp(t *testing.T) {
	r := newRig(t)
	probe := func(up *journal.Upload) {
		up.Probe = true
		r.conditions.probes.Store(nameOf(up), nil)
	}
	id := r.begin(t, "probe-1", []byte("x"))
	r.begin(t, "probe-2", []byte("x"))
	own := r.orphan(t, "probe-3", "own", probe)
	orphans := []*journal.Upload{r.orphan(t, "probe-1", id, probe), r.orphan(t, "probe-2", "", probe)}
	for _, key := range []string{"probe-1", "probe-2"} {
		if err := r.store.Put("bucket", key, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	other := r.orphan(t, "k", "no-such-upload")
	r.janitor.wake()
	until(t, "a round", func() bool { return !r.inJournal(t, other) })
	r.Drain(t.Context())
	if !r.inJournal(t, own) || len(r.uploadsLeft(t)) != 2 {
		t.Errorf("questions that are under way are disturbed: %q", r.uploadsLeft(t))
	}
	r.journal.DropUpload(own, nil)
	left := func() bool {
		_, first := r.store.Get("bucket", "probe-1")
		_, second := r.store.Get("bucket", "probe-2")
		return len(r.uploadsLeft(t)) > 0 || first == nil || second == nil
	}
	next := r.again(t)
	until(t, "the end", func() bool { return !left() })
	// What was under way when the earlier process was killed may come after that.
	if err := r.store.Put("bucket", "probe-1", nil); err != nil {
		t.Fatal(err)
	}
	r.begin(t, "probe-2")
	until(t, "the end of what comes late", func() bool { return !left() })
	for _, o := range orphans {
		if !r.inJournal(t, o) {
			t.Error("nobody looks any more, so soon")
		}
	}

	// After some time nothing comes any more.
	o, later := orphans[0], newJanitor(next)
	o.BegunAt, later.begun = time.Now().Add(-creationTakes), time.Now().Add(-creationTakes)
	if err := later.cleanUp(t.Context(), &delivery{up: next, dest: push.Destination{Bucket: o.Bucket, Key: o.Key}}, o); err != nil {
		t.Error(err)
	}
}

// TestJanitorCleansUpAllItCan: what it may not do keeps nothing else, and is not
// forgotten.
func TestJanitorCleansUpAllItCan(t *testing.T) {
	for _, may := range []string{"list", "delete"} {
		t.Run(may, func(t *testing.T) {
			r := newRig(t)
			if err := r.store.Put("bucket", "probe", nil); err != nil {
				t.Fatal(err)
			}
			id := r.begin(t, "probe")
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				lists, removes := req.Method == http.MethodGet, req.Method == http.MethodDelete && !req.URL.Query().Has("uploadId")
				if lists && may != "list" || removes && may != "delete" {
					refuseWith(w, http.StatusForbidden, "AccessDenied")
					return
				}
				next.ServeHTTP(w, req)
			})
			o := &journal.Upload{Store: r.name, Bucket: "bucket", Key: "probe", Probe: true}
			err := r.janitor.cleanUp(t.Context(), &delivery{up: r.Uploader, dest: push.Destination{Bucket: o.Bucket, Key: o.Key}}, o)
			if !denied(err) {
				t.Errorf("%v, want that something was denied", err)
			}
			_, there := r.store.Get("bucket", "probe")
			r.spoil(serve)
			if listed := slices.Contains(r.uploadsLeft(t), id); listed != (may != "list") || (there == nil) != (may != "delete") {
				t.Errorf("the store has the upload: %v, and the object: %v", listed, there == nil)
			}
		})
	}
}

// TestNothingToRemove: an object that the store says is not there is removed; one
// of which something else says so is not.
func TestNothingToRemove(t *testing.T) {
	for body, removed := range map[string]bool{"<Error><Code>NoSuchKey</Code></Error>": true, "<html>": false} {
		r := newRig(t)
		r.spoil(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, body)
		})
		d := &delivery{up: r.Uploader, dest: push.Destination{Bucket: "bucket", Key: "k"}}
		if err := d.removeObject(t.Context()); (err == nil) != removed {
			t.Errorf("404 with %s: %v", body, err)
		}
	}
}

// TestCreationAnsweredAfterAll has the store begin an upload and say something
// else: whatever that is, nothing is left.
func TestCreationAnsweredAfterAll(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"SlowDown": func(w http.ResponseWriter) {
			w.WriteHeader(503)
			io.WriteString(w, "<Error><Code>SlowDown</Code></Error>")
		},
		"500":      func(w http.ResponseWriter) { w.WriteHeader(500) },
		"reset":    func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"no id":    func(w http.ResponseWriter) { io.WriteString(w, "<InitiateMultipartUploadResult/>") },
		"too many": func(w http.ResponseWriter) { w.WriteHeader(429) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			var once atomic.Bool
			r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if req.Method == http.MethodPost && req.URL.Query().Has("uploads") && once.CompareAndSwap(false, true) {
					next.ServeHTTP(discard{make(http.Header)}, req)
					answer(w)
					return
				}
				next.ServeHTTP(w, req)
			})
			path, content := r.file(t, "f", testPart+1)
			id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
			r.ended(t, id, push.Done)
			r.wantObject(t, "k", content)
			until(t, "the lost upload to be aborted", func() bool { return len(r.uploadsLeft(t)) == 0 })
		})
	}
}

// TestListOfAKey: of a list in pages those of exactly the key are taken, and a page
// that comes again ends it.
func TestListOfAKey(t *testing.T) {
	r := newRig(t) // whose janitor has nothing to ask for
	const upload = "<Upload><Key>%s</Key><UploadId>%s</UploadId></Upload>"
	pages := 0
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		pages++
		io.WriteString(w, "<ListMultipartUploadsResult>")
		switch q := req.URL.Query(); q.Get("key-marker") + "/" + q.Get("upload-id-marker") {
		case "/":
			fmt.Fprintf(w, upload+upload, "k", "1", "k", "2")
			io.WriteString(w, "<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>2</NextUploadIdMarker>")
		default:
			fmt.Fprintf(w, upload+upload, "k", "3", "k/x", "4")
			io.WriteString(w, "<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>3</NextUploadIdMarker>")
		}
		fmt.Fprintf(w, "<IsTruncated>%v</IsTruncated></ListMultipartUploadsResult>", pages < 10)
	})
	d := &delivery{up: r.Uploader, dest: push.Destination{Bucket: "bucket", Key: "k"}}
	listed, err := r.janitor.list(t.Context(), d)
	var ids []string
	for _, l := range listed {
		ids = append(ids, aws.ToString(l.UploadId))
	}
	if want := []string{"1", "2", "3", "3"}; err != nil || !slices.Equal(ids, want) || pages != 3 {
		t.Errorf("%q in %d pages, %v, want %q in 3", ids, pages, err, want)
	}
}

// TestRunClearsIntents: before a run begins an upload it has what an earlier one
// may have begun, and nobody heard of, aborted: the janitor leaves that to it.
func TestRunClearsIntents(t *testing.T) {
	r := newRig(t)
	r.orphan(t, "k", "")
	lost := r.begin(t, "k")
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodPost && req.URL.Query().Has("uploads") && slices.Contains(r.uploadsLeft(t), lost) {
			t.Error("an upload is begun, and the lost one is there still")
		}
		next.ServeHTTP(w, req)
	})
	path, content := r.file(t, "f", testPart+1)
	if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}); err != nil {
		t.Fatal(err)
	}
	r.wantObject(t, "k", content)
}
