package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// pagesQueue holds every large page until the test lets it go.
type pagesQueue struct {
	fakeQueue
	now  atomic.Int64 // large pages that are made
	free chan struct{}
}

func (q *pagesQueue) List(_ context.Context, f push.Filter, wait time.Duration) (push.Page, error) {
	if wait > 0 {
		return push.Page{Pending: 7}, nil
	}
	if f.Label == "large" || f.Text != "" {
		q.now.Add(1)
		<-q.free
	}
	return push.Page{Pending: 8}, nil
}

// TestLargePages asks for more of them than there may be at once: the others are
// told to come again if they wait too long, and those who want little do not.
func TestLargePages(t *testing.T) {
	r := newRig(t)
	queue := &pagesQueue{free: make(chan struct{})}
	cfg := r.config()
	cfg.Queue = queue
	r.server.Config.Handler, _ = New(cfg)
	usual := pageTimeout
	t.Cleanup(func() { pageTimeout = usual })
	pageTimeout = 10 * time.Millisecond
	var askers sync.WaitGroup
	for range mostPages {
		askers.Go(func() {
			resp, err := http.Get(r.server.URL + "/pushes?label=large&wait=1h")
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(body), `"pending":7`) {
				t.Errorf("%v: %s, want what the barrier found", err, body)
			}
		})
	}
	for queue.now.Load() < mostPages {
		runtime.Gosched()
	}
	resp, body := r.do(t, "GET", "/pushes?label=large", "", "")
	wantProblem(t, resp, body, 503, push.TooManyCallers)
	for _, query := range []string{"limit=1", "limit=10&wait=1h"} {
		if resp, body := r.do(t, "GET", "/pushes?"+query, "", ""); resp.StatusCode != 200 {
			t.Errorf("%s: %s %s", query, resp.Status, body)
		}
	}
	if n := queue.now.Load(); n != mostPages {
		t.Errorf("%d large pages at once, want %d", n, mostPages)
	}
	close(queue.free)
	askers.Wait()
}

// TestSearches are fewer at once, however little is asked for, and no other page waits
// for them.
func TestSearches(t *testing.T) {
	queue := &pagesQueue{free: make(chan struct{})}
	r := newRigWith(t, func(c *Config) { c.Queue = queue })
	usual := pageTimeout
	t.Cleanup(func() { pageTimeout = usual })
	pageTimeout = 10 * time.Millisecond
	var askers sync.WaitGroup
	for range mostSearches {
		askers.Go(func() {
			resp, err := http.Get(r.server.URL + "/pushes?text=a&limit=1")
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
		})
	}
	for queue.now.Load() < mostSearches {
		runtime.Gosched()
	}
	resp, body := r.do(t, "GET", "/pushes?limit=1&text=a", "", "")
	wantProblem(t, resp, body, 503, push.TooManyCallers)
	if resp, body := r.do(t, "GET", "/pushes?limit=1000", "", ""); resp.StatusCode != 200 {
		t.Errorf("a page without a text: %s %s", resp.Status, body)
	}
	close(queue.free)
	askers.Wait()
}

// TestLineForLargePages has as many wait for them as may: one more is told to
// come again at once.
func TestLineForLargePages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPages(mostPages)
		for range mostPages {
			if !p.enter() {
				t.Fatal("there is room, and one may not enter")
			}
		}
		entered := make(chan bool, mostWait)
		for range mostWait {
			go func() { entered <- p.enter() }()
		}
		synctest.Wait()
		begun := time.Now()
		if p.enter() || time.Since(begun) != 0 {
			t.Errorf("one too many enters, or waits %v", time.Since(begun))
		}
		p.leave()
		if !<-entered {
			t.Error("nobody enters for one who has left")
		}
		for range mostWait - 1 {
			if <-entered {
				t.Error("one too many has entered")
			}
		}
		if took := time.Since(begun); took != pageTimeout {
			t.Errorf("they gave up after %v, want %v", took, pageTimeout)
		}
		for range mostPages {
			p.leave()
		}
		if len(p.line)+len(p.made) > 0 {
			t.Errorf("%d and %d are left in it", len(p.line), len(p.made))
		}
	})
}

