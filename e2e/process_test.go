package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// descriptors returns how many files and sockets the daemon has open.
func (d *daemon) descriptors() int {
	d.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(entries)
}

// openFiles returns which of the files under a directory the daemon has open.
func (d *daemon) openFiles(dir string) (open []string) {
	d.t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, l := range links {
		// A descriptor may be closed between the two calls.
		if path, err := os.Readlink(l); err == nil && strings.HasPrefix(path, dir+"/") {
			open = append(open, path)
		}
	}
	return open
}

// memory returns a figure of the daemon's, in bytes: VmHWM is the most that
// was ever resident, RssAnon what is now and belongs to no file.
func (d *daemon) memory(name string) int64 {
	d.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	kb, err := strconv.ParseInt(strings.TrimSuffix(field(string(status), name+":"), " kB"), 10, 64)
	if err != nil {
		d.t.Fatalf("read %s of the daemon: %v", name, err)
	}
	return kb << 10
}

// writes returns how many bytes the daemon has had written to disk.
func (d *daemon) writes() int64 {
	d.t.Helper()
	io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	n, err := strconv.ParseInt(field(string(io), "write_bytes:"), 10, 64)
	if err != nil {
		d.t.Fatalf("read the daemon's writes: %v", err)
	}
	return n
}

// metric returns the sum of a metric's values, whatever its labels, or the value
// of the one whose labels stand behind the name as they do in the text.
func (d *daemon) metric(name string) float64 {
	d.t.Helper()
	text := string(d.get(d.t, "/metrics").body)
	sum, found := 0.0, false
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' ')+1:]), 64)
		if err != nil {
			d.t.Fatalf("metrics: %v", err)
		}
		sum, found = sum+value, true
	}
	if !found {
		d.t.Fatalf("there is no metric %s in:\n%s", name, text)
	}
	return sum
}

// goroutines returns how many the daemon has, the one that answers included.
func (d *daemon) goroutines() int { d.t.Helper(); return int(d.metric("go_goroutines")) }

// field returns what stands after the name on its line.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// load is what a daemon holds of the system besides memory.
type load struct{ descriptors, goroutines int }

// idleLoad waits until the daemon's callers are gone and returns its load. The
// connections of the pool are part of it, since they stay.
func (d *daemon) idleLoad() load {
	d.t.Helper()
	d.client.CloseIdleConnections()
	return load{goroutines: d.goroutines(), descriptors: d.descriptors()}
}

// openLoad is idleLoad once the whole pool is open, which a daemon does by itself
// at its start.
func (d *daemon) openLoad() load {
	d.t.Helper()
	waitFor(d.t, "the pool to be open", func() bool {
		return d.metric(`s3daemon_pool_connections{state="idle"}`) == poolSize
	})
	return d.idleLoad()
}

// checkReturns fails the test unless the daemon's load comes back to what it
// was.
func checkReturns(t testing.TB, d *daemon, before load) {
	t.Helper()
	var now load
	err := poll(patience, func() error {
		now = d.idleLoad()
		if now.descriptors > before.descriptors || now.goroutines > before.goroutines {
			return errNotYet
		}
		return nil
	})
	if err != nil {
		t.Errorf("the daemon's load was %+v and did not come back from %+v: %v", before, now, err)
	}
}
