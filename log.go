package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
)

// logStarting is the first line of each log.
const logStarting = "starting"

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
	handler := func(to io.Writer, level slog.Level) slog.Handler {
		options := &slog.HandlerOptions{Level: level}
		switch {
		case cfg.logFormat == "legacy":
			return newLegacyHandler(to, level)
		case cfg.logFormat == "text", cfg.logFormat == "auto" && isTerminal(out):
			return slog.NewTextHandler(to, options)
		}
		return slog.NewJSONHandler(to, options)
	}
	w := newLogWriter(out, cfg.log, stderr, func(to io.Writer) slog.Handler { return handler(to, slog.LevelWarn) })
	return slog.New(handler(w, cfg.logLevel)), w, nil
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
