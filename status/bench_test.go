package status

import (
	"fmt"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// BenchmarkEnded is what a push costs more than without a board.
func BenchmarkEnded(b *testing.B) {
	board := New(Config{Deadline: 7 * time.Second})
	r := done(0.5, 1000)
	b.ReportAllocs()
	for b.Loop() {
		board.Ended(r)
	}
}

// BenchmarkFrame is what a second costs while somebody watches a busy daemon.
func BenchmarkFrame(b *testing.B) {
	board := New(Config{Deadline: 7 * time.Second})
	var overview push.Overview
	for i := range 25 {
		overview.Connections = append(overview.Connections, push.Connection{Number: i, Address: "192.0.2.1:443", RTT: 200 * time.Millisecond})
	}
	var changed []push.Receipt
	for i := range 150 {
		changed = append(changed, push.Receipt{ID: fmt.Sprint(i), State: push.Running, File: "/data/2026-11-26/r22_s11.fits", Destination: "s3://raw/2026-11-26/r22_s11.fits", Timing: &push.Timing{}, Checksum: &push.Checksum{}})
	}
	m := &maker{board: board, source: &still{overview, changed}}
	b.ReportAllocs()
	for b.Loop() {
		m.sample(time.Now())
		m.frame(time.Now())
	}
}

// still is a source that never changes.
type still struct {
	overview push.Overview
	changed  []push.Receipt
}

func (s *still) Overview() push.Overview                      { return s.overview }
func (s *still) Changes(uint64) ([]push.Receipt, uint64, int) { return s.changed, 1, 900 }