// bookQueue has pushes of which it lists as many as are asked for.
type bookQueue struct {
	fakeQueue
	pushes []push.Receipt
	lists  atomic.Int64
	fails  int64 // which list fails; 0: none
}

func (q *bookQueue) List(_ context.Context, f push.Filter, _ time.Duration) (push.Page, error) {
	if n := q.lists.Add(1); n == q.fails {
		return push.Page{}, push.Errorf(push.JournalUnavailable, "the journal cannot be read")
	}
	from := 0
	if !f.Before.IsZero() {
		from = 1 + slices.IndexFunc(q.pushes, func(r push.Receipt) bool { return r.ID == f.Before.String() })
	}
	page := push.Page{Pushes: q.pushes[from:min(from+f.Limit, len(q.pushes))], Pending: 3}
	if from+f.Limit < len(q.pushes) {
		page.Next = page.Pushes[f.Limit-1].ID
	}
	return page, nil
}

// book makes a queue of so many pushes, of several sizes.
func book(n int) *bookQueue {
	q := &bookQueue{}
	for i := range n {
		r := receiptOf(states[i%len(states)])
		r.ID = fmt.Sprintf("%s%012x", someID[:24], n-i)
		r.Label = "<a&b>\u2028" + strings.Repeat("x", i%7*1000)
		q.pushes = append(q.pushes, r)
	}
	return q
}

// TestPageInPieces compares what is written in pieces with what encoding/json
// makes of the whole.
func TestPageInPieces(t *testing.T) {
	for _, n := range []int{0, 1, firstPiece, firstPiece + 1, 100, 300} {
		for _, limit := range []int{1, 2, firstPiece, firstPiece + 1, 10, 99, 100, 101, 300, 1000} {
			queue := book(n)
			r := newRigWith(t, func(c *Config) { c.Queue = queue })
			want, _ := queue.List(t.Context(), push.Filter{Limit: limit}, 0)
			want.Pushes = slices.Clone(want.Pushes)
			for i := range want.Pushes {
				want.Pushes[i] = CompleteReceipt(want.Pushes[i])
			}
			var whole bytes.Buffer
			encoder := json.NewEncoder(&whole)
			encoder.SetEscapeHTML(false)
			if err := encoder.Encode(want); err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				whole.Reset()
				whole.WriteString(`{"pushes":[],"pending":3}` + "\n")
			}
			if _, got := r.do(t, "GET", fmt.Sprintf("/pushes?limit=%d", limit), "", ""); got != whole.String() {
				t.Errorf("%d of %d: %d bytes, want %d\n%.300s\nwant\n%.300s", limit, n, len(got), whole.Len(), got, whole.String())
			}
			r.server.Close()
		}
	}
}

// TestPageBreaksOff: half a page is none.
func TestPageBreaksOff(t *testing.T) {
	queue := book(100)
	queue.fails = 3
	r := newRigWith(t, func(c *Config) { c.Queue = queue })
	resp, err := http.Get(r.server.URL + "/pushes")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a page that could not be read has %d bytes, and nothing is wrong", len(body))
	}
	queue.lists.Store(queue.fails - 1)
	resp, body := r.do(t, "GET", "/pushes", "", "")
	wantProblem(t, resp, body, 503, push.JournalUnavailable)
}

// TestPagesThatLie has many more callers who do not read their long lists than
// may be made at once: others have theirs all the same, and what is made for
// those who do not read is little.
func TestPagesThatLie(t *testing.T) {
	queue := book(push.MaxPage)
	for i := range queue.pushes { // 10 MB, more than a connection holds
		queue.pushes[i].Label = strings.Repeat("x", 10_000)
	}
	r := newRigWith(t, func(c *Config) { c.Queue = queue })
	for range 3 * mostPages {
		conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.(*net.TCPConn).SetReadBuffer(4096)
		io.WriteString(conn, "GET /pushes?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	for queue.lists.Load() < 3*mostPages {
		runtime.Gosched()
	}
	for range 3 {
		if resp, body := r.do(t, "GET", "/pushes?limit=11", "", ""); resp.StatusCode != 200 || strings.Count(body, `"id"`) != 11 {
			t.Errorf("%s: %.300s", resp.Status, body)
		}
	}
}
