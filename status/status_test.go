package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// source stands as the test says.
type source struct {
	mu       sync.Mutex
	overview push.Overview
	changed  []push.Receipt // since the last time
	left     int
	count    uint64
	looks    int
	asked    []uint64 // of Changes
}

func (s *source) Overview() push.Overview {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	return s.overview
}

func (s *source) Changes(after uint64) ([]push.Receipt, uint64, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, after)
	changed, left := s.changed, s.left
	s.changed, s.left = nil, 0
	s.count += uint64(len(changed))
	return changed, s.count, left
}

func (s *source) set(change func(*source)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// ear is a watcher, with what it has heard.
type ear struct {
	mu     sync.Mutex
	text   strings.Builder
	pieces int
	gate   chan struct{} // each piece takes one from it; nil: none does
	fail   error
	done   chan error
}

func (e *ear) emit(text []byte) error {
	if e.gate != nil {
		<-e.gate
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text.Write(text)
	e.pieces++
	return e.fail
}

// take returns what was heard since the last time, and in how many pieces.
func (e *ear) take() (string, int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	text, pieces := e.text.String(), e.pieces
	e.text.Reset()
	e.pieces = 0
	return text, pieces
}

func listen(ctx context.Context, b *Board, e *ear) *ear {
	e.done = make(chan error, 1)
	go func() { e.done <- b.Watch(ctx, e.emit) }()
	synctest.Wait()
	return e
}

// said is an event as a browser reads it.
type said struct{ id, event, data string }

// read reads a stream.
func read(t *testing.T, text string) (all []said) {
	t.Helper()
	if text != "" && !strings.HasSuffix(text, "\n\n") {
		t.Errorf("half an event: %q", text)
	}
	for block := range strings.SplitSeq(strings.TrimSuffix(text, "\n\n"), "\n\n") {
		var s said
		for line := range strings.SplitSeq(block, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			switch name {
			case "id":
				s.id = value
			case "event":
				s.event = value
			case "data":
				s.data += value
			case "retry":
				s = said{event: "retry", data: value}
			case "":
			default:
				t.Errorf("a line that is none: %q", line)
			}
		}
		all = append(all, s)
	}
	return all
}

// names returns the events' ids and names.
func names(t *testing.T, text string) string {
	t.Helper()
	var all []string
	for _, s := range read(t, text) {
		all = append(all, strings.TrimSpace(s.id+" "+s.event))
	}
	return strings.Join(all, ", ")
}

// dataOf returns the data of the last such event in a text.
func dataOf(t *testing.T, text, name string) map[string]any {
	t.Helper()
	var data map[string]any
	for _, s := range read(t, text) {
		if s.event == name {
			if err := json.Unmarshal([]byte(s.data), &data); err != nil {
				t.Fatalf("%v: %s", err, s.data)
			}
		}
	}
	if data == nil {
		t.Fatalf("there is no event %s: %s", name, text)
	}
	return data
}

// running starts a board in a bubble, and ends it with the test.
func running(t *testing.T, cfg Config, s *source) *Board {
	t.Helper()
	b := New(cfg)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		b.Run(ctx, s)
		close(ended)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	synctest.Wait()
	return b
}

func second() {
	time.Sleep(time.Second) // of the bubble
	synctest.Wait()
}

// TestWatch: somebody hears at once how all stands, then once a second what has
// changed, and every five seconds the history.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{changed: []push.Receipt{{ID: "old"}}}
		b := running(t, Config{Deadline: 7 * time.Second, Version: "1.2"}, s)
		second()
		time.Sleep(300 * time.Millisecond)
		e := listen(t.Context(), b, &ear{})
		text, _ := e.take()
		if got := names(t, text); got != "retry, 1 status, history" {
			t.Errorf("at once: %s", got)
		}
		s.set(func(s *source) { s.changed = []push.Receipt{{ID: "new", State: push.Queued}} })
		second()
		text, pieces := e.take()
		if got := names(t, text); got != "2 status, 2 pushes" || pieces != 1 {
			t.Errorf("after a second: %s in %d pieces", got, pieces)
		}
		changed := dataOf(t, text, "pushes")
		if all := changed["pushes"].([]any); len(all) != 1 || all[0].(map[string]any)["id"] != "new" || changed["left_out"] != 0.0 {
			t.Errorf("%v", changed)
		}
		var later []string
		for range 4 {
			second()
			text, _ := e.take()
			later = append(later, names(t, text))
		}
		if got := strings.Join(later, "; "); got != "3 status; 4 status; 5 status, history; 6 status" {
			t.Errorf("later: %s", got)
		}
	})
}

