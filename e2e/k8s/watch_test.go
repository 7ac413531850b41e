package k8s

import (
	"bytes"
	"encoding/json"
	"sync"
	"time"
)

// watched is all that the API server has said of a pod: its last state is known
// when it is gone, with the times at which its containers ended.
type watched struct {
	n     *namespace
	name  string
	ended chan struct{}

	mu  sync.Mutex
	out bytes.Buffer // guarded by mu
}

// watch begins to record a pod's states. The pod is there already.
func (n *namespace) watch(pod string) *watched {
	n.t.Helper()
	w := &watched{n: n, name: pod, ended: make(chan struct{})}
	n.background(w, w.ended, "get", "pod", pod, "--watch", "--output-watch-events", "--output", "json")
	n.until(patience, "the watch of "+pod+" has begun", func() error {
		if len(w.states()) == 0 {
			return errNotYet
		}
		return nil
	})
	return w
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(p)
}

// podEvent is one state of a pod.
type podEvent struct {
	Type   string `json:"type"` // ADDED, MODIFIED, DELETED
	Object pod    `json:"object"`
}

// states returns those that there were so far.
func (w *watched) states() (all []podEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	decoder := json.NewDecoder(bytes.NewReader(w.out.Bytes()))
	for {
		var e podEvent
		if decoder.Decode(&e) != nil {
			return all
		}
		all = append(all, e)
	}
}

// untilGone waits until the pod that was there first is deleted, and returns its
// last state: another one may have taken its name.
func (w *watched) untilGone(limit time.Duration) (last pod) {
	w.n.t.Helper()
	w.n.until(limit, "pod "+w.name+" is gone", func() error {
		states := w.states()
		for _, e := range states {
			if e.Object.Metadata.UID == states[0].Object.Metadata.UID {
				last = e.Object
				if e.Type == "DELETED" {
					return nil
				}
			}
		}
		return errNotYet
	})
	return last
}
