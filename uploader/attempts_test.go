package uploader

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lsst-dm/s3daemon/push"
)

// failing has the store fail the first requests for one operation in these ways, one
// after the other: a number is the status that it answers with, others are what it
// does to the connection.
func (r *rig) failing(operation string, ways ...string) *atomic.Int32 {
	asked := new(atomic.Int32)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if operationOf(req) != operation {
			next.ServeHTTP(w, req)
			return
		}
		n := int(asked.Add(1))
		if n > len(ways) {
			next.ServeHTTP(w, req)
			return
		}
		io.Copy(io.Discard, req.Body)
		if ways[n-1] == "reset" {
			panic(http.ErrAbortHandler)
		}
		status, code, _ := strings.Cut(ways[n-1], " ")
		answer(w, status, code)
	})
	return asked
}

// answer answers as a store does that refuses.
func answer(w http.ResponseWriter, status, code string) {
	var number int
	fmt.Sscan(status, &number)
	w.WriteHeader(number)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>not\nnow</Message></Error>", code)
}

// brief is what of the attempts does not depend on when and where.
func brief(attempts []push.Attempt) (all []string) {
	for _, a := range attempts {
		text := a.Operation
		if a.Part > 0 {
			text += fmt.Sprintf(" %d", a.Part)
		}
		all = append(all, text+" "+a.Reason)
	}
	return all
}

func wantAttempts(t *testing.T, receipt push.Receipt, want ...string) {
	t.Helper()
	if got := brief(receipt.FailedAttempts); !reflect.DeepEqual(got, want) {
		t.Errorf("%s, %s: attempts that failed %q, want %q", receipt.Key, receipt.State, got, want)
	}
	last := receipt.AcceptedAt
	for _, a := range receipt.FailedAttempts {
		if a.At.Before(last) || !receipt.FinishedAt.IsZero() && a.At.After(receipt.FinishedAt) || a.Seconds < 0 || a.Seconds > receipt.Seconds {
			t.Errorf("%+v, of a push from %v to %v, after one at %v", a, receipt.AcceptedAt, receipt.FinishedAt, last)
		}
		if a.Detail == "" || len(a.Detail) > mostDetail || !utf8.ValidString(a.Detail) || a.Detail != push.OneLine(a.Detail) {
			t.Errorf("the detail %q", a.Detail)
		}
		last = a.At
	}
}

// TestFailedAttempts are told of a push that was done in spite of them, by the next
// process too, and not in lists.
func TestFailedAttempts(t *testing.T) {
	r := newRig(t)
	r.failing("PutObject", "503 SlowDown", "reset")
	path, _ := r.file(t, "f", 10)
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"PutObject slow_down", "PutObject connection"}
	wantAttempts(t, receipt, want...)
	if receipt.Attempts != 3 {
		t.Errorf("%d attempts", receipt.Attempts)
	}
	if a := receipt.FailedAttempts[0]; !strings.Contains(a.Detail, "503") || !strings.Contains(a.Detail, "SlowDown: not now") {
		t.Errorf("the first says %q", a.Detail)
	}
	page, err := r.List(t.Context(), push.Filter{}, 0)
	if err != nil || len(page.Pushes) != 1 || page.Pushes[0].FailedAttempts != nil {
		t.Errorf("%+v, %v in a list", page, err)
	}
	if changed, _, _ := r.Changes(0); len(changed) != 1 || changed[0].FailedAttempts != nil {
		t.Errorf("%+v among the changes", changed)
	}
	r.Drain(t.Context())
	later, err := r.again(t).Get(t.Context(), parseID(t, receipt.ID), 0)
	if err != nil || !reflect.DeepEqual(later.FailedAttempts, receipt.FailedAttempts) {
		t.Errorf("the next process says %+v, %v\nwant %+v", later.FailedAttempts, err, receipt.FailedAttempts)
	}
}

