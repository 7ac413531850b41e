package main

import (
	"runtime/debug"
	"testing"
)

// TestTuneMemory: what the environment says of the garbage collector counts, and
// what the daemon would have chosen counts for nothing then.
func TestTuneMemory(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
	for _, tt := range []struct {
		gogc, gomemlimit string
		queueLimit       int
		percent          int
		limit            int64
	}{
		{"", "", 1000, gcPercent, leastMemoryLimit},
		{"", "", 10_000_000, gcPercent, 3_000_000_000},
		{"50", "", 1000, 70, leastMemoryLimit},
		{"", "64MiB", 10_000_000, gcPercent, 1 << 40},
		{"off", "off", 1000, 70, 1 << 40},
	} {
		debug.SetGCPercent(70) // as the runtime would have from the environment, before main
		debug.SetMemoryLimit(1 << 40)
		t.Setenv("GOGC", tt.gogc)
		t.Setenv("GOMEMLIMIT", tt.gomemlimit)
		tuneMemory(tt.queueLimit)
		if got := debug.SetMemoryLimit(-1); got != tt.limit {
			t.Errorf("with GOMEMLIMIT=%s and a queue of %d the limit is %d, want %d", tt.gomemlimit, tt.queueLimit, got, tt.limit)
		}
		if got := debug.SetGCPercent(100); got != tt.percent {
			t.Errorf("with GOGC=%s the heap may grow by %d %%, want %d", tt.gogc, got, tt.percent)
		}
	}
}