// TestStatusEvent has what is in it.
func TestStatusEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := time.Now().UTC()
		s := &source{}
		b := running(t, Config{Deadline: 7 * time.Second, Version: "1.2"}, s)
		e := listen(t.Context(), b, &ear{})
		for range 7 {
			b.Ended(done(0.5, 100))
			b.Ended(done(0.4, 100))
			s.set(func(s *source) { s.overview.AckedBytes += 1000 })
			second()
		}
		b.Ended(done(8, 1))
		b.Refused(push.QueueFull)
		since := time.Now().UTC()
		s.set(func(s *source) {
			s.overview = push.Overview{
				Store: "http://s3.example", Queued: push.Line{Pushes: 3, Oldest: 1500 * time.Millisecond}, Running: push.Line{Pushes: 2, Oldest: time.Second}, Retrying: 1,
				Slots: 25, SlotsInUse: 2, AckedBytes: s.overview.AckedBytes,
				Connections: []push.Connection{{Number: 4, Address: "10.0.0.1:443", Busy: true, Age: 90 * time.Second, Requests: 7, RTT: 200 * time.Millisecond, Rate: 1.5e8, FirstRoundTrip: 3e7, Warm: true}, {}},
				Troubles:    []push.Trouble{{Kind: push.TroubleStore, Since: since, Detail: "the <store> is away"}},
			}
		})
		second()
		text, _ := e.take()
		got := dataOf(t, text, "status")
		seen := fmt.Sprintf("%s %v", got["summary"], got["times"])
		for _, name := range []string{"summary", "advice", "times"} {
			delete(got, name)
		}
		want := map[string]any{}
		if err := json.Unmarshal([]byte(fmt.Sprintf(`{"at":%q,"version":"1.2","started_at":%q,"level":"trouble","deadline_seconds":7,
			"store":{"url":"http://s3.example","reachable":false},"throughput":{"bytes_per_second":800,"pushes_per_second":1.8},
			"queue":{"queued":{"pushes":3,"oldest_seconds":1.5},"running":{"pushes":2,"oldest_seconds":1},"retrying":1},
			"last_15_minutes":{"done":15,"failed":0,"cancelled":0,"refused":1,"late":1,"bytes":1401},"since_start":{"done":15,"failed":0,"cancelled":0,"refused":1,"late":1,"bytes":1401},
			"failures":[],"failures_left_out":0,
			"pool":{"slots":25,"slots_in_use":2,"connections":[
				{"number":4,"address":"10.0.0.1:443","state":"busy","age_seconds":90,"requests":7,"rtt_seconds":0.2,"rate_bytes_per_second":150000000,"first_round_trip_bytes":30000000,"warm":true},
				{"number":0,"address":"","state":"idle","age_seconds":0,"requests":0,"rtt_seconds":0,"rate_bytes_per_second":0,"first_round_trip_bytes":0,"warm":false}]},
			"troubles":[{"kind":"store_unreachable","since":%q,"detail":"the <store> is away"}]}`,
			time.Now().UTC().Format(time.RFC3339Nano), started.Format(time.RFC3339Nano), since.Format(time.RFC3339Nano))), &want); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		if !strings.Contains(seen, "The store cannot be reached") || !strings.Contains(seen, "bounds_seconds:[0.01 0.02") || !strings.Contains(seen, "pushes:[0 0 0 0 0 0 0 0 14 0 0 0 0 0 0 1 0") {
			t.Errorf("%s", seen)
		}
	})
}

