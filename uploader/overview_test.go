package uploader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/transport"
)

func TestOverview(t *testing.T) {
	r := newRig(t)
	g := r.hold(t, false, pass)
	path, _ := r.file(t, "f", 100_000)
	var ids []push.ID
	for i := range 6 {
		ids = append(ids, r.later(t, push.Request{File: path, Destination: fmt.Sprintf("s3://bucket/%d", i)}))
	}
	for range 4 { // as many as there are places
		<-g.arrived
	}
	before := time.Now()
	o := r.Overview()
	for _, l := range []struct {
		line   push.Line
		pushes int
		oldest push.ID
	}{{o.Running, 4, ids[0]}, {o.Queued, 2, ids[4]}} {
		if least := before.Sub(l.oldest.Time()); l.line.Pushes != l.pushes || l.line.Oldest < least || l.line.Oldest > least+time.Since(before) {
			t.Errorf("%+v, want %d, the oldest %v old", l.line, l.pushes, least)
		}
	}
	if o.InTurn <= 0 || o.InTurn > o.Queued.Oldest+time.Second { // the id's clock has milliseconds
		t.Errorf("the oldest has waited for its turn for %v, of %v", o.InTurn, o.Queued.Oldest)
	}
	if o.Store != r.store.URL || o.Slots != 4 || o.SlotsInUse != 4 || o.QueueLimit != 1000 || o.Retrying != 0 || len(o.Troubles) != 0 {
		t.Errorf("the overview is %+v", o)
	}
	busy := 0
	for i, c := range o.Connections {
		if c.Number != i || c.Address != strings.TrimPrefix(r.store.URL, "http://") || c.Age <= 0 {
			t.Errorf("connection %d is %+v", i, c)
		}
		if !c.Busy {
			continue
		}
		busy++
		known := runtime.GOOS == "linux"
		if c.Requests != 1 || (c.RTT > 0) != known || (c.FirstRoundTrip > 0) != known || c.Warm != known {
			t.Errorf("connection %d carries a request over no distance: %+v", i, c)
		}
	}
	if busy != 4 || runtime.GOOS == "linux" && o.AckedBytes < 4*100_000 {
		t.Errorf("%d connections are busy, and %d bytes acknowledged", busy, o.AckedBytes)
	}
	g.let()
	for _, id := range ids {
		r.ended(t, id, push.Done)
	}
	// The journal knows that a push has ended, and tells who asks, a moment before the queue does.
	until(t, "an overview of nothing to do", func() bool {
		o := r.Overview()
		return o.Running == push.Line{} && o.Queued == push.Line{}
	})
}

func TestWarm(t *testing.T) {
	for _, tc := range []struct {
		name  string
		first int64
		rtt   time.Duration
		want  bool
	}{
		{"nothing is known", 0, 0, false},
		{"a new one, far", 14480, 100 * time.Millisecond, false},
		{"as much as a new one may", coldWindow, 100 * time.Millisecond, false},
		{"more", coldWindow + 1, 100 * time.Millisecond, true},
		{"a new one, near", 14480, nearby, true},
	} {
		c := connectionOf(transport.Connection{FirstRoundTrip: tc.first, Info: transport.Info{RTT: tc.rtt}})
		if c.Warm != tc.want {
			t.Errorf("%s: %+v", tc.name, c)
		}
	}
}

