package main

import (
	"os"
	"runtime/debug"
)

const (
	// gcPercent lets the heap grow to three times what is in use before it is
	// collected. That is a few MB more of a small heap, and a tenth of the CPU
	// time of a small push.
	gcPercent = 200
	// leastMemoryLimit and bytesAPush bound that growth where the heap is not
	// small, because the queue is long.
	leastMemoryLimit = 256 << 20
	bytesAPush       = 300
)

// tuneMemory sets the garbage collector for a queue of that length, unless the
// environment does.
func tuneMemory(queueLimit int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(max(leastMemoryLimit, int64(queueLimit)*bytesAPush))
	}
}
