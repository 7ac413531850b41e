//go:build linux

package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// stuck is a log that nobody takes lines from until it is let go.
type stuck struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines.Write(p)
}

// TestLogThatStandsStill writes more than there is room for: nobody waits, and
// the log says how much is missing once it goes on.
func TestLogThatStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(stuck)
		out.mu.Lock()
		w := newLogWriter(out, "")
		log := slog.New(slog.NewTextHandler(w, nil))
		for range 5000 {
			log.Info("line")
		}
		out.mu.Unlock()
		time.Sleep(time.Second) // by the test's own clock
		log.Info("the last one")
		w.Close()
		text := out.lines.String()
		if !strings.Contains(text, "lines of the log were dropped") || !strings.Contains(text, "the last one") {
			t.Errorf("%d lines, the last ones:\n%s", strings.Count(text, "\n"), text[max(0, len(text)-300):])
		}
	})
}

func TestLogIsReopened(t *testing.T) {
	for _, format := range []string{"auto", "json", "text", "legacy"} {
		t.Run(format, func(t *testing.T) { testLogIsReopened(t, format) })
	}
}

func testLogIsReopened(t *testing.T, format string) {
	dir := t.TempDir()
	path, old := filepath.Join(dir, "log"), filepath.Join(dir, "log.1")
	log, w, err := openLog(config{log: path, logFormat: format}, nil)
	if err != nil {
		t.Fatal(err)
	}
	log.Warn("before")
	await(t, "the line", func() bool { text, _ := os.ReadFile(path); return strings.Contains(string(text), "before") })
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	w.Reopen()
	await(t, "the new file", func() bool { _, err := os.Stat(path); return err == nil })
	log.Warn("after")
	w.Close()
	want := map[string]string{"auto": `"msg":"after"`, "json": `"msg":"after"`, "text": "msg=after", "legacy": "__main__ - after"}[format]
	if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), want) {
		t.Errorf("the new file has %q, %v", text, err)
	}
	if text, err := os.ReadFile(old); err != nil || strings.Contains(string(text), "after") {
		t.Errorf("the old file has %q, %v", text, err)
	}
}

// TestLogThatCannotBe must be an error at once, not a wait.
func TestLogThatCannotBe(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, filepath.Join(t.TempDir(), "no", "log"), t.TempDir()} {
		t.Setenv("S3DAEMON_LOG", path)
		if err := daemon(t.Context(), os.Stderr); err == nil || exitStatus(err) != 2 || !strings.Contains(err.Error(), "S3DAEMON_LOG") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