// TestTroubles: they are told the worst first, and whoever asks for no more than whether the
// daemon is ready hears of no bucket.
func TestTroubles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	r := newRig(t, func(c *Config) { c.MaxConnections, c.Journal = 1, openJournal(t, dir) })
	g := r.hold(t, true, pass)
	path, _ := r.file(t, "f", 10)
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	<-g.arrived
	begun := time.Now().Add(-time.Minute)
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	fail := func(away *outage, failures int, draining bool) {
		r.endpoint.mu.Lock()
		r.endpoint.outage = away
		r.endpoint.mu.Unlock()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.draining = draining
		for range failures {
			r.queue.failure(r.queue.buckets["bucket"], begun, 0)
			r.queue.buckets["bucket"].problem = "503 Service Unavailable"
		}
	}
	if err := os.Rename(dir, dir+" taken away"); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	_, err := r.Uploader.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/other"}, push.Options{})
	wantCode(t, err, push.JournalUnavailable)
	fail(&outage{since: begun, cause: refused, certain: make(chan struct{}), over: make(chan struct{})}, failuresForTrial, true)

	got := r.Overview().Troubles
	if len(got) != 4 || got[1].Since.Before(before) || got[1].Since.After(time.Now()) || !strings.HasPrefix(got[1].Detail, "the journal cannot be written: the journal was taken away") {
		t.Fatalf("the troubles are %+v", got)
	}
	want := []push.Trouble{
		{Kind: push.TroubleShuttingDown, Detail: "the daemon is shutting down, and takes no more pushes"},
		{Kind: push.TroubleJournal, Since: got[1].Since, Detail: got[1].Detail, Cause: strings.TrimPrefix(got[1].Detail, "the journal cannot be written: ")},
		{Kind: push.TroubleStore, Since: begun.UTC(), Detail: "the store cannot be reached: dial tcp: connection refused", Cause: "dial tcp: connection refused"},
		{Kind: push.TroubleBucket, Since: begun.UTC(), Bucket: "bucket", Detail: `pushes to the bucket "bucket" fail, and it is tried once a second: 503 Service Unavailable`, Cause: "503 Service Unavailable"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("the troubles are\n%+v, want\n%+v", got, want)
	}
	notes, err := r.Ready()
	wantCode(t, err, push.ShuttingDown)
	if len(notes) != 1 || notes[0] != "since "+want[2].Since.Format(time.RFC3339)+" "+want[2].Detail || strings.Contains(strings.Join(notes, ""), "bucket") {
		t.Errorf("ready says %q", notes)
	}

	fail(nil, 0, false)
	_, err = r.Ready()
	wantCode(t, err, push.JournalUnavailable)
	if says := "since " + want[1].Since.Format(time.RFC3339) + " " + want[1].Detail + ": no push is accepted"; !strings.HasPrefix(err.Error(), says) {
		t.Errorf("ready says %q, want %q", err, says)
	}
	if err := os.Rename(dir+" taken away", dir); err != nil {
		t.Fatal(err)
	}
	g.let()
	r.ended(t, id, push.Done) // which is written when it can be
	if got := r.Overview().Troubles; len(got) != 0 {
		t.Errorf("afterwards there are %+v", got)
	}
	if notes, err := r.Ready(); len(notes) != 0 || err != nil {
		t.Errorf("afterwards ready says %q, %v", notes, err)
	}
}

// TestReadyAgain: once the journal can be written the daemon says that it takes pushes,
// though nobody has tried: who goes by that would never push again.
func TestReadyAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	r := newRig(t, func(c *Config) { c.Journal = openJournal(t, dir) })
	path, _ := r.file(t, "f", 10)
	if err := os.Rename(dir, dir+" taken away"); err != nil {
		t.Fatal(err)
	}
	_, err := r.Uploader.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}, push.Options{})
	wantCode(t, err, push.JournalUnavailable)
	_, err = r.Ready()
	wantCode(t, err, push.JournalUnavailable)
	if err := os.Rename(dir+" taken away", dir); err != nil {
		t.Fatal(err)
	}
	until(t, "it to be ready", func() bool {
		_, err := r.Ready()
		return err == nil
	})
}

// TestFewBucketsAreToldOf: of many on trial those that have been so for longest; none
// where credentials are refused, as they all fail for that.
func TestFewBucketsAreToldOf(t *testing.T) {
	q := newQueue(1)
	now := time.Now()
	for i := range 2 * mostBuckets {
		e := &entry{object: uint64(i)}
		q.add(e, fmt.Sprintf("b%02d", i))
		for range failuresForTrial {
			q.failure(e.bucket, now.Add(time.Duration(-i)*time.Second), 0)
		}
	}
	all := q.trials()
	if len(all) != 2*mostBuckets || all[0].name != fmt.Sprintf("b%02d", 2*mostBuckets-1) || all[len(all)-1].name != "b00" {
		t.Errorf("on trial are %+v", all)
	}
	u := &Uploader{queue: q, endpoint: newEndpoint(context.Background(), nil, nil), credentials: &credentials{}, journal: openJournal(t, filepath.Join(t.TempDir(), "data"))}
	if got := u.troubles(); len(got) != mostBuckets {
		t.Errorf("%d troubles: %+v", len(got), got)
	}
	u.credentials.refused = refusal(403, "InvalidAccessKeyId")
	if got := u.troubles(); len(got) != 1 || got[0].Kind != push.TroubleCredentials || got[0].Cause != "the store says 403 Forbidden, InvalidAccessKeyId" || !strings.HasSuffix(got[0].Detail, "good credentials: "+got[0].Cause) {
		t.Errorf("without good credentials: %+v", got)
	}
}

// TestTaken: it is known when the store took something, and when something came back
// without an answer, which may be so of a push that is done in the end.
func TestTaken(t *testing.T) {
	for _, size := range []int{100, 8 * testPart} { // one that goes as a whole, and one in parts
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r := newRig(t, impatient(t))
			path, _ := r.file(t, "f", size)
			for _, step := range []struct {
				what        string
				fault       func(http.ResponseWriter, *http.Request, http.Handler)
				taken, left bool
			}{
				{"done", pass, true, false},
				{"refused", refuse(403), false, false},
				{"hangs", func(_ http.ResponseWriter, req *http.Request, _ http.Handler) {
					io.Copy(io.Discard, req.Body)
					<-req.Context().Done() // until the daemon has waited long enough
				}, false, true},
				{"breaks", breakOff, false, true},
				{"done again", pass, true, false},
			} {
				before := r.Overview()
				r.spoil(step.fault)
				for range 10 { // on a busy machine an answer may be too late for one that is impatient
					_, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/" + step.what})
					if err == nil || !step.taken {
						break
					}
				}
				after := r.Overview()
				if after.LastTaken.After(before.LastTaken) != step.taken || step.left && !after.LastUnanswered.After(before.LastUnanswered) {
					t.Errorf("%s: taken %v, unanswered %v, before %v and %v", step.what, after.LastTaken, after.LastUnanswered, before.LastTaken, before.LastUnanswered)
				}
			}
		})
	}
}

