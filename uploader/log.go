package uploader

import (
	"context"
	"log/slog"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

// refuse counts and tells of a request that is not accepted, and logs it unless there
// were many in this second.
func (u *Uploader) refuse(req push.Request, traceparent string, err error) error {
	refusal := asPushError(err)
	u.metrics.refused(refusal.Code)
	u.tellRefusal(refusal.Code)
	attrs := append(about("", clip(req.Label), traceparent), slog.String("file", clip(req.File)), slog.String("destination", clip(req.Destination)))
	if u.refusals.Next(func(left int) {
		u.log.Warn("more pushes were refused, which have no lines of their own", "pushes", left)
	}) {
		u.log.LogAttrs(context.Background(), slog.LevelWarn, "push refused", append(attrs, reasons(refusal)...)...)
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

// about returns the attributes by which lines of the log name a push: those of all
// that belong to it are the same. There is room for more behind them.
func about(id, label, traceparent string) []slog.Attr {
	attrs := make([]slog.Attr, 0, 20)
	for _, a := range [...]slog.Attr{slog.String("id", id), slog.String("label", label), slog.String("traceparent", traceparent)} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	return attrs
}

// about returns the attributes of the delivery's push; of the janitor's there is none.
func (d *delivery) about() []slog.Attr {
	id := ""
	if !d.id.IsZero() {
		id = d.id.String()
	}
	return append(about(id, d.req.Label, d.traceparent), slog.String("bucket", d.dest.Bucket), slog.String("key", d.dest.Key))
}

// aboutLocked returns those of an entry, as far as they are in memory.
func (e *entry) aboutLocked() []slog.Attr {
	label, traceparent := "", ""
	if e.label != nil {
		label = e.label.name
	}
	if e.task != nil && e.task.record != nil {
		traceparent = e.task.record.Traceparent
	}
	return about(e.id.String(), label, traceparent)
}

// logAccepted writes the line of a push that is on disk, or is there again.
func (u *Uploader) logAccepted(message string, r *journal.Record) {
	u.log.LogAttrs(context.Background(), slog.LevelInfo, message, append(about(r.ID.String(), r.Request.Label, r.Traceparent),
		slog.String("file", r.Request.File), slog.String("destination", r.Request.Destination), slog.Int64("size", r.Size))...)
}

// logUnreadable writes that the journal could not be read where a push needs that.
func (u *Uploader) logUnreadable(message string, e *entry, err error) {
	u.mu.Lock()
	attrs := e.aboutLocked()
	u.mu.Unlock()
	u.log.LogAttrs(context.Background(), slog.LevelError, message, append(attrs, slog.String("error", err.Error()))...)
}

// logEnd writes the one line of a push that has ended.
func (u *Uploader) logEnd(r push.Receipt, failure *push.Error) {
	attrs := append(about(r.ID, r.Label, r.Traceparent),
		slog.String("file", r.File), slog.String("destination", r.Destination), slog.Int64("size", r.Size),
		slog.Time("accepted_at", r.AcceptedAt), slog.Float64("seconds", r.Seconds))
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
	u.log.LogAttrs(context.Background(), level, message, append(attrs, reasons(failure)...)...)
}

// reasons returns what a line says of a failure, if there is one.
func reasons(failure *push.Error) []slog.Attr {
	if failure == nil {
		return nil
	}
	attrs := []slog.Attr{slog.String("code", string(failure.Code)), slog.String("detail", failure.Detail)}
	if failure.Err != nil {
		attrs = append(attrs, slog.String("error", textOf(failure.Err)))
	}
	return attrs
}
