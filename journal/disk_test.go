package journal

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// TestFullDisk fills a real one: 503s, then recovery, and nothing is lost.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, "3m")
	j := open(t, Config{Dir: dir})
	var in []*Record
	var out []push.ID
	for round := range 3 {
		fillDisk(t, dir)
		// There may be free pages in the file, so that it takes a while.
		for i := 0; ; i++ {
			r := example(1000*round + i)
			r.Request.Metadata = map[string]string{"x": strings.Repeat("x", 1000)}
			err := accept1(j, r)
			if err != nil {
				if !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("Accept on a full disk: %v", err)
				}
				out = append(out, r.ID)
				break
			}
			in = append(in, r)
		}
		done := make(chan struct{})
		last := len(in) - 1
		e := ended(*in[last])
		e.Problem = &push.Problem{Detail: strings.Repeat("y", 100_000)} // surely more than there is space for
		j.End(e, func() { close(done) })
		if err := accept1(j, example(0)); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Accept after an end that has no space: %v", err)
		}
		select {
		case <-done:
			t.Error("the end is said to be on disk")
		default:
		}
		freeDisk(t, dir)
		<-done // by itself
		in[last] = e
		more := example(round)
		acceptAll(t, j, more)
		in = append(in, more)
	}
	for range 2 {
		for _, r := range in {
			wantPush(t, j, r)
		}
		for _, id := range out {
			if _, found, _ := j.Get(id); found {
				t.Errorf("push %s was refused and is there", id)
			}
		}
		j = reopen(t, j)
	}
	if err := j.Close(); err != nil { // before the disk goes
		t.Error(err)
	}
}

// TestRoomIsFound: whether there is room again is known by itself, with nothing that
// waits to be written, and not before there is.
func TestRoomIsFound(t *testing.T) {
	dir := smallDisk(t, "3m")
	j := open(t, Config{Dir: dir})
	fillDisk(t, dir)
	for i := 0; accept1(j, example(i)) == nil; i++ {
	}
	began, cause := j.Failing()
	for range 3 { // it tries, and fails, again
		was := j.failing.Load()
		for j.failing.Load() == was {
			time.Sleep(time.Millisecond)
		}
		if since, err := j.Failing(); !errors.Is(err, syscall.ENOSPC) || !since.Equal(began) {
			t.Fatalf("with a disk as full as when it failed since %v with %v, it fails since %v with %v", began, cause, since, err)
		}
	}
	freeDisk(t, dir)
	for {
		if _, err := j.Failing(); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 1 {
		t.Errorf("in the directory are %q, %v", left, err)
	}
	if err := j.Close(); err != nil { // before the disk goes
		t.Error(err)
	}
}

// TestFullDiskAtOpen: a full disk moves nothing either.
func TestFullDiskAtOpen(t *testing.T) {
	dir := smallDisk(t, "1m")
	fillDisk(t, dir)
	if _, err := Open(t.Context(), Config{Dir: dir}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Open on a full disk: %v", err)
	}
	freeDisk(t, dir)
	j := open(t, Config{Dir: dir})
	r := example(1)
	acceptAll(t, j, r)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	fillDisk(t, dir)
	j = open(t, Config{Dir: dir})
	wantQueued(t, j, r)
	if j.MovedAside() != "" {
		t.Errorf("it was moved to %s", j.MovedAside())
	}
}

// smallDisk mounts a file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("mount is not permitted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// fillDisk writes until there is no space left.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "filler"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func freeDisk(t *testing.T, dir string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
}
