package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
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
	if f.Limit == 0 {
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
			resp, err := http.Get(r.server.URL + "/pushes?wait=1h")
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
	resp, body := r.do(t, "GET", "/pushes", "", "")
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

// TestLineForLargePages has as many wait for them as may: one more is told to
// come again at once.
func TestLineForLargePages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPages()
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

// TestEncodePage compares what is encoded in pieces with what encoding/json
// makes of the whole.
func TestEncodePage(t *testing.T) {
	receipts := []push.Receipt{receiptOf(push.Done), receiptOf(push.Queued), receiptOf(push.Failed)}
	receipts[1].Label = "<a&b>\u2028"
	receipts[2].Problem = &push.Problem{Code: push.FileNotFound, Detail: "it is not there"}
	for _, n := range []int{0, 1, encodeAtOnce, 2*encodeAtOnce + 1} {
		for _, next := range []string{"", someID} {
			page := push.Page{Pushes: []push.Receipt{}, Next: next, Pending: n}
			var want push.Page
			for i := range n {
				page.Pushes = append(page.Pushes, receipts[i%len(receipts)])
			}
			want = page
			want.Pushes = slices.Clone(page.Pushes)
			for i := range want.Pushes {
				want.Pushes[i].Problem = withStatus(want.Pushes[i].Problem)
			}
			var whole bytes.Buffer
			encoder := json.NewEncoder(&whole)
			encoder.SetEscapeHTML(false)
			if err := encoder.Encode(want); err != nil {
				t.Fatal(err)
			}
			if got := string(encodePage(page)); got != whole.String() {
				t.Errorf("%d pushes: %s\nwant %s", n, got, whole.String())
			}
		}
	}
}