// TestTakes has what shows that the store took something, what shows that it did not
// answer, and what shows neither.
func TestTakes(t *testing.T) {
	for _, tc := range []struct {
		operation   string
		err         error
		taken, left bool
	}{
		{putting, nil, true, false},
		{"UploadPart", nil, true, false},
		{completing, nil, true, false},
		{asking, nil, false, false},
		{"CreateMultipartUpload", nil, false, false},
		{putting, refusal(403, "AccessDenied"), false, false},
		{putting, refusal(503, "SlowDown"), false, false},
		{putting, context.Canceled, false, false},
		{putting, &transport.StallError{At: transport.Connecting}, false, false},
		{putting, &transport.BrokenError{Untaken: true, Err: io.EOF}, false, false},
		{putting, &transport.StallError{At: transport.Sending}, false, true},
		{asking, &transport.StallError{At: transport.Awaiting}, false, true},
		{putting, &transport.BrokenError{Err: io.EOF}, false, true},
	} {
		var s takes
		s.note(tc.operation, tc.err)
		if taken, left := s.last(); taken.IsZero() == tc.taken || left.IsZero() == tc.left {
			t.Errorf("%s, %v: taken %v, left unanswered %v", tc.operation, tc.err, taken, left)
		}
	}
}

// TestLatePushes: what is done too late is counted and has a word in its line, and whoever
// wants to hear of ends hears of each once.
func TestLatePushes(t *testing.T) {
	for _, tc := range []struct {
		deadline time.Duration
		late     float64
	}{{0, 0}, {time.Nanosecond, 1}, {time.Hour, 0}} {
		t.Run(fmt.Sprint(tc.deadline), func(t *testing.T) {
			var mu sync.Mutex
			var ends []push.Receipt
			r := newRig(t, func(c *Config) {
				c.Deadline = tc.deadline
				c.Ended = func(r push.Receipt) {
					mu.Lock()
					defer mu.Unlock()
					ends = append(ends, r)
				}
			})
			path, _ := r.file(t, "f", 10)
			done, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
			if err != nil {
				t.Fatal(err)
			}
			r.spoil(refuse(403))
			_, err = r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/refused"}) // which is no less late, but failed
			wantCode(t, err, push.StoreRefused)
			_, err = r.Push(t.Context(), push.Request{File: "/nowhere", Destination: "s3://bucket/k"}) // is none that was accepted
			wantCode(t, err, push.FileNotFound)
			if got := testutil.ToFloat64(r.metrics.late); got != tc.late {
				t.Errorf("%v are counted as late, want %v", got, tc.late)
			}
			if got := strings.Count(r.log.String(), `"late":true`); got != int(tc.late) {
				t.Errorf("%d lines say late, want %v:\n%s", got, tc.late, r.log)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(ends) != 2 || ends[0].ID != done.ID || ends[0].State != push.Done || ends[1].State != push.Failed {
				t.Errorf("heard of the ends %+v", ends)
			}
		})
	}
}

func TestBoundsWith(t *testing.T) {
	usual := boundsWith(0)
	for deadline, want := range map[time.Duration]int{
		0: len(usual), 7 * time.Second: len(usual), 250 * time.Millisecond: len(usual),
		time.Millisecond: len(usual) + 1, 6 * time.Second: len(usual) + 1, 24 * time.Hour: len(usual) + 1,
	} {
		got := boundsWith(deadline)
		if len(got) != want || !slices.IsSorted(got) || deadline > 0 && !slices.Contains(got, deadline.Seconds()) {
			t.Errorf("with %v the bounds are %v", deadline, got)
		}
	}
}

// BenchmarkDepths looks at a queue of a million.
func BenchmarkDepths(b *testing.B) {
	u := &Uploader{queue: newQueue(25), journal: openJournal(b, filepath.Join(b.TempDir(), "data"))}
	for i := range uint64(1_000_000) {
		e := &entry{kind: single, object: i}
		binary.BigEndian.PutUint64(e.id[:], i)
		u.queue.add(e, "raw")
	}
	for range 25 {
		u.queue.next(single, time.Now())
	}
	for b.Loop() {
		u.depths()
	}
}
