package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// threads returns how many threads the daemon has.
func (d *daemon) threads() int {
	d.t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(tasks)
}

// A file system that hangs holds a thread for each read, and nobody else:
// sound files are delivered, callers are answered, and when it wakes up what
// was accepted is delivered.
func TestFileSystemHangs(t *testing.T) {
	sideBySide(t)
	h := mountHangFS(t)
	d := startDaemon(t, "S3DAEMON_ATTEMPTS=2")
	t.Cleanup(func() { h.tell("wake") })
	bucket := newBucket(t)
	before := d.threads()

	const hung = 30 // more than there are places
	h.tell("hang read *")
	ids, files := map[string]string{}, map[string]string{}
	for i := range hung {
		key := fmt.Sprint("hung-", i)
		size := int64(20_000 + i)
		if i%10 == 0 {
			size = oneRequest + 1 // which has places of its own
		}
		lies, shows := h.makeFile(key, size)
		files[key], ids[key] = lies, d.pushAsync(t, shows, "s3://"+bucket+"/"+key).ID
	}
	h.tell("wait 25")

	var callers sync.WaitGroup
	h.tell("hang lookup unseen")
	_, unseen := h.makeFile("unseen", 1000)
	for i := range 10 { // of one file, which nobody can look at
		callers.Go(func() {
			a, err := d.tryPush(context.Background(), unseen, fmt.Sprintf("s3://%s/unseen-%d", bucket, i))
			if err != nil {
				t.Error(err)
				return
			}
			a.refused(t, http.StatusServiceUnavailable, "file_hangs")
			if a.header.Get("Retry-After") == "" {
				t.Error("the answer does not say when to ask again")
			}
		})
	}
	sound := makeFile(t, "sound", 1_000_000)
	for i := range 20 {
		callers.Go(func() {
			a, err := d.tryPush(context.Background(), sound, fmt.Sprintf("s3://%s/sound-%d", bucket, i))
			if err == nil {
				_, err = a.tryDone()
			}
			if err != nil {
				t.Errorf("a sound file: %v", err)
			}
		})
	}
	_, later := h.makeFile("later", 20_000)
	callers.Go(func() { // of a file that can be opened, and is accepted
		d.push(t, later, "s3://"+bucket+"/later").refused(t, http.StatusServiceUnavailable, "file_hangs")
	})
	callers.Wait()
	// Each part under way of the three large ones has one too.
	if now := d.threads(); now > before+hung+3*4+20 {
		t.Errorf("the daemon has %d threads, %d before %d files hung", now, before, hung)
	}
	h.tell("wake")
	for key, id := range ids {
		d.doneOf(t, id)
		checkObject(t, bucket, key, files[key])
	}
	if open := d.openFiles(h.at); len(open) > 0 {
		t.Errorf("%d files are still open: %v", len(open), open)
	}
}

// SIGTERM while the files under way hang: the daemon has nothing left to do
// within its time, and the next one delivers them.
func TestFileSystemHangsAtTheEnd(t *testing.T) {
	sideBySide(t)
	h := mountHangFS(t)
	d := startDaemon(t, "S3DAEMON_DRAIN_TIMEOUT=1s")
	t.Cleanup(func() { h.tell("wake") })
	bucket := newBucket(t)
	h.tell("hang read *")
	small, shows := h.makeFile("small", 1000)
	first := d.pushAsync(t, shows, "s3://"+bucket+"/small").ID
	large, shows := h.makeFile("large", oneRequest+1)
	second := d.pushAsync(t, shows, "s3://"+bucket+"/large").ID
	h.tell("wait 2")

	d.signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // the reads would be waited for 30 s
	defer cancel()
	if _, err := d.out.wait(ctx, 1, "stopped"); err != nil {
		t.Fatal(err)
	}
	h.tell("wake") // without which the system does not let a process end
	if code := d.wait(); code != 0 {
		t.Errorf("the daemon ended with %d, want 0", code)
	}
	d = d.restart(t)
	d.doneOf(t, first)
	d.doneOf(t, second)
	checkObject(t, bucket, "small", small)
	checkObject(t, bucket, "large", large)
}

// A push is cancelled at once though its file hangs, and the store is not asked
// for ever what a file that hangs could be compared with.
func TestFileSystemHangsAndIsCancelled(t *testing.T) {
	sideBySide(t)
	h := mountHangFS(t)
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	t.Cleanup(func() { h.tell("wake") })
	bucket := newBucket(t)
	t.Run("while it is read", func(t *testing.T) {
		_, file := h.makeFile("read", 100_000)
		h.tell("hang read read")
		id := d.pushAsync(t, file, "s3://"+bucket+"/read").ID
		h.tell("wait 1")
		begun := time.Now()
		if r := d.cancelled(t, id); r.State != "cancelled" {
			t.Errorf("it is %s, %+v", r.State, r.Problem)
		}
		if took := time.Since(begun); took > 8*time.Second { // a look at it would be waited for 10 s, the read 30 s
			t.Errorf("that took %v", took)
		}
	})
	t.Run("while it waits, and the store has it", func(t *testing.T) {
		_, file := h.makeFile("waits", 1000)
		stored := internalError.afterStoring()
		stored.retryAfter = "60"
		p.follow(once(stored))
		id := d.pushAsync(t, file, "s3://"+bucket+"/waits").ID
		waitFor(t, "it to wait", func() bool { return !d.pushOf(t, id).RetryAt.IsZero() })
		h.tell("hang lookup waits")
		a, err := d.send(d.client, d.request(t.Context(), "DELETE", "/pushes/"+id, "", ""))
		if err != nil {
			t.Fatal(err)
		}
		a.refused(t, http.StatusConflict, "push_ended")
		if r := d.endOf(t, id); r.State != "failed" || r.Problem == nil || r.Problem.Code != "file_hangs" {
			t.Errorf("it is %s, %+v", r.State, r.Problem)
		}
		if n := len(p.requests("HeadObject")); n != 1 {
			t.Errorf("the store was asked %d times", n)
		}
	})
}

