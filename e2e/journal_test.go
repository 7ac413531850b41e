package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// readiness is what /readyz says.
type readiness struct {
	Status string   `json:"status"`
	Notes  []string `json:"notes"`
}

func (d *daemon) readiness(t testing.TB) (r readiness) {
	t.Helper()
	a := d.get(t, "/readyz")
	if a.status != 200 {
		t.Fatalf("GET /readyz: %d: %s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// A journal that cannot be read does not keep the daemon from starting, is kept
// for whoever can make something of it, and is made known.
func TestUnreadableJournal(t *testing.T) {
	p := newFaultProxy(t)
	p.cutOff(cutClosed)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	pushAll(t, d, []string{file}, bucket, "old", 1000)
	if notes := strings.Join(d.readiness(t).Notes, "\n"); strings.Contains(notes, "journal") || d.metric("s3daemon_journal_moved_aside") != 0 {
		t.Errorf("a good journal has the notes %q", notes)
	}
	d.kill()
	p.restore(t)
	whole, err := os.ReadFile(filepath.Join(d.dataDir(), "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	// The file is larger than what is in it, and damage to the rest is none.
	used := len(bytes.TrimRight(whole, "\x00"))
	noise := func(begin, end int) []byte {
		b := bytes.Clone(whole)
		randomBytes("noise", int64(begin)).Read(b[begin:end])
		return b
	}
	tests := []struct {
		name string
		data []byte
	}{
		{"truncated to half", whole[:used/2]},
		{"truncated to a few bytes", whole[:100]},
		{"zeroed", make([]byte, len(whole))},
		{"noise all over", noise(0, len(whole))},
		{"noise in the middle", noise(used/8, used*7/8)},
		{"noise at the beginning", noise(0, 32<<10)},
		{"text", []byte(strings.Repeat("this is no journal\n", 10_000))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "journal.db"), tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			d := startDaemon(t, "S3DAEMON_DATA_DIR="+dir)
			aside, err := filepath.Glob(filepath.Join(dir, "journal.db.unreadable-*"))
			if err != nil || len(aside) != 1 {
				t.Fatalf("there are %q beside the journal (%v), want one that was moved there", aside, err)
			}
			if kept, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(kept, tt.data) {
				t.Errorf("what was moved aside is not what was there: %v", err)
			}
			if !strings.Contains(string(d.out.bytes()), aside[0]) {
				t.Error("the log does not name the file")
			}
			if notes := d.readiness(t).Notes; len(notes) != 1 || !strings.Contains(notes[0], aside[0]) {
				t.Errorf("/readyz has the notes %q", notes)
			}
			if n := d.metric("s3daemon_journal_moved_aside"); n != 1 {
				t.Errorf("s3daemon_journal_moved_aside is %v", n)
			}
			key := strings.ReplaceAll(tt.name, " ", "-")
			id := d.push(t, file, "s3://"+bucket+"/"+key).done(t).ID
			checkObject(t, bucket, key, file)
			// The next one starts on the new journal, and has nothing to say of it.
			d.kill()
			d = d.restart(t)
			if r := d.pushOf(t, id); r.State != "done" {
				t.Errorf("the push in the new journal is %s", r.State)
			}
			if again, _ := filepath.Glob(filepath.Join(dir, "journal.db.*")); len(again) != 1 {
				t.Errorf("after another start there are %q", again)
			}
		})
	}
	// And the whole one still is one.
	d = startDaemon(t, "S3DAEMON_DATA_DIR="+d.dataDir())
	d.barrier(t, "old")
	if n := len(d.listOf(t, "state=done&label=old")); n != 1000 {
		t.Errorf("%d pushes are done, want 1000", n)
	}
}

// Two daemons on one directory would deliver everything twice.
func TestSecondDaemon(t *testing.T) {
	d := startDaemon(t)
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	r := runCommand(t, environment(t, "S3DAEMON_DATA_DIR="+d.dataDir()))
	checkClearFailure(t, r, 1, "S3DAEMON_DATA_DIR", d.dataDir())
	d.push(t, file, "s3://"+bucket+"/key").done(t)
	if found, _ := filepath.Glob(filepath.Join(d.dataDir(), "*unreadable*")); len(found) > 0 {
		t.Errorf("the second daemon moved %q aside", found)
	}
	d.kill()
	d.restart(t).push(t, file, "s3://"+bucket+"/next").done(t)
}

// A directory that cannot be written is an error at the start, not at the
// first push.
func TestBadDataDir(t *testing.T) {
	file := makeFile(t, "file", 10)
	for _, dir := range []string{file, filepath.Join(file, "below"), "/proc/s3daemon"} {
		checkClearFailure(t, runCommand(t, environment(t, "S3DAEMON_DATA_DIR="+dir)), 1, dir)
	}
}

// The directory is made where it is missing, and what is in it is nobody
// else's to read.
func TestDataDirIsMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "some", "where")
	d := startDaemon(t, "S3DAEMON_DATA_DIR="+dir)
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, filepath.Join(dir, "journal.db"): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has the mode %v, want %v", path, info.Mode(), want)
		}
	}
	d.client.CloseIdleConnections()
	d.signal(syscall.SIGTERM)
	d.wait()
}

// The history is bounded: what left it is unknown, and the rest is not.
func TestHistoryIsPruned(t *testing.T) {
	d := startDaemon(t, "S3DAEMON_HISTORY_COUNT=50")
	bucket, file := newBucket(t), makeFile(t, "file", 100)
	var ids []string
	for i := range 300 {
		ids = append(ids, d.push(t, file, fmt.Sprintf("s3://%s/%d", bucket, i)).done(t).ID)
	}
	check := func(d *daemon) {
		t.Helper()
		// Pruning goes by the batch.
		if n := len(d.listOf(t, "")); n < 50 || n > 200 {
			t.Errorf("the history has %d pushes, want 50 or somewhat more", n)
		}
		d.get(t, "/pushes/"+ids[0]).refused(t, 404, "push_not_found")
		d.doneOf(t, ids[len(ids)-1])
	}
	check(d)
	d.kill()
	check(d.restart(t))
}