// TestFailuresEvent has the commonest causes, and how many pushes failed beside.
func TestFailuresEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := running(t, Config{}, &source{})
		for i := range 7 {
			for range 1 + i {
				b.Ended(failedTo(fmt.Sprint("bucket-", i), push.FileNotFound, time.Now()))
			}
		}
		e := listen(t.Context(), b, &ear{})
		text, _ := e.take()
		s := dataOf(t, text, "status")
		groups := s["failures"].([]any)
		if len(groups) != toldCauses || s["failures_left_out"] != 3.0 { // 1 and 2
			t.Errorf("%d groups, %v left out", len(groups), s["failures_left_out"])
		}
		var newest map[string]any
		first := groups[0].(map[string]any)
		newest, first["newest"] = first["newest"].(map[string]any), nil
		if got := fmt.Sprint(first); got != "map[advice:"+causes[push.FileNotFound].advice+" bucket:bucket-6 code:file_not_found newest:<nil> pushes:7 summary:the file is gone]" {
			t.Errorf("%s", got)
		}
		if newest["detail"] != "no, bucket-6" || newest["id"] == "" || newest["file"] == "" || newest["finished_at"] != time.Now().UTC().Format(time.RFC3339Nano) {
			t.Errorf("%v", newest)
		}
		if got := s["summary"]; got != `Nothing was delivered in the last 15 minutes: 28 pushes failed, 7 of them to the bucket "bucket-6": the file is gone.` {
			t.Errorf("%s", got)
		}
	})
}

// TestHistory has 15 minutes in steps of five seconds.
func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		b := running(t, Config{}, s)
		second()
		s.set(func(s *source) { s.overview.AckedBytes = 5000 })
		b.Ended(done(1, 1))
		b.Ended(push.Receipt{State: push.Failed})
		begun := time.Now().Add(-time.Second).UTC()
		time.Sleep(5 * time.Second)
		e := listen(t.Context(), b, &ear{})
		text, _ := e.take()
		h := dataOf(t, text, "history")
		bytes, ok, failed := h["bytes_per_second"].([]any), h["done_per_second"].([]any), h["failed_per_second"].([]any)
		if len(bytes) != steps || len(ok) != steps || len(failed) != steps || bytes[steps-1] != 1000.0 || ok[steps-1] != 0.2 || failed[steps-1] != 0.2 || bytes[steps-2] != 0.0 {
			t.Errorf("%v", h)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		text, _ = e.take()
		if later := dataOf(t, text, "history"); later["until"] == h["until"] || later["bytes_per_second"].([]any)[steps-2] != 1000.0 {
			t.Errorf("five seconds later: %v", later)
		}
		if h["step_seconds"] != 5.0 || h["until"] != begun.Add(5*time.Second).Format(time.RFC3339Nano) {
			t.Errorf("until %v, in steps of %v", h["until"], h["step_seconds"])
		}
	})
}

// TestNobodyWatches: then nothing is made, and the source is looked at once a
// second; and who comes later is not told what has changed meanwhile.
func TestNobodyWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		b := running(t, Config{}, s)
		ctx, stop := context.WithCancel(t.Context())
		e := listen(ctx, b, &ear{})
		second()
		stop()
		if err := <-e.done; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		var looks, asked int
		s.set(func(s *source) { looks, asked = s.looks, len(s.asked) })
		for range 100 {
			second()
		}
		s.set(func(s *source) {
			if s.looks != looks+100 || len(s.asked) != asked {
				t.Errorf("in 100 s %d looks, and %d questions for changes", s.looks-looks, len(s.asked)-asked)
			}
			s.changed = []push.Receipt{{ID: "meanwhile"}}
		})
		e = listen(t.Context(), b, &ear{})
		if text, _ := e.take(); names(t, text) != "retry, 3 status, history" {
			t.Errorf("%s", names(t, text))
		}
	})
}

