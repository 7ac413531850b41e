package progress

import (
	"errors"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/batch"
)

const mib = 1 << 20

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1024*1024 - 1: "1.0 MiB", mib: "1.0 MiB",
		18 * mib: "18.0 MiB", 5 << 40: "5.0 TiB", 1<<63 - 1: "8.0 EiB",
	} {
		if got := Size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestName(t *testing.T) {
	for name, want := range map[string]string{
		"/data/a b.fits": "/data/a b.fits", "Größe": "Größe", "": "",
		"a\nb": `"a\nb"`, "\x1b[2Jx": `"\x1b[2Jx"`, "/\xff": "/\xff", " a": `" a"`,
	} {
		if got := Name(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestShorten(t *testing.T) {
	for name, want := range map[string]string{
		"a.fits":                          "a.fits",
		strings.Repeat("x", 23):           strings.Repeat("x", 23),
		strings.Repeat("x", 23) + "y":     "…" + strings.Repeat("x", 21) + "y",
		strings.Repeat("é", 30) + ".fits": "…" + strings.Repeat("é", 17) + ".fits",
	} {
		got := shorten(name)
		if got != want || utf8.RuneCountInString(got) >= nameWidth {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func TestState(t *testing.T) {
	at := time.Now()
	why := &push.Problem{Detail: "no route\nto it"}
	for want, r := range map[string]push.Receipt{
		"":                         {State: push.Running},
		"queued":                   {State: push.Queued},
		"retrying":                 {State: push.Queued, RetryAt: at},
		"retrying: no route to it": {State: push.Running, RetryAt: at, Problem: why},
	} {
		if got := state(r); got != want {
			t.Errorf("%+v: %q", r, got)
		}
	}
}

// outcome is the end of the i-th push.
func outcome(i int, size int64, err error) batch.Outcome {
	return batch.Outcome{Item: batch.Item{Index: i, Name: "/f"}, Receipt: push.Receipt{State: push.Done, Size: size, Seconds: 2}, Err: err}
}

func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w strings.Builder
		l := NewLines(&w, 3)
		l.News(batch.Item{}, push.Receipt{State: push.Queued})
		<-time.After(4 * time.Second)
		l.Ended(outcome(0, 3*mib, nil))
		l.Ended(outcome(1, 0, errors.New("no")))
		l.Write([]byte("another line\n"))
		l.Ended(outcome(2, 5*mib, nil))
		l.Close()
		const want = "send: /f: done, 3.0 MiB in 2.0 s\nanother line\nsend: /f: done, 5.0 MiB in 2.0 s\n" +
			"send: 2 of 3 files done, 8.0 MiB in 4.0 s (2.0 MiB/s), 1 failed\n"
		if w.String() != want {
			t.Errorf("%s\nwant\n%s", w.String(), want)
		}
	})
}

// TestBarsCount follows the figures of all files, without a terminal: the
// tests of package main have one.
func TestBarsCount(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	var w strings.Builder
	b := NewBars(&w, []int64{4 * mib, 0, 8 * mib, 1 * mib})
	news := func(i int, size, sent int64) {
		b.News(batch.Item{Index: i, Name: "/f"}, push.Receipt{State: push.Running, Size: size, SentBytes: sent})
	}
	check := func(what, count, words string, bytes, of int64) {
		t.Helper()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.drawTotalLocked()
		text := regexp.MustCompile(`^` + Size(bytes) + ` / ` + Size(of) + ` \S+ [KMGT]?i?B/s` + words + `$`)
		if got := *b.text.Load(); !text.MatchString(got) || *b.count.Load() != count {
			t.Errorf("%s: %q %q, want %q %q", what, *b.count.Load(), got, count, text)
		}
		if got := b.total.Current(); got != bytes || b.sums.bytes != of {
			t.Errorf("%s: %d of %d bytes, want %d of %d", what, got, b.sums.bytes, bytes, of)
		}
	}
	check("before", "total 0/4 files", "", 0, 13*mib)
	news(0, 4*mib, mib)
	news(1, 2*mib, mib) // the size was not known
	check("two under way", "total 0/4 files", "", 2*mib, 15*mib)
	news(0, 4*mib, 3*mib)
	news(1, 2*mib, 0) // begins anew
	check("a retry", "total 0/4 files", "", 3*mib, 15*mib)
	b.News(batch.Item{Index: 1}, push.Receipt{State: push.Queued, Size: 2 * mib})
	check("one waits", "total 0/4 files", " 1 waiting", 3*mib, 15*mib)
	b.Ended(outcome(0, 4*mib, nil))
	b.Ended(outcome(2, 0, errors.New("no")))
	check("one done, one failed", "total 2/4 files", " 1 failed 1 waiting", 4*mib, 7*mib)
	b.Ended(outcome(1, 2*mib, nil))
	b.Ended(outcome(3, 3*mib, nil)) // it grew since it was looked at
	check("all", "total 4/4 files", " 1 failed", 9*mib, 9*mib)
	b.Close()
	if !strings.HasPrefix(w.String(), "send: 3 of 4 files done, 9.0 MiB in ") || !strings.HasSuffix(w.String(), ", 1 failed\n") {
		t.Errorf("%q", w.String())
	}
	deadline := time.After(30 * time.Second)
	for runtime.NumGoroutine() > goroutines {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%d goroutines are left", runtime.NumGoroutine()-goroutines)
		}
	}
}
