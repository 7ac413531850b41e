package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
)

// output keeps what a process writes, and wakes those who wait for some line
// of it.
type output struct {
	mu       sync.Mutex // guards what follows
	text     []byte
	ended    bool
	more     chan struct{} // closed, and made anew, when there is more
	searched stream        // for secrets
}

func newOutput() *output {
	return &output{more: make(chan struct{}), searched: stream{leaks: theLeaks, where: "what a process wrote"}}
}

// Write appends p.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	o.searched.Write(p)
	close(o.more)
	o.more = make(chan struct{})
	return len(p), nil
}

// end says that no more will come.
func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	close(o.more)
	o.more = make(chan struct{})
}

// bytes returns what was written until now.
func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.text)
}

// logLine is a line of the daemon's log.
type logLine map[string]any

// wait returns the first n lines of the log with that message.
func (o *output) wait(ctx context.Context, n int, msg string) ([]logLine, error) {
	for {
		o.mu.Lock()
		text, ended, more := slices.Clone(o.text), o.ended, o.more
		o.mu.Unlock()
		if lines := logLines(text, msg); len(lines) >= n {
			return lines[:n], nil
		}
		if ended {
			return nil, fmt.Errorf("the process ended without %d lines %q", n, msg)
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %d lines %q: %w", n, msg, ctx.Err())
		}
	}
}

// logLines returns the complete lines of text that are JSON objects with the
// message given.
func logLines(text []byte, msg string) (found []logLine) {
	for line := range bytes.Lines(text) {
		var l logLine
		if bytes.HasSuffix(line, []byte("\n")) && json.Unmarshal(line, &l) == nil && l["msg"] == msg {
			found = append(found, l)
		}
	}
	return found
}
