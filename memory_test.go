package main

import (
	"math"
	"os"
	"path/filepath"
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
	allowed := memoryAllowed("/") // to these tests
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
		if tt.gomemlimit == "" {
			tt.limit = min(tt.limit, allowed-allowed/4)
		}
		if got := debug.SetMemoryLimit(-1); got != tt.limit {
			t.Errorf("with GOMEMLIMIT=%s and a queue of %d the limit is %d, want %d", tt.gomemlimit, tt.queueLimit, got, tt.limit)
		}
		if got := debug.SetGCPercent(100); got != tt.percent {
			t.Errorf("with GOGC=%s the heap may grow by %d %%, want %d", tt.gogc, got, tt.percent)
		}
	}
}

// TestMemoryAllowed: the least limit of the groups that the process is in counts, as
// each version of the kernel's and containers show them, and leaves room for what is
// not the heap's.
func TestMemoryAllowed(t *testing.T) {
	for _, tt := range []struct {
		name    string
		files   map[string]string
		allowed int64
		limit   int64 // of the heap, for a short queue
	}{
		{"no groups", nil, math.MaxInt64, leastMemoryLimit},
		{"no limit", map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, math.MaxInt64, leastMemoryLimit},
		{"a container", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "134217728\n"}, 128 << 20, 96 << 20},
		{"much", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1073741824\n"}, 1 << 30, leastMemoryLimit},
		{"a slice around it", map[string]string{
			"proc/self/cgroup": "0::/a.slice/b.service\n", "sys/fs/cgroup/a.slice/b.service/memory.max": "200000000\n", "sys/fs/cgroup/a.slice/memory.max": "100000000\n",
		}, 100_000_000, 75_000_000},
		{"a container that is told the host's name", map[string]string{"proc/self/cgroup": "0::/../kubepods/x\n", "sys/fs/cgroup/memory.max": "100000000\n"}, 100_000_000, 75_000_000},
		{"version 1", map[string]string{
			"proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/x\n0::/\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "100000000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory.max": "max\n",
		}, 100_000_000, 75_000_000},
		{"version 1, the host's name", map[string]string{"proc/self/cgroup": "4:memory:/kubepods/x\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "100000000\n"}, 100_000_000, 75_000_000},
		{"nonsense", map[string]string{"proc/self/cgroup": "\n:\n0::\n4:memory\n", "sys/fs/cgroup/memory.max": "-5\n"}, math.MaxInt64, leastMemoryLimit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tt.files {
				if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			allowed := memoryAllowed(root)
			if limit := memoryLimit(1000, allowed); allowed != tt.allowed || limit != tt.limit {
				t.Errorf("%d bytes are allowed, %d for the heap, want %d and %d", allowed, limit, tt.allowed, tt.limit)
			}
		})
	}
}