// appendTo makes a file grow, 10 times a second, for that long.
func appendTo(file string, howLong time.Duration) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(howLong); time.Now().Before(end); <-tick.C {
		if _, err := f.Write(make([]byte, 100_000)); err != nil {
			return err
		}
	}
	return nil
}

// checkSize fails the test unless the receipt is of the file as it is now.
func checkSize(t testing.TB, r receipt, file string) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if parts := partsOf(info.Size()); r.Size != info.Size() || r.Parts != parts {
		t.Errorf("the receipt has %d bytes and %d parts, the file %d and %d", r.Size, r.Parts, info.Size(), parts)
	}
}

// A file that is still being written when it is pushed.
func TestFileGrows(t *testing.T) {
	sideBySide(t)
	for _, async := range []bool{false, true} {
		t.Run(fmt.Sprintf("retry, async %v", async), func(t *testing.T) {
			p := newFaultProxy(t)
			g := newGate()
			p.follow(always(fault{before: g.wait}))
			d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_IF_CHANGED=retry", "S3DAEMON_ATTEMPTS=20")
			bucket, file := newBucket(t), makeFile(t, "file", 1000)
			w := wish{}
			if async {
				w = wish{prefer: "respond-async"}
			}
			told := make(chan answer, 1)
			go func() { told <- d.pushAs(t, w, file, "s3://"+bucket+"/key") }()
			waitFor(t, "it to be under way", func() bool { return p.nowHeld() > 0 })
			grown := make(chan error, 1)
			go func() { grown <- appendTo(file, 3*time.Second) }()
			waitFor(t, "it to grow", func() bool { info, err := os.Stat(file); return err == nil && info.Size() > 1000 })
			g.open()
			var r receipt
			if async {
				r = d.doneOf(t, (<-told).accepted(t).ID)
			} else {
				r = (<-told).done(t)
			}
			select {
			case err := <-grown:
				if err != nil {
					t.Fatal(err)
				}
			default:
				t.Error("it was done while the file was being written")
			}
			checkSize(t, r, file)
			checkObject(t, bucket, "key", file)
		})
	}
	t.Run("fail", func(t *testing.T) {
		p := newFaultProxy(t)
		g := newGate()
		p.follow(always(fault{before: g.wait}))
		d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
		bucket, file := newBucket(t), makeFile(t, "file", 1_000_000)
		told := make(chan answer, 1)
		go func() { told <- d.push(t, file, "s3://"+bucket+"/key") }()
		waitFor(t, "it to be under way", func() bool { return p.nowHeld() == 1 })
		if err := os.Truncate(file, 2_000_000); err != nil {
			t.Fatal(err)
		}
		g.open()
		(<-told).refused(t, http.StatusConflict, "file_changed")
	})
}

// Another file is renamed over the one that is being sent. Done would be leave
// to delete it.
func TestFileIsReplaced(t *testing.T) {
	sideBySide(t)
	for _, mode := range []string{"fail", "retry"} {
		for _, size := range []int64{1000, 2*oneRequest + 1} {
			t.Run(fmt.Sprint(mode, " ", size), func(t *testing.T) {
				p := newFaultProxy(t)
				g := newGate()
				p.follow(always(fault{before: g.wait}))
				d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_IF_CHANGED="+mode)
				bucket, file := newBucket(t), makeFile(t, "file", size)
				id := d.pushAsync(t, file, "s3://"+bucket+"/key").ID
				waitFor(t, "it to be under way", func() bool { return p.nowHeld() > 0 })
				if err := os.Rename(makeFile(t, "newer", 500), file); err != nil {
					t.Fatal(err)
				}
				g.open()
				if mode == "retry" {
					checkSize(t, d.doneOf(t, id), file)
					checkObject(t, bucket, "key", file)
					return
				}
				if r := d.endOf(t, id); r.State != "failed" || r.Problem == nil || r.Problem.Code != "file_changed" {
					t.Errorf("%s, %+v", r.State, r.Problem)
				}
			})
		}
	}
}

// A daemon that is killed while a push waits for its file leaves it to the
// next one.
func TestFileChangesWhileNobodyRuns(t *testing.T) {
	sideBySide(t)
	p := newFaultProxy(t)
	g := newGate()
	p.follow(always(fault{before: g.wait}))
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_IF_CHANGED=retry")
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	id := d.pushAsync(t, file, "s3://"+bucket+"/key").ID
	waitFor(t, "it to be under way", func() bool { return p.nowHeld() > 0 })
	d.kill()
	if err := errors.Join(os.Remove(file), os.Rename(makeFile(t, "longer", oneRequest+1), file)); err != nil {
		t.Fatal(err)
	}
	p.follow(passAll)
	g.open()
	d = d.restart(t)
	checkSize(t, d.doneOf(t, id), file)
	checkObject(t, bucket, "key", file)
}
