package main

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// Lines that come close together are written together: at thousands of pushes a
// second each write costs as much as the line.
const (
	logGather = 2 * time.Millisecond // how long the first line waits for others
	logBatch  = 64 << 10             // bytes that are written at once, about
)

// logFlushTimeout bounds the wait for the last lines when the daemon ends.
const logFlushTimeout = time.Second

// logWriter writes lines in a goroutine of its own. Where the log goes may
// stand still, as a full pipe or a disk that hangs does, or take nothing, as a
// full disk; then lines are dropped and counted, and no push waits. What it has to
// say itself are lines of the log too.
type logWriter struct {
	lines   chan []byte
	dropped atomic.Int64
	reopen  chan struct{}
	stop    chan struct{}
	done    chan struct{}

	// The rest is the goroutine's own.

	out    io.Writer
	path   string // of the file that out is; empty: it is none of ours
	stderr io.Writer
	torn   bool         // what was written last ends within a line
	why    error        // of the last write that failed, until the log has been told
	notes  *slog.Logger // writes into note
	note   bytes.Buffer
}

// newLogWriter starts one on out, which is the file at the path if that is not
// empty. Where that cannot be opened again, stderr is told too. The handler makes
// lines of what the writer itself has to say.
func newLogWriter(out io.Writer, path string, stderr io.Writer, handler func(io.Writer) slog.Handler) *logWriter {
	w := &logWriter{
		lines: make(chan []byte, 4096), reopen: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		out: out, path: path, stderr: stderr, torn: endsTorn(path),
	}
	w.notes = slog.New(handler(&w.note))
	go w.run()
	return w
}

// Write takes one line. It never fails and never waits.
func (w *logWriter) Write(line []byte) (int, error) {
	select {
	case w.lines <- bytes.Clone(line):
	default:
		w.dropped.Add(1)
	}
	return len(line), nil
}

// Reopen opens the log's file anew, after it was renamed.
func (w *logWriter) Reopen() {
	select {
	case w.reopen <- struct{}{}:
	default:
	}
}

// Close writes the lines that are left, if that can be done in time.
func (w *logWriter) Close() {
	close(w.stop)
	select {
	case <-w.done:
	case <-time.After(logFlushTimeout):
	}
}

func (w *logWriter) run() {
	defer close(w.done)
	for {
		select {
		case line := <-w.lines:
			select {
			case <-time.After(logGather):
			case <-w.stop:
			}
			w.write(w.more(line))
		case <-w.reopen:
			w.openAgain()
		case <-w.stop:
			w.finish()
			return
		}
	}
}

// finish writes what is left, and word of what is not.
func (w *logWriter) finish() {
	for {
		select {
		case line := <-w.lines:
			w.write(w.more(line))
		default:
			if w.dropped.Load() > 0 {
				w.write(nil)
			}
			if w.path != "" {
				w.out.(io.Closer).Close()
			}
			return
		}
	}
}

// openAgain goes on in the file that has the path now. Where there can be none, those
// who rotate logs look at standard error: the log that is left may have been removed.
func (w *logWriter) openAgain() {
	if w.path == "" {
		return
	}
	f, err := openLogFile(w.path)
	if err != nil {
		note := w.say("the log cannot be opened again (S3DAEMON_LOG), and goes on in the file that it had", "error", err)
		w.write(note)
		go w.stderr.Write(note) // which may stand still
		return
	}
	w.out.(io.Closer).Close()
	w.out, w.torn = f, endsTorn(w.path)
}

// more returns the line and those that have come since.
func (w *logWriter) more(line []byte) []byte {
	for len(line) < logBatch {
		select {
		case next := <-w.lines:
			line = append(line, next...)
		default:
			return line
		}
	}
	return line
}

// write writes lines, after word of those that were dropped before them. Those that it
// cannot write whole are dropped: a log that is full is nobody's push.
func (w *logWriter) write(lines []byte) {
	var text []byte
	if w.torn {
		text = append(text, '\n')
	}
	dropped := w.dropped.Swap(0)
	if dropped > 0 {
		attrs := []any{"lines", dropped}
		if w.why != nil {
			attrs = append(attrs, "error", w.why)
		}
		text = append(text, w.say("lines of the log were dropped: they could not be written, or not fast enough", attrs...)...)
	}
	own := len(text)
	text = append(text, visible(lines)...)

	n, err := w.out.Write(text)
	if n > 0 {
		w.torn = text[n-1] != '\n'
	}
	if n < own { // nobody has been told of them yet
		w.dropped.Add(dropped)
	} else {
		w.why = nil
	}
	if n < len(text) {
		w.dropped.Add(int64(bytes.Count(text[max(n, own):], []byte("\n"))))
		w.why = err
	}
}

// say returns a line of the log.
func (w *logWriter) say(message string, attrs ...any) []byte {
	w.note.Reset()
	w.notes.Warn(message, attrs...)
	return bytes.Clone(visible(w.note.Bytes()))
}

// endsTorn reports whether the file ends within a line, as that of a process does whose
// disk was full.
func endsTorn(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false // what may not be read is not known
	}
	defer f.Close()
	var last [1]byte
	_, err = f.ReadAt(last[:], info.Size()-1)
	return err == nil && last[0] != '\n'
}
