package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// Lines that come close together are written together: at thousands of pushes a
// second each write costs as much as the line.
const (
	logGather = 2 * time.Millisecond // how long the first line waits for others
	logBatch  = 64 << 10             // bytes that are written at once, about
)

// logStarting is the first line of each log.
const logStarting = "starting"

// logFlushTimeout bounds the wait for the last lines when the daemon ends.
const logFlushTimeout = time.Second

// openLog makes the logger that the configuration asks for. The logWriter must
// be closed.
func openLog(cfg config, stderr io.Writer) (*slog.Logger, *logWriter, error) {
	out := stderr
	if cfg.log != "" {
		f, err := openLogFile(cfg.log)
		if err != nil {
			return nil, nil, fmt.Errorf("S3DAEMON_LOG: %w", err)
		}
		out = f
	}
	w := newLogWriter(out, cfg.log)
	options := &slog.HandlerOptions{Level: cfg.logLevel}
	switch {
	case cfg.logFormat == "legacy":
		return slog.New(newLegacyHandler(w, cfg.logLevel)), w, nil
	case cfg.logFormat == "text", cfg.logFormat == "auto" && isTerminal(out):
		return slog.New(slog.NewTextHandler(w, options)), w, nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), w, nil
}

// openLogFile opens the file to append to it. A FIFO that nobody reads is an
// error, not a wait.
func openLogFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NONBLOCK, 0o640)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// logWriter writes lines in a goroutine of its own. Where the log goes may
// stand still, as a full pipe or a disk that hangs does; then lines are dropped
// and counted, and no push waits.
type logWriter struct {
	lines   chan []byte
	dropped atomic.Int64
	reopen  chan struct{}
	stop    chan struct{}
	done    chan struct{}
}

// newLogWriter starts one on out, which is the file at the path if that is not
// empty.
func newLogWriter(out io.Writer, path string) *logWriter {
	w := &logWriter{
		lines: make(chan []byte, 4096), reopen: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go w.run(out, path)
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

func (w *logWriter) run(out io.Writer, path string) {
	defer close(w.done)
	for {
		select {
		case line := <-w.lines:
			select {
			case <-time.After(logGather):
			case <-w.stop:
			}
			w.write(out, w.more(line))
		case <-w.reopen:
			if path == "" {
				continue
			}
			f, err := openLogFile(path)
			if err != nil {
				fmt.Fprintf(out, "the log cannot be reopened, and goes on here: %v\n", err)
				continue
			}
			out.(io.Closer).Close()
			out = f
		case <-w.stop:
			for {
				select {
				case line := <-w.lines:
					w.write(out, w.more(line))
				default:
					if path != "" {
						out.(io.Closer).Close()
					}
					return
				}
			}
		}
	}
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

// write writes lines, after word of those that were dropped before them.
func (w *logWriter) write(out io.Writer, lines []byte) {
	if n := w.dropped.Swap(0); n > 0 {
		fmt.Fprintf(out, "%d lines of the log were dropped: it was not taken away fast enough\n", n)
	}
	_, _ = out.Write(lines) // a log that is full is nobody's push
}