// TestManyWatch: all are told the same, which is made once; and who comes and
// goes all the time has nothing more made.
func TestManyWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		b := running(t, Config{}, s)
		var ears []*ear
		for range 200 {
			ears = append(ears, listen(t.Context(), b, &ear{}))
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		for range 100 {
			listen(ctx, b, &ear{})
		}
		for range 3 {
			second()
		}
		first, _ := ears[0].take()
		for _, e := range ears[1:] {
			if text, _ := e.take(); text != first {
				t.Fatalf("%s\n%s", names(t, text), names(t, first))
			}
		}
		if got := names(t, first); got != "retry, 1 status, history, 2 status, 3 status, 4 status" || len(s.asked) != 4 {
			t.Errorf("%s; asked %v", got, s.asked)
		}
	})
}

// TestSlowWatcher: one who does not read misses what is made meanwhile, holds up
// nobody, and gets the history that he has not had.
func TestSlowWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		b := running(t, Config{}, s)
		quick := listen(t.Context(), b, &ear{})
		slow := listen(t.Context(), b, &ear{gate: make(chan struct{})})
		for range 7 {
			second()
		}
		if text, pieces := quick.take(); pieces != 8 {
			t.Errorf("the quick one: %s", names(t, text))
		}
		for range 3 {
			slow.gate <- struct{}{}
			synctest.Wait()
			second()
		}
		if text, pieces := slow.take(); pieces != 3 || names(t, text) != "retry, 1 status, history, 8 status, history, 9 status" {
			t.Errorf("the slow one: %s in %d pieces", names(t, text), pieces)
		}
		close(slow.gate)
	})
}

// TestOver: when the daemon ends all are told what has happened until then, and that
// this was all, also who comes then; and one who cannot be told is no longer there.
func TestOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, src := New(Config{}), &source{}
		early := listen(t.Context(), b, &ear{})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			b.Run(ctx, src)
			close(ended)
		}()
		synctest.Wait()
		gone := errors.New("gone")
		if e := listen(t.Context(), b, &ear{fail: gone}); !errors.Is(<-e.done, gone) {
			t.Error("whoever cannot be told goes on")
		}
		if text, _ := early.take(); names(t, text) != "retry, 1 status, history" {
			t.Errorf("who came before the start: %s", names(t, text))
		}
		src.set(func(s *source) { s.changed = []push.Receipt{{ID: "last", State: push.Done}} }) // less than a second before the end
		stop()
		<-ended
		late := listen(t.Context(), b, &ear{})
		for e, want := range map[*ear]string{early: "2 status, 2 pushes, bye", late: "retry, 2 status, history, bye"} {
			if err := <-e.done; err != nil {
				t.Error(err)
			}
			if text, _ := e.take(); names(t, text) != want || len(dataOf(t, text, "bye")) != 0 {
				t.Errorf("%q, want %s", text, want)
			}
		}
		if b.watched() {
			t.Error("somebody is left")
		}
	})
}

// TestFirstFrame: who comes before a second is over is told of the source as it is, and
// nothing more is made for who asked while that was.
func TestFirstFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{overview: push.Overview{Store: "http://s3.example/?a&b"}}
		b := running(t, Config{}, s)
		e := listen(t.Context(), b, &ear{})
		b.wanted <- struct{}{}
		synctest.Wait()
		text, _ := e.take()
		if got := names(t, text); got != "retry, 1 status, history" || !strings.Contains(text, `"url":"http://s3.example/?a&b"`) || !strings.Contains(text, "nothing has been pushed since it was started") {
			t.Errorf("%s", text)
		}
	})
}

// TestLeftOut: that there was more is told, also where that is all.
func TestLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		e := listen(t.Context(), running(t, Config{}, s), &ear{})
		s.set(func(s *source) { s.left = 7 })
		second()
		text, _ := e.take()
		if got := dataOf(t, text, "pushes"); got["left_out"] != 7.0 || fmt.Sprint(got["pushes"]) != "[]" {
			t.Errorf("%v", got)
		}
	})
}

