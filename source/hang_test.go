//go:build linux

package source

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

func randomBytes(n int) []byte {
	content := make([]byte, n)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	return content
}

func wantCode(t *testing.T, what string, err error, code push.Code) {
	t.Helper()
	var e *push.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("%s: %v, want %s", what, err, code)
	}
	if code == push.FileHangs && (e == nil || e.RetryAfter <= 0) {
		t.Errorf("%s does not say when to ask again", what)
	}
}

// waitUntilIdle returns once no call on the path is under way, nor the file
// open.
func waitUntilIdle(t *testing.T, path string) {
	t.Helper()
	for l := all.join(path); ; {
		l.turn <- struct{}{} // when the call under way has ended
		all.mu.Lock()
		last := l.users == 1
		all.mu.Unlock()
		<-l.turn
		if last {
			l.leave()
			return
		}
	}
}

// TestOpenHangs has each of the calls hang that opening a file needs. Those who
// ask for it get an answer, and hold one call in all; the file can be opened
// once the file system answers.
func TestOpenHangs(t *testing.T) {
	h := startHangFS(t)
	path := h.write("f", []byte("light"))
	h.write("g", []byte("light"))
	for _, operation := range []string{"lookup", "statfs", "open"} {
		t.Run(operation, func(t *testing.T) {
			before := descriptors(t)
			h.tell("hang %s %s", operation, map[bool]string{true: "*", false: "f"}[operation == "statfs"]) // statfs is of no file
			ctx, cancel := context.WithCancel(t.Context())
			var callers sync.WaitGroup
			for range 20 {
				callers.Go(func() {
					_, err := Open(ctx, path)
					wantCode(t, "Open", err, push.FileHangs)
				})
			}
			h.tell("wait 1")
			cancel()
			callers.Wait()
			if n := h.held(); n != 1 {
				t.Errorf("%d calls hang, want 1", n)
			}
			if operation != "statfs" {
				other, err := Open(t.Context(), filepath.Join(h.at, "g"))
				if err != nil {
					t.Fatalf("another file of the file system: %v", err)
				}
				other.Close()
			}
			h.tell("wake")
			waitUntilIdle(t, path)
			f := mustOpen(t, path)
			got, err := io.ReadAll(io.NewSectionReader(f.Reader(t.Context()), 0, f.Size()))
			if err != nil || string(got) != "light" {
				t.Errorf("once it answers: %q, %v", got, err)
			}
			f.Close()
			waitUntilIdle(t, path)
			waitUntilIdle(t, filepath.Join(h.at, "g"))
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
}

// TestOpenBesideHanging: a file that has just been written can be opened, though
// nothing is known of its file system yet and others take all the places that
// there are for that.
func TestOpenBesideHanging(t *testing.T) {
	t.Run("anywhere", func(t *testing.T) { openBesideHanging(t, func(...string) *Opener { return anywhere }) })
	t.Run("roots", func(t *testing.T) {
		openBesideHanging(t, func(dirs ...string) *Opener { return New(Rules{Roots: dirs}) })
	})
}

func openBesideHanging(t *testing.T, rules func(dirs ...string) *Opener) {
	h := startHangFS(t)
	sound := write(t, "sound", []byte("light"))
	o := rules(h.at, filepath.Dir(sound))
	usual := all
	t.Cleanup(func() { all = usual })
	all = newLines(2)
	disks.known.Clear()
	h.tell("hang open *")
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		path := h.write(name, []byte("light"))
		callers.Go(func() {
			_, err := o.Open(ctx, path)
			wantCode(t, "Open", err, push.FileHangs)
		})
	}
	h.tell("wait 1")
	f, err := o.Open(t.Context(), sound)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	cancel()
	callers.Wait()
	h.tell("wake")
}

// TestRootsDoNotWaitForWhatIsElsewhere: a link that leads out to a file system
// that hangs is refused as any is, and no call on that is made.
func TestRootsDoNotWaitForWhatIsElsewhere(t *testing.T) {
	h := startHangFS(t)
	h.write("f", []byte("light"))
	dir := tree(t, "root/file -> "+h.at+"/f", "root/dir -> "+h.at, "root/around -> "+h.at+"/f/../../root/a", "root/a")
	o := New(Rules{Roots: []string{dir + "/root"}})
	for _, operation := range []string{"lookup", "getattr", "open", "statfs"} { // not those that begin the mount
		h.tell("hang %s *", operation)
	}
	for _, name := range []string{"file", "dir/f", "dir/none", "dir", "around"} {
		_, err := o.Open(t.Context(), dir+"/root/"+name)
		wantCode(t, name, err, push.FileNotAllowed)
	}
	if n := h.held(); n != 0 {
		t.Errorf("%d calls hang", n)
	}
	h.tell("wake")
}

// TestReadHangs reads a file by many readers while its file system hangs.
func TestReadHangs(t *testing.T) {
	h := startHangFS(t)
	path := h.write("f", randomBytes(1<<20))
	before := descriptors(t)
	f := mustOpen(t, path)
	h.tell("hang read f")
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	var readers sync.WaitGroup
	p := bytes.Repeat([]byte{0xaa}, 1<<20)
	for i := range 25 {
		readers.Go(func() {
			part := len(p) / 25
			if n, err := f.Reader(ctx).ReadAt(p[i*part:(i+1)*part], int64(i*part)); n != 0 || err != cause {
				t.Errorf("ReadAt = %d, %v, want the context's cause", n, err)
			}
		})
	}
	h.tell("wait 1")
	cancel(cause)
	readers.Wait()
	// The kernel makes several requests of one call, and one call is what hangs.
	all.mu.Lock()
	users, device := f.line.users, f.line.device
	all.mu.Unlock()
	if device == 0 || device != f.identity.Device {
		t.Errorf("the line is on the device %d, the file on %d", device, f.identity.Device)
	}
	if users != 2 {
		t.Errorf("the line has %d users, want the file and one call", users)
	}
	wantCode(t, "Check", f.Check(ctx), push.FileHangs)
	f.Close()
	h.tell("wake")
	waitUntilIdle(t, path)
	if !bytes.Equal(p, bytes.Repeat([]byte{0xaa}, 1<<20)) {
		t.Error("a call that came back late wrote into its caller's memory")
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestReadSlowly reads a file that can only be read by waiting, and wakes up in
// between.
func TestReadSlowly(t *testing.T) {
	h := startHangFS(t)
	content := randomBytes(3<<20 + 17)
	f := mustOpen(t, h.write("f", content))
	h.tell("hang read f")
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Go(func() {
			off := int64(i) * 300_007
			got, err := io.ReadAll(io.NewSectionReader(f.Reader(t.Context()), off, 1<<20))
			if want := content[off:min(off+1<<20, int64(len(content)))]; err != nil || !bytes.Equal(got, want) {
				t.Errorf("from %d: %d bytes, %v, want the file's %d", off, len(got), err, len(want))
			}
		})
	}
	h.tell("wait 1")
	h.tell("wake")
	readers.Wait()
	if n, err := f.Reader(t.Context()).ReadAt(make([]byte, 8), int64(len(content)-5)); n != 5 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if err := f.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// TestCheckAtTheEnd: a file can still be looked at when the daemon stops, if its
// file system answers.
func TestCheckAtTheEnd(t *testing.T) {
	h := startHangFS(t)
	f := mustOpen(t, h.write("f", []byte("light")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		if err := f.Check(ctx); err != nil {
			t.Fatalf("Check: %v", err)
		}
	}
}

func TestCheckHangs(t *testing.T) {
	h := startHangFS(t)
	path := h.write("f", []byte("light"))
	for _, operation := range []string{"getattr", "lookup"} {
		t.Run(operation, func(t *testing.T) {
			f := mustOpen(t, path)
			h.tell("hang %s f", operation)
			ctx, cancel := context.WithCancel(t.Context())
			checked := make(chan error)
			go func() { checked <- f.Check(ctx) }()
			h.tell("wait 1")
			cancel()
			wantCode(t, "Check", <-checked, push.FileHangs)
			h.tell("wake")
			if err := f.Check(t.Context()); err != nil {
				t.Errorf("once it answers, Check: %v", err)
			}
		})
	}
}

func TestSyncHangs(t *testing.T) {
	h := startHangFS(t)
	f := mustOpen(t, h.write("f", []byte("light")))
	if err := f.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.tell("hang fsync f")
	ctx, cancel := context.WithCancel(t.Context())
	synced := make(chan error)
	go func() { synced <- f.Sync(ctx) }()
	h.tell("wait 1")
	cancel()
	wantCode(t, "Sync", <-synced, push.FileHangs)
	h.tell("wake")
}

// TestCloseHangs: what a close takes is nobody's matter.
func TestCloseHangs(t *testing.T) {
	h := startHangFS(t)
	before := descriptors(t)
	path := h.write("f", []byte("light"))
	f := mustOpen(t, path)
	h.tell("hang flush f")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	h.tell("wait 1")
	h.tell("wake")
	waitUntilIdle(t, path)
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestSyncFails: an error of fsync is not told as one of a read.
func TestSyncFails(t *testing.T) {
	h := startHangFS(t)
	f := mustOpen(t, h.write("f", []byte("light")))
	h.tell("fail fsync f")
	err := f.Sync(t.Context())
	wantCode(t, "Sync", err, push.FileUnreadable)
	if !strings.Contains(err.Error(), "could not be put on disk: input/output error") {
		t.Errorf("Sync says %q", err)
	}
}

// TestReadFails reads from a disk that is broken.
func TestReadFails(t *testing.T) {
	h := startHangFS(t)
	f := mustOpen(t, h.write("f", randomBytes(1<<20)))
	h.tell("fail read f")
	if _, err := io.ReadAll(io.NewSectionReader(f.Reader(t.Context()), 0, f.Size())); err == nil {
		t.Fatal("it can be read")
	}
	wantCode(t, "Check", f.Check(t.Context()), push.FileUnreadable)
}

// TestNameLeadsElsewhere has the name of an open file lead to one of another
// device, which is all that tells the two apart.
func TestNameLeadsElsewhere(t *testing.T) {
	h := startHangFS(t)
	shown := h.write("f", []byte("light"))
	lies := filepath.Join(h.dir, "f")
	for on, from := range map[string]string{"a file system that is not known": shown, "a disk": lies} {
		t.Run(on, func(t *testing.T) {
			name := link(t, from)
			f := mustOpen(t, name)
			if err := f.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			to := map[string]string{shown: lies, lies: shown}[from]
			if err := errors.Join(os.Symlink(to, name+".new"), os.Rename(name+".new", name)); err != nil {
				t.Fatal(err)
			}
			wantCode(t, "Check", f.Check(t.Context()), push.FileChanged)
		})
	}
}

// TestChecksRemote: the table of Check holds where every look has to be waited
// for, too.
func TestChecksRemote(t *testing.T) {
	h := startHangFS(t)
	for _, tt := range []struct {
		name string
		do   func(path string) error
		code push.Code
	}{
		{"nothing happens", func(string) error { return nil }, ""},
		{"it grows", func(p string) error { return writeAt(p, "more", 5) }, push.FileChanged},
		{"it is removed", os.Remove, ""},
		{"another takes its name", func(p string) error {
			return errors.Join(os.WriteFile(p+".new", []byte("light"), 0o644), os.Rename(p+".new", p))
		}, push.FileChanged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := mustOpen(t, h.write("f", []byte("light")))
			if err := tt.do(filepath.Join(h.dir, "f")); err != nil {
				t.Fatal(err)
			}
			if err := f.Check(t.Context()); tt.code != "" {
				wantCode(t, "Check", err, tt.code)
			} else if err != nil {
				t.Errorf("Check: %v", err)
			}
		})
	}
}
