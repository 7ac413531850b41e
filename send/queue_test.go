package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// queue is a stand-in for a daemon with a queue: it accepts pushes, knows them
// by id and by Idempotency-Key, and delivers them as their keys want it. A push
// that is delivered step by step makes a step each time it is asked about.
type queue struct {
	*httptest.Server
	t     *testing.T
	hold  chan struct{} // "held" pushes end when it is closed
	lists chan struct{} // has something for each list that was asked for, as far as somebody reads it

	mu     sync.Mutex
	pushes []*queued      // in the order of acceptance; guarded by mu
	refuse int            // requests that are answered 429 before one is accepted; guarded by mu
	cut    map[string]int // connections to cut after a request for this key was accepted; guarded by mu
	asked  int            // POST requests; guarded by mu
	most   int            // POST requests at once; guarded by mu
	now    int            // guarded by mu
	async  int            // of asked, with respond-async; guarded by mu
}

func newQueue(t *testing.T, address string) *queue {
	t.Helper()
	q := &queue{t: t, hold: make(chan struct{}), lists: make(chan struct{}, 1000), cut: make(map[string]int)}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /push", q.post)
	mux.HandleFunc("GET /pushes/{id}", q.get)
	mux.HandleFunc("GET /pushes", q.list)
	q.Server = httptest.NewUnstartedServer(mux)
	q.Listener.Close()
	q.Listener = listener
	q.Start()
	t.Cleanup(q.Close)
	return q
}

func (q *queue) post(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		q.t.Error(err)
	}
	async := r.Header.Get("Prefer") == "respond-async"
	q.mu.Lock()
	q.asked++
	q.now++
	q.most = max(q.most, q.now)
	if async {
		q.async++
	}
	refused := q.refuse > 0
	if refused {
		q.refuse--
	}
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.now--
	}()
	file, destination := r.PostForm.Get("file"), r.PostForm.Get("destination")
	base := destination[strings.LastIndex(destination, "/")+1:]
	switch {
	case refused:
		w.Header().Set("Retry-After", "0")
		answer(w, 429, push.Problem{Status: 429, Code: push.QueueFull, Detail: "the queue is full"})
		return
	case strings.HasPrefix(base, "missing"):
		answer(w, 404, push.Problem{Status: 404, Code: push.FileNotFound, Detail: fmt.Sprintf("there is no file %q", file)})
		return
	case strings.HasPrefix(base, "taken") && r.PostForm.Get("overwrite") == "false":
		answer(w, 412, push.Problem{Status: 412, Code: push.Exists, Detail: "there is another object", ID: "id0"})
		return
	}
	p := q.accept(r.Header.Get("Idempotency-Key"), r.PostForm.Encode(), push.Receipt{
		State: push.Queued, File: file, Destination: destination, Label: r.PostForm.Get("label"),
	}, base)
	q.mu.Lock()
	cut := q.cut[base] > 0
	q.cut[base]--
	q.mu.Unlock()
	if cut {
		panic(http.ErrAbortHandler)
	}
	if !async {
		q.await(r, p.ID)
	}
	q.tell(w, p.ID, async)
}

// accept returns the push with the key, or a new one.
func (q *queue) accept(key, body string, r push.Receipt, base string) *queued {
	q.mu.Lock()
	defer q.mu.Unlock()
	if key == "" {
		q.t.Error("a push that may be repeated has no key")
	}
	for _, p := range q.pushes {
		if p.key == key {
			if p.body != body {
				q.t.Errorf("key %s was used for %s and %s", key, p.body, body)
			}
			return p
		}
	}
	r.ID = fmt.Sprintf("id%d", len(q.pushes)+1)
	p := &queued{Receipt: r, key: key, body: body, steps: life(base)}
	q.pushes = append(q.pushes, p)
	return p
}

// findLocked returns the push, or nil.
func (q *queue) findLocked(id string) *queued {
	i := slices.IndexFunc(q.pushes, func(p *queued) bool { return p.ID == id })
	if i < 0 {
		return nil
	}
	return q.pushes[i]
}

// await takes the push to its end, which a held one has once hold is closed.
func (q *queue) await(r *http.Request, id string) {
	for {
		q.mu.Lock()
		p := q.findLocked(id)
		p.step()
		ended, held := p.State.Ended(), p.steps[0].State == push.Running && len(p.steps) == 1
		q.mu.Unlock()
		if ended {
			return
		}
		if held {
			select {
			case <-q.hold:
			case <-r.Context().Done():
				return
			}
			q.mu.Lock()
			p.steps = life("")
			q.mu.Unlock()
		}
	}
}

// tell answers with the push as it is now.
func (q *queue) tell(w http.ResponseWriter, id string, async bool) {
	q.mu.Lock()
	receipt := q.findLocked(id).Receipt
	q.mu.Unlock()
	switch {
	case receipt.State == push.Failed:
		answer(w, 502, push.Problem{Status: 502, Code: receipt.Problem.Code, Detail: receipt.Problem.Detail, Store: receipt.Problem.Store, ID: id})
	case receipt.State == push.Cancelled:
		answer(w, 409, push.Problem{Status: 409, Code: push.WasCancelled, Detail: "the push was cancelled", ID: id})
	case async && !receipt.State.Ended():
		answer(w, 202, receipt)
	default:
		answer(w, 200, receipt)
	}
}

// get answers at once, one step further, or at the end where it is asked to
// hold the answer for that long.
func (q *queue) get(w http.ResponseWriter, r *http.Request) {
	wait, err := time.ParseDuration(r.FormValue("wait"))
	if err != nil {
		q.t.Errorf("%s: %v", r.URL, err)
	}
	q.mu.Lock()
	p := q.findLocked(r.PathValue("id"))
	if p == nil {
		q.mu.Unlock()
		answer(w, 404, push.Problem{Status: 404, Code: push.PushNotFound, Detail: "there is no such push"})
		return
	}
	p.step()
	q.mu.Unlock()
	if wait >= time.Minute {
		q.await(r, p.ID)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	answer(w, 200, p.Receipt)
}

func (q *queue) list(w http.ResponseWriter, r *http.Request) {
	q.lists <- struct{}{}
	q.mu.Lock()
	defer q.mu.Unlock()
	page := push.Page{Pushes: []push.Receipt{}}
	states := strings.Split(r.FormValue("state"), ",")
	begun := r.FormValue("cursor") == ""
	for _, p := range slices.Backward(q.pushes) {
		if p.Label != r.FormValue("label") {
			continue
		}
		if r.FormValue("wait") != "" {
			p.step()
		}
		if !p.State.Ended() {
			page.Pending++
		}
		switch {
		case !begun:
			begun = p.ID == r.FormValue("cursor")
		case r.FormValue("state") != "" && !slices.Contains(states, string(p.State)):
		case len(page.Pushes) == 2: // pages are short here
			page.Next = page.Pushes[1].ID
		default:
			page.Pushes = append(page.Pushes, p.Receipt)
		}
	}
	answer(w, 200, page)
}

// trouble makes the queue refuse so many requests, and cut the connections of
// so many after a push to the key was accepted.
func (q *queue) trouble(refuse int, cut map[string]int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.refuse, q.cut = refuse, cut
}

// running counts the pushes that run.
func (q *queue) running() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, p := range q.pushes {
		if p.State == push.Running {
			n++
		}
	}
	return n
}

// counts returns how many pushes were accepted, and how many POST requests came
// for them.
func (q *queue) counts() (accepted, asked int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.pushes), q.asked
}
