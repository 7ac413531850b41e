package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/batch"
	"github.com/lsst-dm/s3daemon/send/client"
	"github.com/lsst-dm/s3daemon/send/progress"
)

// reporter tells the user of a batch: what was asked for on standard output,
// everything else on standard error.
type reporter struct {
	stdout, stderr io.Writer
	json, async    bool
	several        bool    // there is more than one file
	display        display // with -progress, else nil

	mu  sync.Mutex
	err error // the first from standard output; guarded by mu
}

// display is what -progress shows.
type display interface {
	batch.Observer
	io.Writer
	Close()
}

// show begins to show the progress, and returns how often to look for it.
func (r *reporter) show(items []batch.Item) time.Duration {
	if !isTerminal(r.stderr) {
		r.display = progress.NewLines(r.stderr, len(items))
		r.stderr = r.display
		return watchTime
	}
	sizes := make([]int64, len(items))
	for i, item := range items {
		if info, err := os.Stat(item.File); err == nil && info.Mode().IsRegular() {
			sizes[i] = info.Size()
		}
	}
	bars := progress.NewBars(r.stderr, sizes)
	if sameFile(r.stdout, r.stderr) {
		r.stdout = bars // so that lines and bars do not overwrite each other
	}
	r.display, r.stderr = bars, bars
	return drawTime
}

// end removes the bars. What is written from now on comes after them.
func (r *reporter) end() {
	if r.display != nil {
		r.display.Close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		fmt.Fprintf(r.stderr, "send: write to standard output: %v\n", r.err)
	}
}

// News passes the news on to the display.
func (r *reporter) News(item batch.Item, receipt push.Receipt) {
	if r.display != nil {
		r.display.News(item, receipt)
	}
}

// Ended reports on a push.
func (r *reporter) Ended(o batch.Outcome) {
	if r.display != nil {
		r.display.Ended(o)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.Err != nil {
		fmt.Fprintf(r.stderr, "send: %s: %s\n", progress.Name(o.Item.Name), explain(o.Err))
	}
	line := r.line(o)
	if line == "" {
		return
	}
	if _, err := io.WriteString(r.stdout, line); err != nil && r.err == nil {
		r.err = err
	}
}

// line is what standard output has of a push.
func (r *reporter) line(o batch.Outcome) string {
	switch {
	case r.json:
		var compact bytes.Buffer
		if err := json.Compact(&compact, o.JSON); err != nil {
			panic(err) // it was read as JSON before
		}
		return strings.TrimSpace(compact.String()) + "\n"
	case r.async && o.Err == nil && r.several:
		return o.Receipt.ID + "\t" + progress.Name(o.Item.Name) + "\n"
	case r.async && o.Err == nil:
		return o.Receipt.ID + "\n"
	}
	return ""
}

// outage tells of a daemon that has not been answering for a while.
func (r *reporter) outage(err error, lasts time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.stderr, "send: %s; asking again for up to %v\n", explain(err), lasts)
}

// unfinished says why the batch ended before all of its pushes had, and how many
// are where.
func (r *reporter) unfinished(ctx context.Context, t batch.Tally, err error) {
	why := explain(err)
	if ctx.Err() != nil {
		why = "interrupted"
	}
	fmt.Fprintf(r.stderr, "send: %s: %s\n", why, r.whereabouts(t))
}

// whereabouts says how many pushes are where.
func (r *reporter) whereabouts(t batch.Tally) string {
	done := "done"
	if r.async {
		done = "accepted"
	}
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{
		{t.Done, done},
		{t.Failed, "failed"},
		{t.Accepted, "going on by themselves in the daemon"},
		{t.Unclear, "perhaps going on in the daemon"},
		{t.Untouched, "not pushed"},
	} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}

// explain is client.Explain with what a user can do about it.
func explain(err error) string {
	if gaveUp, is := errors.AsType[*batch.GaveUpError](err); is {
		return explain(gaveUp.Err) + gaveUp.Suffix()
	}
	if of, is := errors.AsType[*batch.ItemError](err); is {
		return progress.Name(of.Name) + ": " + explain(of.Err)
	}
	text := client.Explain(err)
	if _, isUnreachable := errors.AsType[*client.UnreachableError](err); isUnreachable {
		text += hint
	}
	if known, is := errors.AsType[*push.Error](err); is && known.Code == push.Unauthorized {
		text += tokenHint
	}
	return text
}

// hint is for those whose daemon is not found.
const hint = " (S3DAEMON_URL says where to look)"

// tokenHint is for those whom the daemon does not let in.
const tokenHint = " (S3DAEMON_TOKEN_FILE says which file send takes the token from)"
