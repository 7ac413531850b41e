package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// exchange is a request that a fault proxy saw, and what became of it.
type exchange struct {
	request
	what    what
	arrived time.Time
	outcome string // in words, beyond what: "gone", "broken"
	status  int    // the store's own answer; 0 where it was not asked, or gave none
	read    int64  // of a body that is read slowly
	ended   bool
	conn    *faultConn
}

// record is all that a fault proxy saw. The proxy's mutex guards it.
type record struct {
	all     []*exchange
	stored  []*exchange            // those that the store answered with 2xx, in the order of its answers
	inStore map[string][]*exchange // object -> requests that make it and that the store is at
	crowded []string               // objects that two requests made at once
}

// begin records a request and asks the plan.
func (p *faultProxy) begin(r *http.Request) (*exchange, fault) {
	path, _, _ := strings.Cut(r.URL.Path, "?")
	bucket, key, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	p.mu.Lock()
	defer p.mu.Unlock()
	x := &exchange{
		request: request{
			n: len(p.all) + 1, op: operationOf(r.Method, r.URL.Query(), key), method: r.Method,
			path: r.RequestURI, bucket: bucket, key: key, size: r.ContentLength,
			traceparent: strings.Join(r.Header["Traceparent"], " and "),
		},
		arrived: time.Now(),
	}
	x.conn, _ = r.Context().Value(connKey{}).(*faultConn)
	p.all = append(p.all, x)
	f := p.plan(x.request)
	x.what = f.what
	return x, f
}

// outcome says what became of a request in place of what was planned.
func (p *faultProxy) outcome(x *exchange, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x.outcome = text
}

func (p *faultProxy) end(x *exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x.ended = true
	p.leaveStoreLocked(x)
}

// leaveStoreLocked says that the store is done with a request.
func (p *faultProxy) leaveStoreLocked(x *exchange) {
	if at := slices.Index(p.inStore[x.object()], x); at >= 0 {
		p.inStore[x.object()] = slices.Delete(p.inStore[x.object()], at, at+1)
	}
}

// toStore says that a request goes on to the store. Another of the same object
// must not be there, unless it is of a daemon that has died: what that one had
// sent is out of everybody's hands.
func (p *faultProxy) toStore(x *exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !x.makesObject() {
		return
	}
	for _, other := range p.inStore[x.object()] {
		if daemonHas(other.conn) && daemonHas(x.conn) {
			p.crowded = append(p.crowded, x.object())
		}
	}
	if p.inStore == nil {
		p.inStore = map[string][]*exchange{}
	}
	p.inStore[x.object()] = append(p.inStore[x.object()], x)
}

// fromStore says what the store answered.
func (p *faultProxy) fromStore(x *exchange, status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x.status = status
	p.leaveStoreLocked(x)
	if status/100 == 2 {
		p.stored = append(p.stored, x)
	}
}

// makesObject reports whether an object is new or another when the request has
// succeeded.
func (x *exchange) makesObject() bool {
	return x.op == "PutObject" || x.op == "CompleteMultipartUpload"
}

func (x *exchange) object() string { return x.bucket + "/" + x.key }

// requests returns a copy of all requests of the operations named, separated by
// spaces, or of all operations.
func (p *faultProxy) requests(ops string) (found []exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.all {
		if ops == "" || slices.Contains(strings.Fields(ops), x.op) {
			found = append(found, *x)
		}
	}
	return found
}

// requestsOf returns how many requests there were for a key.
func (p *faultProxy) requestsOf(key string) (n int) {
	for _, x := range p.requests("") {
		if x.key == key {
			n++
		}
	}
	return n
}

// objectsMade returns the requests that made an object under the key, in the
// order in which the store answered them.
func (p *faultProxy) objectsMade(bucket, key string) (found []exchange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.stored {
		if x.makesObject() && x.bucket == bucket && x.key == key {
			found = append(found, *x)
		}
	}
	return found
}

// madeAtOnce returns the objects that two requests made at the same time.
func (p *faultProxy) madeAtOnce() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.crowded)
}

// count returns how many requests of an operation ("" for any) met a fate.
func (p *faultProxy) count(op string, w what) (n int) {
	for _, x := range p.requests(op) {
		if x.what == w && x.outcome == "" {
			n++
		}
	}
	return n
}

// summary says in one line what a proxy saw: requests by operation and fate.
func (p *faultProxy) summary() string {
	counts := map[string]int{}
	for _, x := range p.requests("") {
		fate := x.what.String()
		if x.outcome != "" {
			fate = x.outcome
		} else if x.what == passes {
			fate = fmt.Sprint(x.status)
		}
		counts[x.op+" "+fate]++
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		words = append(words, fmt.Sprintf("%s: %d", name, counts[name]))
	}
	return strings.Join(words, ", ")
}
