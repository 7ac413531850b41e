package progress

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/batch"
)

// Lines writes a line for each file that is done, for logs.
type Lines struct {
	w io.Writer

	mu   sync.Mutex
	sums sums // guarded by mu
}

// NewLines starts the clock of so many files.
func NewLines(w io.Writer, files int) *Lines {
	return &Lines{w: w, sums: sums{files: files, begun: time.Now()}}
}

// News writes nothing: a log is read afterwards.
func (l *Lines) News(batch.Item, push.Receipt) {}

// Ended writes the line of a file that is done. One that failed is counted
// only: the error is for somebody else to tell.
func (l *Lines) Ended(o batch.Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sums.add(o)
	if o.Err == nil {
		fmt.Fprintf(l.w, "send: %s: done, %s in %.1f s\n", Name(o.Item.Name), Size(o.Receipt.Size), o.Receipt.Seconds)
	}
}

// Write writes other lines between ours.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// Close writes the line of all files.
func (l *Lines) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	io.WriteString(l.w, l.sums.line())
}
