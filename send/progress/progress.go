// Package progress shows how far the pushes of a batch are: [Bars] on a
// terminal, [Lines] elsewhere. Both are a batch.Observer, and end with a line
// for all files together:
//
//	p := progress.NewBars(os.Stderr, files, bytes)
//	tally, err := batch.Config{Observer: p, ...}.Run(ctx, items)
//	p.Close()
package progress

import (
	"fmt"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/batch"
)

// sums is what is known of all files together. It has no lock.
type sums struct {
	files int   // to push
	bytes int64 // in them, as far as is known
	begun time.Time

	done, failed int
	delivered    int64 // bytes of those done
}

// add counts a push that has ended.
func (s *sums) add(o batch.Outcome) {
	if o.Err != nil {
		s.failed++
		return
	}
	s.done++
	s.delivered += o.Receipt.Size
}

// line is the one at the end.
func (s *sums) line() string {
	took := time.Since(s.begun)
	text := fmt.Sprintf("send: %d of %s done, %s in %s", s.done, plural(s.files, "file"), Size(s.delivered), seconds(took))
	if s.delivered > 0 && took > 0 {
		text += fmt.Sprintf(" (%s)", speed(float64(s.delivered)/took.Seconds()))
	}
	if s.failed > 0 {
		text += fmt.Sprintf(", %d failed", s.failed)
	}
	return text + "\n"
}

// state has words for what a push does that is not sending; they are empty
// while it is.
func state(r push.Receipt) string {
	switch {
	case !r.RetryAt.IsZero() && r.Problem != nil:
		return "retrying: " + push.OneLine(r.Problem.Detail)
	case !r.RetryAt.IsZero():
		return "retrying"
	case r.State == push.Queued:
		return "queued"
	}
	return ""
}

// Size writes a number of bytes for a person.
func Size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1023.95 && unit < len(units)-1 { // which would be written as 1024.0
		value /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

func speed(perSecond float64) string { return Size(int64(perSecond)) + "/s" }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Name writes a file's name for a line of its own: as it is, or quoted where it
// has characters that would break the line or move the cursor.
func Name(name string) string {
	if push.OneLine(name) == name {
		return name
	}
	return fmt.Sprintf("%q", name)
}
