package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// eventStream is what a daemon tells one who watches it.
type eventStream struct {
	t      testing.TB
	body   io.ReadCloser
	lines  *bufio.Reader
	number int  // of the last status
	quick  bool // it is not held to openapi.yaml, which takes much longer than what the daemon does
}

// event is one thing that it tells.
type event struct {
	name   string
	number int    // of a status, else that of the one before
	text   string // its data
	data   struct {
		Level      string
		Summary    string
		Advice     string
		Store      struct{ Reachable bool }
		Throughput struct {
			Bytes float64 `json:"bytes_per_second"`
		}
		Failures []failureGroup
		LeftOver int `json:"failures_left_out"`
		Queue    struct {
			Queued, Running struct{ Pushes int }
		}
		Last struct{ Done, Failed, Late, Bytes int64 } `json:"last_15_minutes"`
		Pool struct{ Connections []struct{ State string } }

		Pushes  []receipt
		LeftOut int       `json:"left_out"`
		Bytes   []float64 `json:"bytes_per_second"`
		Done    []float64 `json:"done_per_second"`
	}
}

// failureGroup is why some pushes failed.
type failureGroup struct {
	Code, Bucket, Summary, Advice string
	Pushes                        int
	Newest                        struct{ ID, File, Detail string }
}

// watch begins to watch. It ends with the test.
func (d *daemon) watch(t testing.TB) *eventStream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	client := clientOf(d.addrs[0])
	t.Cleanup(client.CloseIdleConnections)
	resp, err := client.Do(d.request(ctx, "GET", "/events", "", ""))
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s, %v", resp.Status, resp.Header)
	}
	return &eventStream{t: t, body: resp.Body, lines: bufio.NewReader(resp.Body)}
}

// next returns the next event; at the end of the stream one without a name.
func (s *eventStream) next() (e event) {
	s.t.Helper()
	e.number = s.number
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			if err != io.EOF || line != "" || e.name != "" {
				s.t.Fatalf("the stream broke off: %v, %q", err, line)
			}
			return e
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "retry":
		case "id":
			if e.number, err = strconv.Atoi(value); err != nil {
				s.t.Fatal(err)
			}
			s.number = e.number
		case "event":
			e.name = value
		case "data":
			e.text = value
		case "":
			if e.name == "" { // behind retry
				continue
			}
			if e.name != "bye" && !s.quick {
				if err := checkEvent(e.name, e.text); err != nil {
					s.t.Errorf("the event %s is not as openapi.yaml has it: %v\n%s", e.name, err, e.text)
				}
			}
			if err := json.Unmarshal([]byte(e.text), &e.data); err != nil {
				s.t.Fatalf("%v: %s", err, e.text)
			}
			return e
		default:
			s.t.Fatalf("a line that is none: %q", line)
		}
	}
}

// until returns the first event that is as it is to be, and what came before.
func (s *eventStream) until(what string, is func(event) bool) (found event, before []event) {
	s.t.Helper()
	timer := time.AfterFunc(patience, func() { s.body.Close() })
	defer timer.Stop()
	for {
		e := s.next()
		if e.name == "" {
			s.t.Fatalf("waiting for %s: the stream has ended after %d events", what, len(before))
		}
		if is(e) {
			return e, before
		}
		before = append(before, e)
	}
}

// push returns a push as an event has it, if it does.
func (e event) push(id string) (r receipt, found bool) {
	for _, r := range e.data.Pushes {
		if r.ID == id {
			return r, true
		}
	}
	return r, false
}

// Who watches sees a push begin, its bytes go out and its end, the numbers move
// with it, and the history grow.
func TestWatchAPush(t *testing.T) {
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_DEADLINE=1h")
	bucket, file := newBucket(t), makeFile(t, "file", 6_000_000)
	p.limit(2_000_000)
	s := d.watch(t)
	first, _ := s.until("the first status", func(e event) bool { return e.name == "status" })
	if first.data.Level != "well" || !strings.HasPrefix(first.data.Summary, "All is well") || first.data.Last.Done != 0 {
		t.Errorf("at the start: %s", first.text)
	}
	if then := s.next(); then.name != "history" || then.data.Bytes[179] != 0 {
		t.Errorf("then %s, %s", then.name, then.text)
	}
	id := d.pushAsync(t, file, "s3://"+bucket+"/key").ID

	ended, before := s.until("the end of the push", func(e event) bool {
		r, found := e.push(id)
		return found && r.State == "done"
	})
	sent, running := []int64{0}, false
	for _, e := range before {
		if r, found := e.push(id); found && r.State == "running" && r.SentBytes > sent[len(sent)-1] {
			sent = append(sent, r.SentBytes)
		}
		running = running || e.name == "status" && e.data.Queue.Running.Pushes == 1 && e.data.Throughput.Bytes > 0 && strings.Contains(e.data.Summary, "1 push is under way")
	}
	if len(sent) < 3 || !running {
		t.Errorf("its bytes went %v; the status said so: %v", sent, running)
	}
	if r, _ := ended.push(id); r.Size != 6_000_000 || ended.data.LeftOut != 0 {
		t.Errorf("%s", ended.text)
	}
	s.until("the numbers", func(e event) bool {
		return e.name == "status" && e.data.Last.Done == 1 && e.data.Last.Bytes == 6_000_000 && e.data.Level == "well" && len(e.data.Pool.Connections) > 0
	})
	s.until("the history", func(e event) bool {
		bytes, done := 0.0, 0.0
		for i := range e.data.Bytes {
			bytes, done = bytes+e.data.Bytes[i], done+e.data.Done[i]
		}
		return e.name == "history" && bytes*5 > 6_000_000 && done == 0.2
	})
}

