package main

import (
	"bytes"
	"errors"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// whatUsersRead is the expression by which the users of the Python s3daemon read its
// log, as they have written it.
var whatUsersRead = regexp.MustCompile(`INFO (.+) __main__ - ([0-9]+.[0-9]+) ([0-9]+.[0-9]+)`)

func TestLegacyLog(t *testing.T) {
	accepted := time.UnixMicro(1795732278120031)
	end := func(destination string) []any {
		return []any{"id", "i", "label", "night 1", "destination", destination, "size", int64(3), "accepted_at", accepted, "seconds", 1.3355117}
	}
	failed := append(end("s3://raw/in/b.fits"), "code", "store_refused", "detail", "the store refused", "error", "500")
	for _, tt := range []struct {
		name  string
		level slog.Level
		log   func(*slog.Logger)
		want  string // behind the prefix; empty: no line
	}{
		{"the start", slog.LevelInfo, func(l *slog.Logger) { l.Info(logStarting, "version", "1") }, "INFO Starting server"},
		{"done", slog.LevelInfo, func(l *slog.Logger) { l.Info("push done", end("s3://raw/in/a.fits")...) }, "INFO 1795732278.120031 1.335512 sec - in/a.fits"},
		{"a key with blanks", slog.LevelInfo, func(l *slog.Logger) { l.Info("push done", end("s3://raw//a  b/ü ")...) }, "INFO 1795732278.120031 1.335512 sec - /a  b/ü "},
		{"a key in two lines", slog.LevelInfo, func(l *slog.Logger) { l.Info("push done", end("s3://raw/a\u2028b\u0085c")...) }, "INFO 1795732278.120031 1.335512 sec - a\\u2028b\\u0085c"},
		{"failed", slog.LevelInfo, func(l *slog.Logger) { l.Warn("push failed", failed...) }, "ERROR 1795732278.120031 1.335512 sec - in/b.fits - store_refused: the store refused"},
		{"failed, and errors alone are wanted", slog.LevelError, func(l *slog.Logger) { l.Warn("push failed", failed...) }, "ERROR 1795732278.120031 1.335512 sec - in/b.fits - store_refused: the store refused"},
		{"done, and errors alone are wanted", slog.LevelError, func(l *slog.Logger) { l.Info("push done", end("s3://raw/a")...) }, ""},
		{"a warning, and errors alone are wanted", slog.LevelError, func(l *slog.Logger) { l.Warn("it is late") }, ""},
		{"accepted", slog.LevelInfo, func(l *slog.Logger) { l.Info("push accepted", end("s3://raw/a")...) }, ""},
		{"cancelled", slog.LevelInfo, func(l *slog.Logger) { l.Info("push cancelled", end("s3://raw/a")...) }, ""},
		{"accepted, for who wants to know all", slog.LevelDebug, func(l *slog.Logger) { l.Info("push accepted", "id", "i") }, "INFO push accepted id=i"},
		{"an attempt", slog.LevelDebug, func(l *slog.Logger) { l.Debug("attempt failed", "error", "broken\npipe") }, `DEBUG attempt failed error="broken\npipe"`},
		{"an attempt that nobody wants to know of", slog.LevelInfo, func(l *slog.Logger) { l.Debug("attempt failed") }, ""},
		{"a warning", slog.LevelInfo, func(l *slog.Logger) { l.Warn("it is\nlate", "by", 3*time.Second, "of", "a b") }, `WARNING it is late by=3s of="a b"`},
		{"an error", slog.LevelInfo, func(l *slog.Logger) { l.Error("no", "error", errors.New("disk full")) }, `ERROR no error="disk full"`},
		{"a logger of one's own", slog.LevelInfo, func(l *slog.Logger) { l.With("key", "k").WithGroup("g").Warn("left", "n", 1) }, "WARNING left key=k g.n=1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			before := time.Now()
			tt.log(slog.New(newLegacyHandler(&out, tt.level)))
			if tt.want == "" {
				if out.Len() > 0 {
					t.Errorf("it wrote %q", &out)
				}
				return
			}
			level, rest, _ := strings.Cut(tt.want, " ")
			at, said, found := strings.Cut(strings.TrimPrefix(strings.TrimSuffix(out.String(), "\n"), level+" "), " __main__ - ")
			when, err := time.ParseInLocation("2006-01-02 15:04:05,000", at, time.Local)
			if !found || !strings.HasPrefix(out.String(), level+" ") || said != rest || strings.Count(out.String(), "\n") != 1 {
				t.Errorf("it wrote %q, want %s TIME __main__ - %s", &out, level, rest)
			}
			if err != nil || when.Before(before.Truncate(time.Millisecond)) || when.After(time.Now()) {
				t.Errorf("at %q, %v", at, err)
			}
			delivered := level == "INFO" && strings.Contains(rest, " sec - ")
			if whatUsersRead.MatchString(out.String()) != delivered {
				t.Errorf("those who read such logs take %q for a delivery: %v", &out, !delivered)
			}
		})
	}
}

// TestLegacyLogOfMany: each line is whole, however many are written at once.
func TestLegacyLogOfMany(t *testing.T) {
	lines := make(chan string, 1000)
	log := slog.New(newLegacyHandler(writerFunc(func(p []byte) (int, error) {
		lines <- string(p)
		return len(p), nil
	}), slog.LevelInfo))
	done := make(chan struct{})
	for i := range 10 {
		go func() {
			for range 100 {
				log.With("who", i).Warn("late", "again", i)
			}
			done <- struct{}{}
		}()
	}
	for range 10 {
		<-done
	}
	close(lines)
	var said []string
	for line := range lines {
		_, rest, _ := strings.Cut(line, " __main__ - ")
		said = append(said, rest)
	}
	slices.Sort(said)
	if said = slices.Compact(said); len(said) != 10 || said[3] != "late who=3 again=3\n" {
		t.Errorf("%q", said)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
