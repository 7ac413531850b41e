package k8s

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"sync"
	"time"
)

// followed is what a container says, also when its pod is gone.
type followed struct {
	n     *namespace
	what  string
	ended chan struct{} // closed when there is no more

	mu  sync.Mutex
	out bytes.Buffer // guarded by mu
}

// follow begins to read what a container says, from its start to its end.
func (n *namespace) follow(pod, container string) *followed {
	n.t.Helper()
	f := &followed{n: n, what: pod + "/" + container, ended: make(chan struct{})}
	n.background(f, f.ended, "logs", pod, "--container", container, "--follow")
	return f
}

// background starts kubectl, whose output goes to out; ended is closed when it
// has ended. It is stopped at the test's end.
func (n *namespace) background(out interface{ Write([]byte) (int, error) }, ended chan struct{}, args ...string) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "kubectl", n.args(args)...)
	cmd.Stdout = out
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		n.t.Fatal(err)
	}
	go func() {
		defer close(ended)
		cmd.Wait()
	}()
	n.t.Cleanup(func() {
		cancel()
		<-ended
	})
}

func (f *followed) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.Write(p)
}

func (f *followed) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.out.String()
}

// all waits for the container's end, and returns all that it said.
func (f *followed) all() string {
	f.n.t.Helper()
	select {
	case <-f.ended:
	case <-time.After(patience):
		f.n.t.Fatalf("%s has not ended within %v; it said:\n%s", f.what, patience, tail(f.text(), 4000))
	}
	return f.text()
}

// untilSays waits until the container has said a line of JSON of which that is
// so, and returns it.
func untilSays[T any](f *followed, what string, so func(T) bool) (found T) {
	f.n.t.Helper()
	f.n.until(patience, f.what+" says "+what, func() error {
		for _, l := range linesOf[T](f.text()) {
			if so(l) {
				found = l
				return nil
			}
		}
		return fmt.Errorf("it has said\n%s", tail(f.text(), 2000))
	})
	return found
}

// linesOf returns the lines of a text that are JSON objects.
func linesOf[T any](text string) (all []T) {
	for line := range bytes.Lines([]byte(text)) {
		var l T
		if json.Unmarshal(line, &l) == nil {
			all = append(all, l)
		}
	}
	return all
}

// written is a line of a writer: of a file, or of an event; see tool/write.go.
type written struct {
	File    string    `json:"file"`
	Key     string    `json:"key"`
	Size    int64     `json:"size"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	OK      bool      `json:"ok"`
	Status  int       `json:"status"`
	Answer  string    `json:"answer"`

	Event  string    `json:"event"` // sigterm, end
	At     time.Time `json:"at"`
	Failed int       `json:"failed"`
}

// logged is a line of the daemon's log.
type logged struct {
	Time        time.Time `json:"time"`
	Level       string    `json:"level"`
	Msg         string    `json:"msg"`
	ID          string    `json:"id"`
	Destination string    `json:"destination"`
	Pushes      int       `json:"pushes"` // how many a line is about that is about several
}
