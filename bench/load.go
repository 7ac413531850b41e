//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// load calls one with 0 to n-1, from callers goroutines that each begin the
// next call when their last one has returned, but no more than perSecond of them
// in a second where that is not 0. It returns how long each call took and how
// long all of them did. The first error ends it.
func load(ctx context.Context, n, callers, perSecond int, one func(ctx context.Context, i int) error) ([]time.Duration, time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	took := make([]time.Duration, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if perSecond > 0 {
					time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(perSecond))))
				}
				t := time.Now()
				if err := one(ctx, i); err != nil {
					cancel(fmt.Errorf("push %d of %d: %w", i+1, n, err))
					return
				}
				took[i] = time.Since(t)
			}
		})
	}
	wg.Wait()
	return took, time.Since(begin), context.Cause(ctx)
}

// A measurement is what one run of a workload has shown. A MB is 10^6 bytes
// and a GB is 10^9.
type measurement struct {
	Pushes       int     `json:"pushes"`
	Bytes        int64   `json:"bytes"`
	Seconds      float64 `json:"seconds"` // from the first push begun to the last answered
	PushesPerSec float64 `json:"pushes_per_second"`
	MBPerSec     float64 `json:"mb_per_second"`
	P50Millis    float64 `json:"p50_ms"`
	P99Millis    float64 `json:"p99_ms"`
	CPUPerPush   float64 `json:"cpu_ms_per_push"`
	CPUPerGB     float64 `json:"cpu_s_per_gb"`
	PeakMB       float64 `json:"peak_mb"`     // resident
	Connections  int     `json:"connections"` // to the store, open at one time
}

// newMeasurement puts the raw figures of a run into those that are reported.
// took has one entry for each push, and at least one.
func newMeasurement(took []time.Duration, elapsed time.Duration, size int64, cpu time.Duration, peak int64) measurement {
	slices.Sort(took)
	n, bytes := len(took), int64(len(took))*size
	return measurement{
		Pushes:       n,
		Bytes:        bytes,
		Seconds:      elapsed.Seconds(),
		PushesPerSec: float64(n) / elapsed.Seconds(),
		MBPerSec:     float64(bytes) / 1e6 / elapsed.Seconds(),
		P50Millis:    millis(percentile(took, 50)),
		P99Millis:    millis(percentile(took, 99)),
		CPUPerPush:   millis(cpu) / float64(n),
		CPUPerGB:     cpu.Seconds() / (float64(bytes) / 1e9),
		PeakMB:       float64(peak) / 1e6,
	}
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// percentile returns the smallest of the sorted values that at least p percent
// of them do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	rank := (len(sorted)*p + 99) / 100 // rounded up
	return sorted[max(rank, 1)-1]
}
