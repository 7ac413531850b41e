package status

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// some returns a number with what there are so many of.
func some(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// span returns a time in one unit, as people say it.
func span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", d.Seconds()), ".0") + " s"
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 100*time.Minute:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}

// rate returns bytes a second.
func rate(perSecond float64) string {
	for _, unit := range []string{"B/s", "kB/s", "MB/s"} {
		if perSecond < 999.5 {
			return fmt.Sprintf("%.3g %s", perSecond, unit)
		}
		perSecond /= 1000
	}
	return fmt.Sprintf("%.3g GB/s", perSecond)
}

// moment returns when something was, in UTC, behind a word; nothing where that is
// not known.
func (f facts) moment(word string, at time.Time) string {
	at, now := at.UTC(), f.now.UTC()
	switch {
	case at.IsZero():
		return ""
	case at.Format(time.DateOnly) == now.Format(time.DateOnly):
		return word + at.Format("15:04:05") + " UTC"
	}
	return word + at.Format("2006-01-02 15:04") + " UTC"
}

// since says since when something is so, and for how long once that is minutes:
// of seconds the words would be others each time. Nothing where it is not known.
func (f facts) since(at time.Time) string {
	words := f.moment(" since ", at)
	if lasts := f.now.Sub(at); words != "" && lasts >= time.Minute {
		words += " (" + span(lasts) + ")"
	}
	return words
}

// sentence returns a text with a capital, and without the end of a sentence.
func sentence(text string) string {
	text = strings.TrimRight(text, ". ")
	if text == "" {
		return ""
	}
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}
