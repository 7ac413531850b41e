// Command history fills a daemon's data directory with pushes that have ended, for
// tests of what many of them cost whoever asks for them:
//
//	history DIR N
//
// They are of one night: the label night12, files of 18 MB that are nowhere, each
// delivered half a second after its acceptance.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "history:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	if len(args) != 2 {
		return errors.New("it takes a directory and a number")
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	j, err := journal.Open(context.Background(), journal.Config{Dir: args[0], Metrics: prometheus.NewRegistry()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	const batch = 5000 // so that not all of them wait for the disk at once
	for first := 0; first < n; first += batch {
		if err := fill(j, first, min(first+batch, n)); err != nil {
			return err
		}
	}
	return nil
}

// fill adds the pushes with these numbers, and returns once they are on disk.
func fill(j *journal.Journal, first, end int) error {
	records := make([]*journal.Record, 0, end-first)
	accepted := make(chan error, end-first)
	for i := first; i < end; i++ {
		r := numbered(i)
		records = append(records, r)
		j.Accept(r, func(err error) { accepted <- err })
	}
	for range records {
		if err := <-accepted; err != nil {
			return err
		}
	}
	ended := make(chan struct{}, len(records))
	for _, r := range records {
		r.State = push.Done
		j.End(r, func() { ended <- struct{}{} })
	}
	for range records {
		<-ended
	}
	return nil
}

func numbered(i int) *journal.Record {
	at := time.Now().UTC()
	name := fmt.Sprintf("r%02d_s%02d_%06d.fits", i%25, i%9, i)
	return &journal.Record{
		Request: push.Request{File: "/data/2026-11-26/" + name, Destination: "s3://raw/2026-11-26/" + name, Label: "night12"},
		Size:    18_000_000, ModTime: at, AcceptedAt: at, StartedAt: at, FinishedAt: at.Add(time.Second / 2), Attempts: 1, Parts: 1,
		ETag: "50513ea3db4a975714fa99e4dbdbf993", Checksum: &push.Checksum{Algorithm: "crc64nvme", Value: "+YngVX9KFeM="},
		Verified: &push.Verified{What: "object", Algorithm: "crc64nvme", By: "daemon", Value: "+YngVX9KFeM="},
		Spent:    &journal.Spent{Send: 400 * time.Millisecond, Store: 100 * time.Millisecond},
	}
}
