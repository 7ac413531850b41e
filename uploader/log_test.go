package uploader

import (
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

// debugging has the rig's log take all lines.
func debugging(r *lockedBuffer) func(*Config) {
	return func(c *Config) {
		c.Log = slog.New(slog.NewJSONHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
}

// linesOf returns the lines of a log that name the push.
func linesOf(t *testing.T, log, id string) (lines []map[string]any) {
	t.Helper()
	for text := range strings.Lines(log) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if line["id"] == id {
			lines = append(lines, line)
		}
	}
	return lines
}

func messages(lines []map[string]any) (all []string) {
	for _, l := range lines {
		all = append(all, l["level"].(string)+" "+l["msg"].(string))
	}
	return all
}

// TestLinesOfAPush: one when it was accepted, one when it has ended; between them, for
// who wants to know, one for each attempt that failed. All have what names it.
func TestLinesOfAPush(t *testing.T) {
	log := new(lockedBuffer)
	r := newRig(t, debugging(log))
	path, _ := r.file(t, "f", 10)
	run := func(key string, ways ...string) []map[string]any {
		t.Helper()
		r.failing("PutObject", ways...)
		receipt, _ := r.Uploader.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/" + key, Label: "night 1"},
			push.Options{Wait: push.Forever, Traceparent: aTraceparent})
		lines := linesOf(t, log.String(), receipt.ID)
		for _, l := range lines {
			if l["label"] != "night 1" || l["traceparent"] != aTraceparent {
				t.Errorf("%v does not say which push it is about", l)
			}
		}
		return lines
	}
	lines := run("smooth")
	if got, want := messages(lines), []string{"INFO push accepted", "INFO push done"}; !slices.Equal(got, want) {
		t.Errorf("the lines %q, want %q", got, want)
	}
	for _, l := range lines {
		if l["file"] != path || l["destination"] != "s3://bucket/smooth" || l["size"] != 10.0 {
			t.Errorf("the line %v", l)
		}
	}
	if l := lines[len(lines)-1]; l["accepted_at"] == nil || l["seconds"] == nil {
		t.Errorf("the last line %v", l)
	}
	lines = run("rough", "reset", "503 SlowDown")
	if got, want := messages(lines), []string{"INFO push accepted", "DEBUG attempt failed", "DEBUG push waits for another attempt", "INFO push done"}; !slices.Equal(got, want) {
		t.Errorf("the lines %q, want %q", got, want)
	}
	if l := lines[1]; l["operation"] != "PutObject" || l["reason"] != "connection" || l["error"] == nil || l["key"] != "rough" {
		t.Errorf("the attempt's line %v", l)
	}
	lines = run("failing", "400 InvalidRequest")
	if got, want := messages(lines), []string{"INFO push accepted", "WARN push failed"}; !slices.Equal(got, want) {
		t.Errorf("the lines %q, want %q", got, want)
	}
	id := parseID(t, lines[0]["id"].(string))
	if _, err := r.Retry(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	r.ended(t, id, push.Done)
	if got, want := messages(linesOf(t, log.String(), id.String())[2:]), []string{"INFO push put back", "INFO push done"}; !slices.Equal(got, want) {
		t.Errorf("put back, the lines %q, want %q", got, want)
	}
	if _, err := r.Uploader.Push(t.Context(), push.Request{File: "relative", Destination: "s3://bucket/k", Label: "night 2"}, push.Options{Traceparent: aTraceparent}); err == nil {
		t.Fatal("a relative path was accepted")
	}
	for text := range strings.Lines(log.String()) {
		if strings.Contains(text, "push refused") && (!strings.Contains(text, "night 2") || !strings.Contains(text, aTraceparent)) {
			t.Errorf("what was refused has the line %s", text)
		}
	}
}
