package status

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// frame is what watchers are told at one moment. Nothing in it changes.
type frame struct {
	made    time.Time
	number  uint64 // one more than that of the frame before
	status  []byte // events, as text
	pushes  []byte // what has changed since the frame before; may be empty
	history []byte
	step    int    // that the history ends with
	whole   []byte // what one is told who had the frame before
}

// reconnect is for watchers that are browsers: after how many milliseconds they
// are to come again.
var reconnect = []byte("retry: 2000\n\n")

// bye is the last thing that watchers are told.
var bye = []byte("event: bye\ndata: {}\n\n")

// newFrame returns one with the events; before is the frame before, or nil.
func newFrame(made time.Time, before *frame, now statusEvent, changed *pushesEvent, past func() historyEvent, step int) *frame {
	f := &frame{made: made, number: 1, step: step}
	if before != nil {
		f.number = before.number + 1
	}
	f.status = event(f.number, "status", now)
	if changed != nil {
		f.pushes = event(f.number, "pushes", changed)
	}
	if before != nil && before.step == step {
		f.history = before.history
	} else {
		f.history = event(0, "history", past()) // it is told again with later frames
	}
	f.whole = f.assemble(before)
	return f
}

// after returns what one is told whose last frame was that; nil: he has had none.
func (f *frame) after(last *frame) []byte {
	switch {
	case last == nil:
		return bytes.Join([][]byte{reconnect, f.status, f.history}, nil)
	case last.number+1 == f.number:
		return f.whole
	}
	return f.assemble(last)
}

func (f *frame) assemble(last *frame) []byte {
	parts := [][]byte{f.status, f.pushes}
	if last == nil || last.step != f.step {
		parts = append(parts, f.history)
	}
	return bytes.Join(parts, nil)
}

// event returns one as text; 0: without a number.
func event(number uint64, name string, data any) []byte {
	var text bytes.Buffer
	if number > 0 {
		fmt.Fprintf(&text, "id: %d\n", number)
	}
	fmt.Fprintf(&text, "event: %s\ndata: ", name)
	encoder := json.NewEncoder(&text) // which writes one line
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(data) // into memory, of types that can be encoded
	text.WriteByte('\n')
	return text.Bytes()
}
