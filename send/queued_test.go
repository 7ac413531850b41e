package main

import (
	"strings"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

const mib = 1 << 20

// queued is an accepted push.
type queued struct {
	push.Receipt
	key, body string
	steps     []push.Receipt // what it becomes, one at a time; the last one stays
}

// life is what becomes of a push to the key once it is accepted.
func life(key string) []push.Receipt {
	failure := &push.Problem{Code: push.StoreRefused, Detail: "the store refused: no such bucket",
		Store: &push.StoreAnswer{Code: "NoSuchBucket", RequestID: "R1"}}
	done := push.Receipt{State: push.Done, Size: 4 * mib, Seconds: 1.25}
	switch kind, _, _ := strings.Cut(key, "."); kind {
	case "fails":
		return []push.Receipt{{State: push.Failed, Problem: failure}}
	case "cancelled":
		return []push.Receipt{{State: push.Cancelled}}
	case "steps":
		var steps []push.Receipt
		for i := range int64(5) {
			steps = append(steps, push.Receipt{State: push.Running, Size: 4 * mib, SentBytes: i * mib})
		}
		return append(steps, done)
	case "retries":
		waits := push.Receipt{State: push.Queued, Size: 4 * mib, RetryAt: time.Now().Add(time.Hour),
			Problem: &push.Problem{Code: push.StoreUnreachable, Detail: "no route\nto the store"}}
		return []push.Receipt{waits, waits, waits, waits, waits, done}
	case "waits":
		waits := push.Receipt{State: push.Queued, Size: 4 * mib}
		return []push.Receipt{waits, waits, waits, waits, waits, done}
	case "held":
		return []push.Receipt{{State: push.Running, Size: 4 * mib, SentBytes: mib}}
	}
	return []push.Receipt{done}
}

// step takes the push one step further.
func (p *queued) step() {
	next := p.steps[0]
	if len(p.steps) > 1 {
		p.steps = p.steps[1:]
	}
	p.State, p.Size, p.SentBytes, p.Seconds, p.RetryAt, p.Problem = next.State, next.Size, next.SentBytes, next.Seconds, next.RetryAt, next.Problem
}
