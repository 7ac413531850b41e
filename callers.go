package main

import (
	"log/slog"
	"math"
	"syscall"

	"github.com/lsst-dm/s3daemon/listen"
)

const (
	// spareConnections may be open beside those of requests under way: of callers
	// who are between two requests, or late with one.
	spareConnections = 1000
	// rushConnections may be open beside either for half a second, which is what
	// each caller has in any case: else those who come after so many, and a
	// health check among them, would have to wait for that.
	rushConnections = 4000
	// opsConnections may be open at S3DAEMON_OPS_LISTEN.
	opsConnections = 500
	// otherFiles are the journal, the log, listeners, the runtime's own.
	otherFiles = 100
)

// places are how many connections of callers there is room for.
type places struct{ api, ops listen.Limits }

// fitCallers returns what there is room for among the files that a process may
// have open. Where that is less than the operator asked for it says so: without
// a descriptor for it a push fails, where a caller too many is told to come
// again.
func fitCallers(wanted, pool, limit int, log *slog.Logger) places {
	const files = 2 // of a caller: his connection, and his file while it is looked at
	fit := places{listen.Limits{Callers: wanted, Spare: spareConnections}, listen.Limits{Spare: opsConnections}}
	own := otherFiles + 4*pool // a connection each, as many that are being made, and the files of 2 pushes
	room := limit - own
	if left := room - files*wanted - spareConnections - opsConnections; left >= 0 {
		fit.ops.Rush = min(rushConnections, left/2)
		fit.api.Rush = min(rushConnections, left-fit.ops.Rush)
		return fit
	}
	fit.ops.Spare = min(opsConnections, max(1, room/10))
	fit.api.Spare = min(spareConnections, max(1, room/5))
	fit.api.Callers = min(wanted, max(1, (room-fit.ops.Spare-fit.api.Spare)/files))
	log.Warn("the process may not have enough files open for S3DAEMON_MAX_CALLERS: fewer requests are served at once. Raise the limit (LimitNOFILE= in a systemd unit, ulimit -n in a shell)",
		"open_files_limit", limit, "wanted", own+files*wanted+spareConnections+opsConnections, "max_callers", fit.api.Callers)
	return fit
}

// openFilesLimit returns how many files the process may have open. The runtime
// has raised that to what the system allows.
func openFilesLimit() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(r.Cur)
}
