package uploader

import (
	"context"
	"log/slog"

	"github.com/lsst-dm/s3daemon/push"
)

// refuse counts and logs a request that is not accepted, unless there were many in this
// second.
func (u *Uploader) refuse(req push.Request, err error) error {
	refusal := asPushError(err)
	u.metrics.refused(refusal.Code)
	attrs := []slog.Attr{slog.String("file", clip(req.File)), slog.String("destination", clip(req.Destination))}
	if u.refusals.Next(func(left int) {
		u.log.Warn("more pushes were refused, which have no lines of their own", "pushes", left)
	}) {
		u.log.LogAttrs(context.Background(), slog.LevelWarn, "push refused", append(attrs, reasons(clip(req.Label), refusal)...)...)
	}
	return refusal
}

// clip shortens what was asked for and is not accepted, which may be as long as a
// request.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// logEnd writes the one line of a push that has ended.
func (u *Uploader) logEnd(r push.Receipt, failure *push.Error) {
	attrs := []slog.Attr{
		slog.String("id", r.ID), slog.String("file", r.File), slog.String("destination", r.Destination),
		slog.Int64("size", r.Size), slog.Float64("seconds", r.Seconds),
	}
	if t := r.Timing; t != nil {
		attrs = append(attrs, slog.Float64("queued_seconds", t.Queued), slog.Float64("connect_seconds", t.Connect),
			slog.Float64("send_seconds", t.Send), slog.Float64("store_seconds", t.Store))
	}
	attrs = append(attrs, slog.Int("parts", r.Parts), slog.Int("attempts", r.Attempts))
	if u.metrics.isLate(r) {
		attrs = append(attrs, slog.Bool("late", true))
	}
	level, message := slog.LevelInfo, "push done"
	switch r.State {
	case push.Failed:
		level, message = slog.LevelWarn, "push failed"
	case push.Cancelled:
		message = "push cancelled"
	}
	u.log.LogAttrs(context.Background(), level, message, append(attrs, reasons(r.Label, failure)...)...)
}

// reasons returns what a line says besides: the label, if there is one, and the
// failure.
func reasons(label string, failure *push.Error) []slog.Attr {
	var attrs []slog.Attr
	if label != "" {
		attrs = append(attrs, slog.String("label", label))
	}
	if failure != nil {
		attrs = append(attrs, slog.String("code", string(failure.Code)), slog.String("detail", failure.Detail))
		if failure.Err != nil {
			attrs = append(attrs, slog.String("error", textOf(failure.Err)))
		}
	}
	return attrs
}
