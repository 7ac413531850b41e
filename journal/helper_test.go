package journal

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// open opens a journal in dir, which is closed when the test is over.
func open(t testing.TB, cfg Config) *Journal {
	t.Helper()
	j, err := Open(cfg)
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

func slogTo(r *recorder) *slog.Logger { return slog.New(r) }
