package api

import (
	"context"
	"net/http"
)

// Events tells of the daemon as it changes. Its method is called by many
// goroutines at once.
type Events interface {
	// Watch calls emit with each piece of a text/event-stream, one after another,
	// the first at once. It returns when the context has ended, emit has failed, or
	// the daemon is about to end. What it hands to emit may not be changed.
	Watch(ctx context.Context, emit func(text []byte) error) error
}

// events answers for as long as its caller watches. He has a place of those who
// wait, and one who does not read what he asked for loses it, as with any answer
// (package listen): nothing is kept for him. Whether he may ask is looked at before
// each piece again, since a token may be replaced meanwhile.
func (a *api) events(w http.ResponseWriter, r *http.Request) {
	if _, err := parameters(r.URL.RawQuery); err != nil {
		a.refuse(w, err)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no") // else nginx, which many put before it, would wait for more
	if r.Method == http.MethodHead {
		return
	}
	if !a.waits.enter(true) {
		a.fail(w, "", tooMany("as many callers watch and wait as may: come again in a moment"))
		return
	}
	defer a.waits.leave(true)
	out := http.NewResponseController(w)
	_ = a.Events.Watch(r.Context(), func(text []byte) error {
		if err := a.known(r); err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
		return out.Flush()
	}) // what can fail is a caller who hung up, or may not ask any more
}
