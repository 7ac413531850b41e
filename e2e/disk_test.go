package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// smallDisk returns a file system of its own, of the size given. Where none
// can be mounted the test is skipped.
func smallDisk(t testing.TB, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a small disk cannot be mounted here (root can): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
			syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
	return dir
}

// fillDisk writes a file that leaves no room beside it, and returns its path.
func fillDisk(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// pushUntilRefused pushes until the journal takes no more, and returns the ids
// of those that it took, which goes on for a while: the journal has free pages.
func pushUntilRefused(t *testing.T, d *daemon, file, prefix string) (ids []string) {
	t.Helper()
	for i := range 20_000 {
		a := d.pushAs(t, async, file, fmt.Sprintf("%s/%d", prefix, i))
		if a.status == 202 {
			ids = append(ids, a.accepted(t).ID)
			continue
		}
		a.refused(t, 503, "journal_unavailable")
		after, err := strconv.Atoi(a.header.Get("Retry-After"))
		if err != nil || after < 1 {
			t.Errorf("the answer has Retry-After: %q", a.header.Get("Retry-After"))
		}
		return ids
	}
	t.Fatal("the disk is full, and the journal takes whatever comes")
	return nil
}

// A full disk refuses pushes and forgets none. When there is room again they
// are taken, without a restart; and a daemon that is killed meanwhile leaves
// all that it had acknowledged.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t, "2m")
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_DATA_DIR="+filepath.Join(disk, "data"))
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	fill := func(round string) (filler string, ids []string) {
		t.Helper()
		g := newGate()
		p.follow(always(fault{before: g.wait})) // nothing ends until the disk is full
		for i := range 20 {
			ids = append(ids, d.pushAsync(t, file, fmt.Sprintf("s3://%s/%s/before/%d", bucket, round, i)).ID)
		}
		filler = fillDisk(t, disk)
		ids = append(ids, pushUntilRefused(t, d, file, fmt.Sprintf("s3://%s/%s/full", bucket, round))...)
		d.push(t, file, fmt.Sprintf("s3://%s/%s/waited", bucket, round)).refused(t, 503, "journal_unavailable")
		d.get(t, "/readyz").refused(t, 503, "journal_unavailable")
		t.Logf("%s: %d pushes were acknowledged", round, len(ids))
		// What was accepted goes on being delivered.
		g.open()
		waitFor(t, "what was accepted to be in the store", func() bool { return len(listObjects(t, bucket)) >= len(ids) })
		if objects := listObjects(t, bucket); len(objects) != len(ids) {
			t.Errorf("%s: the store has %d objects, want those of the %d pushes that were acknowledged", round, len(objects), len(ids))
		}
		if a := d.get(t, "/healthz"); a.status != 200 {
			t.Errorf("GET /healthz with a full disk: %d", a.status)
		}
		return filler, ids
	}
	allDone := func(ids []string) {
		t.Helper()
		d.barrier(t, "")
		for _, id := range ids {
			d.doneOf(t, id)
		}
		if n := len(d.listOf(t, "")); n < len(ids) {
			t.Errorf("the list has %d pushes, want at least %d", n, len(ids))
		}
	}

	filler, ids := fill("recovered")
	os.Remove(filler)
	waitFor(t, "the daemon to say that it takes pushes", func() bool { return d.get(t, "/readyz").status == 200 })
	d.pushAs(t, async, file, "s3://"+bucket+"/again").accepted(t)
	allDone(ids)
	if err := os.RemoveAll(filepath.Join(theStore.dir, bucket, "again")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(theStore.dir, bucket, "recovered")); err != nil {
		t.Fatal(err)
	}

	filler, ids = fill("killed")
	d.kill()
	os.Remove(filler)
	d = d.restart(t)
	allDone(ids)
	d.push(t, file, "s3://"+bucket+"/after").done(t)
	if a := d.get(t, "/readyz"); a.status != 200 {
		t.Errorf("GET /readyz: %d", a.status)
	}
	d.client.CloseIdleConnections()
	d.signal(syscall.SIGTERM)
	if code := d.wait(); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
}

// There is no room for a journal: the daemon does not start, and says why.
func TestNoRoomForJournal(t *testing.T) {
	disk := smallDisk(t, "64k")
	fillDisk(t, disk)
	r := runCommand(t, environment(t, "S3DAEMON_DATA_DIR="+disk))
	checkClearFailure(t, r, 1, "no space left")
	entries, err := os.ReadDir(disk)
	if err != nil {
		t.Fatal(err)
	}
	if moved := slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.Contains(e.Name(), "unreadable") }); moved {
		t.Errorf("something was moved aside: %v", entries)
	}
}
