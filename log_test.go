//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

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
		w := newLogWriter(out, "", nil, func(to io.Writer) slog.Handler { return slog.NewTextHandler(to, nil) })
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

// cramped is a disk with little room, which is made while the log goes on.
type cramped struct {
	room  int
	lines bytes.Buffer
}

func (c *cramped) Write(p []byte) (int, error) {
	n := min(len(p), c.room)
	c.room -= n
	c.lines.Write(p[:n])
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// TestLogOnAFullDisk has the disk be full at each place of a line, or of the word of
// lines that are missing: no line is lost in silence, and none sticks to half another.
func TestLogOnAFullDisk(t *testing.T) {
	asJSON := func(to io.Writer) slog.Handler { return slog.NewJSONHandler(to, nil) }
	const each = 3 // lines before the disk is full, while it is, and after there is room
	for first := range 60 {
		for second := 0; second < 400; second += 7 {
			out := &cramped{room: first}
			w := newLogWriter(io.Discard, "", nil, asJSON)
			w.Close() // its goroutine is this one
			w.out = out
			for i := range 3 * each {
				if i == each {
					out.room = second
				}
				if i == 2*each {
					out.room = 1 << 20
				}
				w.write(fmt.Appendf(nil, `{"msg":"line %d"}`+"\n", i))
			}
			whole, dropped := 0, 0
			for line := range strings.Lines(out.lines.String()) {
				var said struct {
					Msg   string
					Lines int
					Error string
				}
				if err := json.Unmarshal([]byte(line), &said); err != nil {
					if i := strings.Index(line, "{"); strings.Contains(line[i+1:], "{") {
						t.Fatalf("room for %d and %d: two lines in one: %s", first, second, line)
					}
					continue // half a line
				}
				if strings.HasPrefix(said.Msg, "line ") {
					whole++
				} else if dropped += said.Lines; said.Error != syscall.ENOSPC.Error() {
					t.Fatalf("it does not say why: %s", line)
				}
			}
			// Of one that lacks its end alone both is true.
			if whole+dropped < 3*each || whole+dropped > 3*each+2 || whole < each {
				t.Fatalf("room for %d and %d: %d lines are whole, %d are said to be dropped, of %d:\n%s", first, second, whole, dropped, 3*each, &out.lines)
			}
		}
	}
}

// TestLogGoesOnAfterHalfALine: a process whose disk was full has left one.
func TestLogGoesOnAfterHalfALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("half a li"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, w, err := openLog(config{log: path, logFormat: "text"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	log.Warn("whole")
	w.Close()
	text, err := os.ReadFile(path)
	if lines := strings.Split(string(text), "\n"); err != nil || len(lines) != 3 || lines[0] != "half a li" || !strings.HasPrefix(lines[1], "time=") {
		t.Errorf("the file has %q, %v", text, err)
	}
}

// TestLogWhoseReaderGoes reads the log from a FIFO, goes, and comes again: the new
// reader is told of what was written meanwhile.
func TestLogWhoseReaderGoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	read := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	reader := read()
	log, w, err := openLog(config{log: path, logFormat: "json"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	log.Warn("first")
	if line, err := bufio.NewReader(reader).ReadString('\n'); err != nil || !strings.Contains(line, "first") {
		t.Fatalf("%q, %v", line, err)
	}
	reader.Close()
	log.Warn("nobody reads this")
	await(t, "the line to be dropped", func() bool { return w.dropped.Load() == 1 })
	reader = read()
	defer reader.Close()
	log.Warn("second")
	lines := bufio.NewScanner(reader)
	for _, want := range []string{`"lines":1,"error":"write ` + path + `: broken pipe"`, `"msg":"second"`} {
		if !lines.Scan() || !strings.Contains(lines.Text(), want) {
			t.Errorf("the new reader gets %q, want %s", lines.Text(), want)
		}
	}
	w.Close()
}

// TestLogCannotBeReopened: standard error is told, for the file that the log goes on in
// has been removed, perhaps.
func TestLogCannotBeReopened(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "log")
	heard, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	defer stderr.Close()
	log, w, err := openLog(config{log: path, logFormat: "legacy"}, stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	log.Warn("before")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	w.Reopen()
	line, err := bufio.NewReader(heard).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "WARNING ") || !strings.Contains(line, "S3DAEMON_LOG") || !strings.Contains(line, "no such file") {
		t.Errorf("standard error has %q, %v", line, err)
	}
}

// TestLogShowsWhatIsHidden: what a key may have that is not seen, or turns the writing
// about, stands in the log as an escape, and says the same to who reads JSON.
func TestLogShowsWhatIsHidden(t *testing.T) {
	const key = "a\u0085\u009b31m\u007f\u200b\u202egp.exe\u2066\ufeff\u2028\U000e0041ü\u00a0日"
	hidden := func(r rune) bool {
		return r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp))
	}
	for _, format := range []string{"json", "text", "legacy"} {
		path := filepath.Join(t.TempDir(), "log")
		log, w, err := openLog(config{log: path, logFormat: format}, nil)
		if err != nil {
			t.Fatal(err)
		}
		log.Warn("push failed", "destination", "s3://raw/"+key, "code", "store_refused", "detail", "no")
		w.Close()
		text, err := os.ReadFile(path)
		if err != nil || strings.ContainsFunc(string(text), hidden) || bytes.Count(text, []byte("\n")) != 1 || !bytes.Contains(text, []byte(`\u202e`)) {
			t.Errorf("%s: %q, %v", format, text, err)
		}
		var line struct{ Destination string }
		if format == "json" && (json.Unmarshal(text, &line) != nil || line.Destination != "s3://raw/"+key) {
			t.Errorf("read from JSON it is %q", line.Destination)
		}
	}
}

func BenchmarkVisible(b *testing.B) {
	for name, key := range map[string]string{"ASCII": "visit/a.fits", "others": "visit/ü日.fits", "hidden": "visit/\u202e.fits"} {
		b.Run(name, func(b *testing.B) {
			line := fmt.Appendf(nil, `{"time":"2026-11-27T00:00:00.000000000Z","level":"INFO","msg":"push done","id":"01a21a5e-7690-7b78-9e48-52ad95db0196","label":"camera","file":"/data/%s","destination":"s3://raw/%[1]s","size":1048576,"attempts":1}`+"\n", key)
			for b.Loop() {
				visible(line)
			}
		})
	}
}