// TestFailedAttemptsOfOneThatFails: the attempt that ended it is among them, once,
// and they stay when it is put back.
func TestFailedAttemptsOfOneThatFails(t *testing.T) {
	r := newRig(t)
	r.failing("PutObject", "500 InternalError", "reset", "403 AccessDenied", "403 AccessDenied")
	path, _ := r.file(t, "f", 10)
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	wantCode(t, err, push.StoreRefused)
	want := []string{"PutObject 5xx", "PutObject connection", "PutObject answer"}
	wantAttempts(t, receipt, want...)
	id := parseID(t, receipt.ID)
	back, err := r.Retry(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if got := brief(back.FailedAttempts); len(got) < 3 || !reflect.DeepEqual(got[:3], want) {
		t.Errorf("put back it has %q", got)
	}
	wantAttempts(t, r.ended(t, id, push.Done), append(want, "PutObject answer")...)
}

// TestFailedAttemptsAreFew: of a push that goes on for long the newest are kept, and
// told while it is under way.
func TestFailedAttemptsAreFew(t *testing.T) {
	r := newRig(t)
	ways := make([]string, mostFailed)
	for i := range ways {
		ways[i] = "503 SlowDown"
	}
	asked := r.failing("PutObject", append([]string{"500 InternalError", "500 InternalError"}, ways...)...)
	path, _ := r.file(t, "f", 10)
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	until(t, "it has failed", func() bool {
		receipt, err := r.Get(t.Context(), id, 0)
		return err == nil && len(receipt.FailedAttempts) > 0
	})
	receipt := r.ended(t, id, push.Done)
	if n := asked.Load(); n != mostFailed+3 {
		t.Errorf("the store was asked %d times", n)
	}
	var want []string
	for range ways {
		want = append(want, "PutObject slow_down")
	}
	wantAttempts(t, receipt, want...)
}

// TestFailedAttemptOfAPart is told with the part's number, though the run goes on.
func TestFailedAttemptOfAPart(t *testing.T) {
	r := newRig(t)
	r.failing("UploadPart 2", "503 SlowDown")
	path, _ := r.file(t, "f", 2*testPart)
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	if err != nil {
		t.Fatal(err)
	}
	wantAttempts(t, receipt, "UploadPart 2 slow_down")
}

// TestQuestionsAreNoFailedAttempts, if they are answered: that there is no object, or
// another one.
func TestQuestionsAreNoFailedAttempts(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 2*testPart)
	receipt, err := r.create(t, path, "k")
	if err != nil {
		t.Fatal(err)
	}
	wantAttempts(t, receipt)
	other, _ := r.file(t, "other", 10)
	receipt, err = r.create(t, other, "k")
	wantExists(t, receipt, err, "another")
	wantAttempts(t, receipt, "PutObject exists")
}

// TestFailedAttemptWithoutARequest: what a run failed with before it asked for
// anything.
func TestFailedAttemptWithoutARequest(t *testing.T) {
	r := newRig(t)
	g := r.hold(t, true, pass)
	path, _ := r.file(t, "f", 10)
	first := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	<-g.arrived
	gone, _ := r.file(t, "gone", 10)
	second := r.later(t, push.Request{File: gone, Destination: "s3://bucket/k"})
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	g.let()
	wantAttempts(t, r.ended(t, first, push.Done))
	receipt := r.ended(t, second, push.Failed)
	wantAttempts(t, receipt, " file_not_found")
	if receipt.FailedAttempts[0].Detail != receipt.Problem.Detail {
		t.Errorf("the attempt says %q, the problem %q", receipt.FailedAttempts[0].Detail, receipt.Problem.Detail)
	}
}

// TestDetailOfAFailedAttempt has no secret that the store says again, and an end.
func TestDetailOfAFailedAttempt(t *testing.T) {
	r := newRig(t)
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		io.Copy(io.Discard, req.Body)
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "<Error><Code>AccessDenied</Code><Message>not with\n%s: %s</Message></Error>", r.store.SecretKey, strings.Repeat("é", 400))
	})
	path, _ := r.file(t, "f", 10)
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	wantCode(t, err, push.StoreRefused)
	wantAttempts(t, receipt, "PutObject answer", "PutObject answer")
	for _, a := range receipt.FailedAttempts {
		if strings.Contains(a.Detail, r.store.SecretKey) || !strings.Contains(a.Detail, "not with") || !strings.HasSuffix(a.Detail, "...") {
			t.Errorf("it says %q", a.Detail)
		}
	}
}

// TestFailedAttemptsInARing: the newest of those before and those now.
func TestFailedAttemptsInARing(t *testing.T) {
	numbered := func(from, to int) (all []push.Attempt) {
		for i := from; i < to; i++ {
			all = append(all, push.Attempt{At: time.Unix(int64(i), 0), Part: i})
		}
		return all
	}
	for before := range mostFailed + 1 {
		for now := range 2*mostFailed + 1 {
			f := new(failedAttempts)
			old := numbered(0, before)
			for _, a := range numbered(before, before+now) {
				f.note(a)
			}
			got := f.after(old)
			if want := numbered(max(0, before+now-mostFailed), before+now); !reflect.DeepEqual(got, want) {
				t.Errorf("%d before and %d now: %v", before, now, got)
			}
			if !reflect.DeepEqual(old, numbered(0, before)) {
				t.Errorf("those before were changed")
			}
		}
	}
}
