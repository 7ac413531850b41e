package main

import (
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
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

// tuneMemory sets the garbage collector for a queue of that length, and for the
// memory that the process may have, unless the environment does.
func tuneMemory(queueLimit int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit(queueLimit, memoryAllowed("/")))
	}
}

// memoryLimit is what the heap may grow to for a queue of that length, where the
// process is ended that has more than allowed: a quarter of that is for what is not
// the heap's, the buffers of connections above all.
func memoryLimit(queueLimit int, allowed int64) int64 {
	return min(max(leastMemoryLimit, int64(queueLimit)*bytesAPush), allowed-allowed/4)
}

// memoryAllowed returns how much memory the process's control group may have, and
// those around it: the least of them, or more than there is. The file system's root is
// given. In a container the group's name may be the host's, whose files are not there:
// what is mounted as the root of all groups is then the container's.
func memoryAllowed(root string) int64 {
	allowed := int64(math.MaxInt64)
	groups, _ := os.ReadFile(filepath.Join(root, "proc/self/cgroup")) // there is none elsewhere than on Linux
	for line := range strings.Lines(string(groups)) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		dir, file := "sys/fs/cgroup", "memory.max"
		switch controllers {
		case "": // version 2
		case "memory": // version 1
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for at := path.Clean("/" + group); ; at = path.Dir(at) {
			text, err := os.ReadFile(filepath.Join(root, dir, at, file))
			if n, wrong := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && wrong == nil && n > 0 {
				allowed = min(allowed, n)
			}
			if at == "/" {
				break
			}
		}
	}
	return allowed
}