// TestStaleFrame: one that is a second old is not for who comes then.
func TestStaleFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := running(t, Config{}, &source{})
		ctx, stop := context.WithCancel(t.Context())
		first := listen(ctx, b, &ear{})
		stop()
		<-first.done
		time.Sleep(1500 * time.Millisecond)
		text, _ := listen(t.Context(), b, &ear{}).take()
		if got := names(t, text); got != "retry, 2 status, history" {
			t.Errorf("%s", got)
		}
	})
}

// TestThroughput is right from the start, whatever was acknowledged before, and where a
// connection's count is lost.
func TestThroughput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{overview: push.Overview{AckedBytes: 1e9}}
		b := running(t, Config{}, s)
		e := listen(t.Context(), b, &ear{})
		want := func(bytes float64) {
			t.Helper()
			second()
			text, _ := e.take()
			if got := dataOf(t, text, "status")["throughput"].(map[string]any)["bytes_per_second"]; got != bytes {
				t.Errorf("%v bytes a second, want %v", got, bytes)
			}
		}
		want(0)
		s.set(func(s *source) { s.overview.AckedBytes += 1000 })
		want(500) // of two seconds
		s.set(func(s *source) { s.overview.AckedBytes -= 9000 })
		want(0)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		text, _ := e.take()
		if bytes := dataOf(t, text, "history")["bytes_per_second"].([]any); bytes[steps-1] != 200.0 { // 1000 in its 5 seconds
			t.Errorf("the history ends with %v", bytes[steps-2:])
		}
	})
}

// TestQuietPool: questions that keep many connections open are no pushes that move.
func TestQuietPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{overview: push.Overview{AckedBytes: 1, Connections: make([]push.Connection, 9), Running: push.Line{Pushes: 1, Oldest: time.Hour}}}
		b := running(t, Config{}, s)
		e := listen(t.Context(), b, &ear{})
		for range 40 {
			s.set(func(s *source) { s.overview.AckedBytes += 200 })
			second()
		}
		text, _ := e.take()
		if got := dataOf(t, text, "status")["summary"].(string); !strings.HasPrefix(got, "The store has taken nothing for 40 s") {
			t.Errorf("%s", got)
		}
	})
}

// TestNeverAnswers: a store that takes bytes and never answers is in trouble from the time
// on at which that is known, and not only while nothing goes out, until it takes
// something.
func TestNeverAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		b := running(t, Config{Deadline: 7 * time.Second}, s)
		e := listen(t.Context(), b, &ear{})
		begun, since := time.Now(), 0
		for second := 1; second <= 400; second++ {
			s.set(func(s *source) {
				o := &s.overview
				o.Running = push.Line{Pushes: 2, Oldest: time.Since(begun)}
				if second%60 == 1 { // the answer is waited for so long
					o.AckedBytes += 40_000
				}
				if second > 60 && second%60 == 1 {
					o.LastUnanswered = time.Now()
				}
			})
			time.Sleep(time.Second)
			synctest.Wait()
			text, _ := e.take()
			level := dataOf(t, text, "status")["level"]
			if level == "trouble" && since == 0 {
				since = second
			}
			if (level == "trouble") != (since > 0) {
				t.Fatalf("after %d s: %v, and since %d s trouble", second, level, since)
			}
		}
		if since < 30 || since > 40 {
			t.Errorf("trouble since %d s", since)
		}
		s.set(func(s *source) { s.overview.LastTaken = time.Now() })
		second()
		if text, _ := e.take(); dataOf(t, text, "status")["level"] != "attention" {
			t.Errorf("once it takes something: %s", text)
		}
	})
}

// TestShow: receipts are as callers get them.
func TestShow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		b := running(t, Config{Show: func(r push.Receipt) push.Receipt { r.Label = "shown"; return r }}, s)
		e := listen(t.Context(), b, &ear{})
		s.set(func(s *source) { s.changed = []push.Receipt{{ID: "1"}} })
		second()
		if text, _ := e.take(); !strings.Contains(text, `"label":"shown"`) {
			t.Errorf("%s", text)
		}
	})
}
