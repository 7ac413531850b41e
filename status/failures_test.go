package status

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// failedTo returns a push that failed.
func failedTo(bucket string, code push.Code, at time.Time) push.Receipt {
	return push.Receipt{ID: at.Format(time.RFC3339Nano), State: push.Failed, File: "/data/" + at.Format("0405"), Bucket: bucket, FinishedAt: at, Problem: &push.Problem{Code: code, Detail: "no, " + bucket}}
}

// outline says which groups there are.
func outline(groups []failureGroup) string {
	var all []string
	for _, g := range groups {
		all = append(all, fmt.Sprintf("%d %s %s %s", g.Pushes, g.Code, g.Bucket, g.Newest.File))
	}
	return strings.Join(all, "; ")
}

// TestFailures are told by their causes, most first and then newest, for 15 minutes.
func TestFailures(t *testing.T) {
	tally := newTally(noon, 0)
	at := func(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }
	fail := func(seconds int, bucket string, code push.Code) {
		tally.ended(at(seconds), failedTo(bucket, code, at(seconds)))
	}
	fail(1, "sealed", push.StoreRefused)
	fail(2, "raw", push.FileNotFound)
	fail(3, "raw", push.StoreRefused)
	fail(8, "sealed", push.StoreRefused)
	tally.ended(at(9), push.Receipt{State: push.Cancelled, Bucket: "raw", Problem: &push.Problem{Code: push.WasCancelled}})
	tally.ended(at(9), done(1, 1))
	for _, tc := range []struct {
		at   int
		want string
	}{
		{9, "2 store_refused sealed /data/0818; 1 store_refused raw /data/0813; 1 file_not_found raw /data/0812"},
		{904, "2 store_refused sealed /data/0818; 1 store_refused raw /data/0813; 1 file_not_found raw /data/0812"},
		{905, "1 store_refused sealed /data/0818"}, // the first step is 15 minutes old
		{910, ""},
		{1_000_000, ""},
	} {
		tally.last(at(tc.at))
		if got := outline(tally.failures.told()); got != tc.want {
			t.Errorf("after %d s: %s\nwant %s", tc.at, got, tc.want)
		}
	}
	if len(tally.failures) != 0 {
		t.Errorf("%d causes are kept that nothing failed for", len(tally.failures))
	}

	fail(1_000_001, "raw", push.FileNotFound)
	g := tally.failures.told()[0]
	if g.Newest != (failedPush{g.Newest.ID, "/data/5451", at(1_000_001), "no, raw"}) || g.Newest.ID == "" || g.Summary != "the file is gone" || !strings.Contains(g.Advice, "retry") {
		t.Errorf("%+v", g)
	}
	tally.ended(at(1_000_002), push.Receipt{State: push.Failed}) // of which nothing is known
	if got := outline(tally.failures.told()); !strings.HasSuffix(got, "; 1   ") {
		t.Errorf("without a problem: %s", got)
	}
}

// TestLastingCause: what fails all the time counts for 15 minutes, however long that goes on.
func TestLastingCause(t *testing.T) {
	tally := newTally(noon, 0)
	for n := range 4 * steps {
		now := noon.Add(time.Duration(n) * stepTime)
		tally.ended(now, failedTo("raw", push.StoreRefused, now))
		last, _ := tally.last(now)
		if groups := tally.failures.told(); len(groups) != 1 || groups[0].Pushes != last.Failed || leftOut(last.Failed, groups) != 0 {
			t.Fatalf("after %d steps: %s, of %d", n, outline(groups), last.Failed)
		}
	}
}

// TestManyCauses: whatever fails, little is kept, and what fails most is told.
func TestManyCauses(t *testing.T) {
	tally := newTally(noon, 0)
	now := noon
	for i := range 100_000 {
		now = now.Add(time.Millisecond)
		bucket := fmt.Sprintf("bucket-%d", i)
		switch {
		case i%10 == 0:
			bucket = "often"
		case i%20 == 1:
			bucket = "sometimes"
		}
		tally.ended(now, failedTo(bucket, push.StoreRefused, now))
	}
	groups := tally.failures.told()
	if len(tally.failures) != mostCauses || len(groups) != toldCauses {
		t.Errorf("%d causes are kept, and %d told", len(tally.failures), len(groups))
	}
	if groups[0].Bucket != "often" || groups[0].Pushes != 10_000 || groups[1].Bucket != "sometimes" || groups[1].Pushes != 5000 {
		t.Errorf("%s", outline(groups))
	}
	if last, _ := tally.last(now); last.Failed != 100_000 {
		t.Errorf("%d failed", last.Failed)
	}
}

// TestCausesHaveWords: each code has words of what to do, but for those that tell of a
// request and are no end of a push.
func TestCausesHaveWords(t *testing.T) {
	ofRequests := map[push.Code]bool{}
	for _, code := range []push.Code{
		push.InvalidBody, push.MissingField, push.UnknownField, push.InvalidField, push.InvalidFile, push.InvalidDestination, push.BodyTooLarge,
		push.UnsupportedMedia, push.NotFound, push.MethodNotAllowed, push.InvalidParameter, push.IdempotencyReused, push.PushNotFound, push.PushEnded,
		push.PushNotFailed, push.Unauthorized, push.UserNotAllowed, push.ForeignHost, push.CrossOrigin, push.ShuttingDown, push.QueueFull, push.TooManyCallers,
		push.WasCancelled, // which is no failure
	} {
		ofRequests[code] = true
	}
	source, err := os.ReadFile("../push/error.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`Code = "([a-z_]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(found) != len(ofRequests)+len(causes) {
		t.Errorf("there are %d codes, %d of requests, and words for %d", len(found), len(ofRequests), len(causes))
	}
	for _, m := range found {
		code := push.Code(m[1])
		w, known := causes[code]
		if known == ofRequests[code] {
			t.Errorf("%s: words %v, of requests %v", code, known, ofRequests[code])
		}
		if known && (w.summary == "" || strings.HasSuffix(w.summary, ".") || !strings.HasSuffix(w.advice, ".")) {
			t.Errorf("%s: %q, %q", code, w.summary, w.advice)
		}
	}
	if w := wordsOf("of_a_later_version"); w.summary == "" || w.advice == "" {
		t.Errorf("%+v", w)
	}
}
