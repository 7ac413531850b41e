package journal

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// open opens a journal in dir, which is closed when the test is over. A process that
// another test starts at that moment may have the lock until it is another program.
func open(t testing.TB, cfg Config) *Journal {
	t.Helper()
	cfg.Wait = max(cfg.Wait, time.Second)
	j, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// example is a record as the uploader makes it.
func example(n int) *Record {
	return &Record{
		State: push.Queued,
		Request: push.Request{
			File:        fmt.Sprintf("/data/2026-11-26/r22_s11_%07d.fits", n),
			Destination: fmt.Sprintf("s3://raw/2026-11-26/r22_s11_%07d.fits", n),
			Label:       "night-1",
		},
		Size: int64(n), ModTime: time.Unix(1795600000, 123456789).UTC(), Device: 66305, Inode: uint64(1000000 + n),
		AcceptedAt: time.Unix(1795600001, int64(n)).UTC(),
	}
}

// ended is the record with an end.
func ended(r Record) *Record {
	r.State = push.Done
	r.StartedAt, r.FinishedAt = r.AcceptedAt.Add(time.Millisecond), r.AcceptedAt.Add(20*time.Millisecond)
	r.Attempts, r.Parts = 1, 1
	r.ETag = "d41d8cd98f00b204e9800998ecf8427e"
	r.Checksum = &push.Checksum{Algorithm: "crc64nvme", Value: "AAAAAAAAAAA="}
	return &r
}

// acceptAll accepts records and returns once they are on disk.
func acceptAll(t testing.TB, j *Journal, records ...*Record) {
	t.Helper()
	results := make(chan error, len(records))
	for _, r := range records {
		j.Accept(r, func(err error) { results <- err })
	}
	for range records {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
}

// endAll ends pushes and returns once that is on disk.
func endAll(j *Journal, records ...*Record) {
	done := make(chan struct{}, len(records))
	for _, r := range records {
		j.End(r, func() { done <- struct{}{} })
	}
	for range records {
		<-done
	}
}

// recorder is a log that a test can look at.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *recorder) WithGroup(string) slog.Handler            { return r }
func (r *recorder) Handle(_ context.Context, record slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := record.Level.String() + " " + record.Message
	record.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	r.lines = append(r.lines, line)
	return nil
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

func slogTo(r *recorder) *slog.Logger { return slog.New(r) }

func reopen(t *testing.T, j *Journal) *Journal {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := j.cfg
	cfg.Metrics = nil // where the first one still is
	again := open(t, cfg)
	if moved := again.MovedAside(); moved != "" {
		t.Fatalf("the journal was moved to %s", moved)
	}
	return again
}

func requeue1(j *Journal, r *Record) error {
	done := make(chan error, 1)
	j.Requeue(r, func(err error) { done <- err })
	return <-done
}

func accept1(j *Journal, r *Record) error {
	done := make(chan error, 1)
	j.Accept(r, func(err error) { done <- err })
	return <-done
}

func wantPush(t *testing.T, j *Journal, want *Record) {
	t.Helper()
	got, found, err := j.Get(want.ID)
	if err != nil || !found || !reflect.DeepEqual(&got, want) {
		t.Errorf("got  %+v, %v, %v\nwant %+v", got, found, err, *want)
	}
}

func wantQueued(t *testing.T, j *Journal, want ...*Record) {
	t.Helper()
	var got []*Record
	if err := j.Queued(func(r *Record) error { got = append(got, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%d pushes are queued, want %d", len(got), len(want))
	}
}
