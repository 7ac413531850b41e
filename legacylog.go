package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// legacyHandler writes the log as the first, Python s3daemon did, for those who
// have programs that read it:
//
//	INFO 2026-11-26 22:31:16,123 __main__ - Starting server
//	INFO 2026-11-26 22:31:19,456 __main__ - 1795732278.120031 1.335512 sec - 2026-11-26/a.fits
//	ERROR 2026-11-26 22:31:20,789 __main__ - 1795732279.000127 1.788801 sec - 2026-11-26/b.fits - store_refused: the store ...
//
// A push that is done has a line with the time of its acceptance, in seconds since
// 1970, how many it took, and its key; one that failed has an error of the same
// form, and why. Those programs complain of what they do not know. So of all else
// warnings and errors alone are written, with what they are about as key=value;
// and everything only for who asked for the level debug.
type legacyHandler struct {
	level slog.Leveler
	to    *legacyWriter // shared by all handlers that are made of one
	rest  slog.Handler  // writes attributes into to.attrs
}

type legacyWriter struct {
	out io.Writer

	mu    sync.Mutex
	attrs bytes.Buffer // guarded by mu
}

func newLegacyHandler(out io.Writer, level slog.Leveler) *legacyHandler {
	to := &legacyWriter{out: out}
	return &legacyHandler{level: level, to: to, rest: slog.NewTextHandler(&to.attrs, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
				return slog.Attr{} // they stand before it
			}
			return a
		},
	})}
}

// Enabled lets warnings pass in any case, since some become errors.
func (h *legacyHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= min(h.level.Level(), slog.LevelWarn)
}

// WithAttrs returns a handler whose lines have these too.
func (h *legacyHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &legacyHandler{h.level, h.to, h.rest.WithAttrs(attrs)}
}

// WithGroup returns a handler whose attributes are in that group.
func (h *legacyHandler) WithGroup(name string) slog.Handler {
	return &legacyHandler{h.level, h.to, h.rest.WithGroup(name)}
}

// Handle writes one line, or none.
func (h *legacyHandler) Handle(ctx context.Context, r slog.Record) error {
	level, text := r.Level, ""
	switch {
	case r.Message == logStarting:
		text = "Starting server"
	case r.Message == "push done":
		text = legacyPush(r)
	case r.Message == "push failed":
		level, text = slog.LevelError, legacyPush(r)
	case level >= slog.LevelWarn, h.level.Level() < slog.LevelInfo:
		attrs, err := h.format(ctx, r)
		if err != nil {
			return err
		}
		text = strings.TrimSpace(r.Message + " " + attrs)
	}
	if text == "" || level < h.level.Level() {
		return nil
	}
	_, err := fmt.Fprintf(h.to.out, "%s %s __main__ - %s\n", legacyLevel(level), r.Time.Local().Format("2006-01-02 15:04:05,000"), inOneLine(text))
	return err
}

// format returns what a line is about as key=value.
func (h *legacyHandler) format(ctx context.Context, r slog.Record) (string, error) {
	h.to.mu.Lock()
	defer h.to.mu.Unlock()
	h.to.attrs.Reset()
	err := h.rest.Handle(ctx, r)
	return h.to.attrs.String(), err
}

// legacyPush is what the line of a push that has ended says, by the attributes that
// package uploader gives it.
func legacyPush(r slog.Record) string {
	var accepted time.Time
	var seconds float64
	var destination, code, detail string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "accepted_at":
			accepted = a.Value.Time()
		case "seconds":
			seconds = a.Value.Float64()
		case "destination":
			destination = a.Value.String()
		case "code":
			code = a.Value.String()
		case "detail":
			detail = a.Value.String()
		}
		return true
	})
	_, key, _ := strings.Cut(strings.TrimPrefix(destination, "s3://"), "/")
	text := fmt.Sprintf("%f %f sec - %s", float64(accepted.UnixMicro())/1e6, seconds, key)
	if code != "" {
		text += " - " + code + ": " + detail
	}
	return text
}

// legacyLevel is how Python calls a level.
func legacyLevel(level slog.Level) string {
	switch {
	case level >= slog.LevelError:
		return "ERROR"
	case level >= slog.LevelWarn:
		return "WARNING"
	case level >= slog.LevelInfo:
		return "INFO"
	}
	return "DEBUG"
}

// inOneLine has a space in the place of whatever a reader may take for the end of a
// line, as far as it is ASCII; keys may have other ends, which it makes visible.
func inOneLine(s string) string {
	spaced := strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
	return string(visible([]byte(spaced)))
}