// Who watches is told when the store goes away, how many wait for it and what to
// do, and that all is well once it is back.
func TestWatchAnOutage(t *testing.T) {
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_DEADLINE=1h")
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	d.openLoad()
	s := d.watch(t)
	p.cutOff(cutClosed)
	away, _ := s.until("the store to be away", func(e event) bool { return e.name == "status" && !e.data.Store.Reachable })
	if away.data.Level != "trouble" || !strings.HasPrefix(away.data.Summary, "The store cannot be reached since ") || !strings.Contains(away.data.Advice, p.url()) {
		t.Errorf("%s", away.text)
	}
	for i := range 3 {
		d.pushAsync(t, file, fmt.Sprintf("s3://%s/%d", bucket, i))
	}
	s.until("the pushes that wait", func(e event) bool {
		return e.name == "status" && strings.Contains(e.data.Summary, ": 3 pushes wait and are sent once it answers.")
	})
	p.restore(t)
	s.until("all to be well", func(e event) bool {
		return e.name == "status" && e.data.Level == "well" && e.data.Store.Reachable && e.data.Last.Done == 3 && e.data.Advice == ""
	})
}

// A failed push is told of, with what to do.
func TestWatchAFailure(t *testing.T) {
	d := startDaemon(t)
	s := d.watch(t)
	id := d.pushAsync(t, makeFile(t, "file", 1000), "s3://no-such-bucket-"+strings.ToLower(t.Name())+"/key").ID
	failing, _ := s.until("an attempt to have failed", func(e event) bool {
		r, found := e.push(id)
		return found && r.Problem != nil
	})
	if r, _ := failing.push(id); r.Problem.Code != "store_refused" || r.Problem.Status != http.StatusBadGateway {
		t.Errorf("%s", failing.text)
	}
	s.until("the verdict", func(e event) bool {
		return e.name == "status" && e.data.Level == "attention" && e.data.Advice != "" && !strings.Contains(e.data.Summary, "All is well")
	})

	// What has failed is told by its cause, the commonest first.
	bucket, file := "no-such-bucket-either", makeFile(t, "lost", 1000)
	for range 2 {
		d.push(t, file, "s3://"+bucket+"/key").refused(t, http.StatusBadGateway, "store_refused")
	}
	told, _ := s.until("why they failed", func(e event) bool { return e.name == "status" && e.data.Last.Failed == 3 })
	all := told.data.Failures
	if len(all) != 2 || told.data.LeftOver != 0 || all[0].Code != "store_refused" || all[0].Bucket != bucket || all[0].Pushes != 2 || all[1].Newest.ID != id {
		t.Fatalf("%s", told.text)
	}
	if g := all[0]; g.Newest.File != file || !strings.Contains(g.Newest.Detail, "NoSuchBucket") || !strings.Contains(told.data.Summary, g.Summary) || g.Advice == "" {
		t.Errorf("%s", told.text)
	}
	if r := d.get(t, "/pushes/"+all[0].Newest.ID); r.status != http.StatusOK {
		t.Errorf("the newest is not there: %d: %s", r.status, r.body)
	}
}

// While the daemon drains, who watches sees the pushes in flight to their end,
// and is told goodbye; nothing is held up by him.
func TestWatchADrain(t *testing.T) {
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "file", 5_000_000)
	deaf := d.watch(t) // who never reads
	s := d.watch(t)
	p.hold()
	id := d.pushAsync(t, file, "s3://"+bucket+"/key").ID
	waitFor(t, "the push to be under way", func() bool { return p.nowHeld() == 1 })
	d.signal(syscall.SIGTERM)
	s.until("the daemon to stop", func(e event) bool {
		return e.name == "status" && e.data.Level == "attention" && strings.HasPrefix(e.data.Summary, "The daemon is stopping: 1 push is under way")
	})
	p.release()
	s.until("its end to be told", func(e event) bool {
		r, found := e.push(id)
		return found && r.State == "done"
	})
	bye, _ := s.until("goodbye", func(e event) bool { return e.name == "bye" })
	if bye.text != "{}" || s.next().name != "" {
		t.Errorf("%q, and more", bye.text)
	}
	if code := d.wait(); code != 0 {
		t.Errorf("the daemon ended with %d (%v)", code, d.waitErr)
	}
	checkObject(t, bucket, "key", file)
	deaf.body.Close()
	if d = d.restart(t); d.get(t, "/pushes/"+id).status != http.StatusOK {
		t.Error("the push is not there")
	}
}

// What had to be cut off, since its store hangs, is told to be queued before the goodbye:
// it has not ended.
func TestWatchACutOff(t *testing.T) {
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_DRAIN_TIMEOUT=1s")
	bucket, file := newBucket(t), makeFile(t, "file", 5_000_000)
	s := d.watch(t)
	p.hold()
	id := d.pushAsync(t, file, "s3://"+bucket+"/key").ID
	waitFor(t, "the push to be under way", func() bool { return p.nowHeld() == 1 })
	d.signal(syscall.SIGTERM)
	state := ""
	s.until("goodbye", func(e event) bool {
		if r, found := e.push(id); found {
			state = r.State
		}
		return e.name == "bye"
	})
	if state != "queued" {
		t.Errorf("the last that was said of the push: %q", state)
	}
	p.release()
	d.wait()
}
