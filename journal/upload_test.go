package journal

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// exampleUpload is the nth upload of a push.
func exampleUpload(id push.ID, n int) *Upload {
	return &Upload{
		Push: id, BegunAt: time.Unix(1795600002, int64(n)).UTC(),
		Store: "https://s3.example.org", Bucket: "raw", Key: "2026-11-26/r22_s11.fits", ID: "2~upload",
		Checksum: "crc64nvme", PartSize: 8 << 20,
		Size: 1 << 30, ModTime: time.Unix(1795600000, 123456789).UTC(), Device: 66305, Inode: 1000000,
	}
}

// examplePart is the nth part of an upload.
func examplePart(n int) *Part {
	return &Part{
		Number: int32(n), Size: 8 << 20, ETag: "d41d8cd98f00b204e9800998ecf8427e", CRC64NVME: 1<<63 + uint64(n),
		MD5: make([]byte, 16), Algorithm: "md5", By: "daemon",
	}
}

// await returns once all that was submitted is on disk.
func await(j *Journal) {
	done := make(chan struct{})
	j.Barrier(func() { close(done) })
	<-done
}

func wantUploads(t *testing.T, j *Journal, id push.ID, want ...*Upload) {
	t.Helper()
	got, err := j.Uploads(id)
	if err != nil || len(got) != len(want) {
		t.Errorf("push %s has the uploads %+v, %v, want %d", id, got, err, len(want))
		return
	}
	for i := range got {
		if !reflect.DeepEqual(&got[i], want[i]) {
			t.Errorf("upload %d is %+v\nwant        %+v", i, got[i], *want[i])
		}
	}
}

func wantParts(t *testing.T, j *Journal, u *Upload, want ...*Part) {
	t.Helper()
	got, err := j.Parts(u)
	if err != nil || len(got) != len(want) {
		t.Errorf("the upload has the parts %+v, %v, want %d", got, err, len(want))
		return
	}
	for i := range got {
		if !reflect.DeepEqual(&got[i], want[i]) {
			t.Errorf("part %d is %+v\nwant       %+v", i, got[i], *want[i])
		}
	}
}

// TestLifeOfAnUpload: an upload and its parts are there until they are dropped,
// also after a restart, and nothing else is touched.
func TestLifeOfAnUpload(t *testing.T) {
	j := open(t, Config{Dir: t.TempDir()})
	r, other := example(1), example(2)
	acceptAll(t, j, r, other)
	u, later, others := exampleUpload(r.ID, 1), exampleUpload(r.ID, 2), exampleUpload(other.ID, 1)
	u.ID = ""
	for _, u := range []*Upload{later, others, u} {
		j.PutUpload(u, nil)
	}
	await(j)
	wantUploads(t, j, r.ID, u, later)

	u.ID = "known"
	j.PutUpload(u, nil)
	j.PutPart(u, examplePart(2), nil)
	j.PutPart(u, examplePart(1), nil)
	j.PutPart(u, examplePart(10_000), nil)
	j.PutPart(later, examplePart(3), nil)
	j.PutPart(others, examplePart(1), nil)
	again := examplePart(2)
	again.ETag = "again"
	j.PutPart(u, again, nil)
	u.CompletedAt = u.BegunAt.Add(time.Hour)
	j.PutUpload(u, nil)
	await(j)
	for range 2 {
		wantUploads(t, j, r.ID, u, later)
		wantParts(t, j, u, examplePart(1), again, examplePart(10_000))
		wantParts(t, j, later, examplePart(3))
		j = reopen(t, j)
	}

	j.DropUpload(u, nil)
	j.DropUpload(u, nil)
	j.PutPart(u, examplePart(4), nil) // came late
	await(j)
	for range 2 {
		wantUploads(t, j, r.ID, later)
		wantUploads(t, j, other.ID, others)
		wantParts(t, j, u)
		wantParts(t, j, later, examplePart(3))
		wantParts(t, j, others, examplePart(1))
		wantQueued(t, j, r, other)
		if n := j.countUploads(); n != 2 {
			t.Errorf("%d uploads are counted, want 2", n)
		}
		j = reopen(t, j)
	}
}

// TestUploadOutlivesItsPush: where the process ends between the end of a push and
// the drop of its upload, that is still there to be looked after, also once
// nothing is known of the push any more.
func TestUploadOutlivesItsPush(t *testing.T) {
	j := open(t, Config{Dir: t.TempDir(), HistoryCount: 1})
	r, next := example(1), example(2)
	acceptAll(t, j, r, next)
	u := exampleUpload(r.ID, 1)
	j.PutUpload(u, nil)
	j.PutPart(u, examplePart(1), nil)
	endAll(j, ended(*r))
	j = reopen(t, j)
	wantPush(t, j, ended(*r))
	wantUploads(t, j, r.ID, u)

	endAll(j, ended(*next))
	j = reopen(t, j)
	if _, found, err := j.Get(r.ID); found || err != nil {
		t.Errorf("the push is still in the history: %v", err)
	}
	wantUploads(t, j, r.ID, u)
	wantParts(t, j, u, examplePart(1))
}

// TestEachUpload: all of them are seen, in order, however many there are, and as
// long as nobody says stop.
func TestEachUpload(t *testing.T) {
	j := open(t, Config{Dir: t.TempDir()})
	const all = 2*scanMost + 3
	for n := range all {
		j.PutUpload(exampleUpload(push.NewID(time.UnixMilli(int64(n/3)), 0, [8]byte{}), n), nil)
	}
	await(j)
	stop := errors.New("stop")
	for _, most := range []int{0, 1, scanMost, scanMost + 1, all + 1} {
		n := 0
		err := j.EachUpload(func(u *Upload) error {
			if n == most {
				return stop
			}
			if want := exampleUpload(push.NewID(time.UnixMilli(int64(n/3)), 0, [8]byte{}), n); !reflect.DeepEqual(u, want) {
				t.Fatalf("upload %d is %+v\nwant %+v", n, u, want)
			}
			// It may wait for the journal.
			wantUploads(t, j, push.NewID(time.UnixMilli(1), 9, [8]byte{}))
			n++
			return nil
		})
		if n != min(most, all) || errors.Is(err, stop) != (most < all) {
			t.Errorf("%d uploads of %d, %v", n, min(most, all), err)
		}
	}
}

// TestUpgrade opens a file as the first release of the format has written it.
func TestUpgrade(t *testing.T) {
	fault := &broken{}
	dir := t.TempDir()
	unpack(t, filepath.Join("testdata", "format1.db.gz"), filepath.Join(dir, fileName))
	// What fails changes nothing.
	fault.set(errors.New("no"))
	if _, err := Open(t.Context(), Config{Dir: dir, commit: fault.commit}); err == nil {
		t.Fatal("it was opened without being brought up to date")
	}
	fault.set(nil)
	j := open(t, Config{Dir: dir, commit: fault.commit})
	if j.MovedAside() != "" {
		t.Fatal("the file of format 1 was moved aside")
	}
	c, err := check(j.file)
	if err != nil || c.version != version || c.queue != 50 || c.history != 51 || c.keys != 21 {
		t.Errorf("it has %+v, %v", c, err)
	}
	var pushes []*Record
	if err := j.Since(push.ID{}, func(r *Record) bool { pushes = append(pushes, r); return true }); err != nil {
		t.Fatal(err)
	}
	want := full()
	want.ID = pushes[100].ID
	want.Request.Overwrite, want.Spent, want.Traceparent, want.FailedAttempts = nil, nil, "", nil // which came with format 2, and later
	wantPush(t, j, want)
	if _, hash, found, err := j.FindKey("key-b"); !found || err != nil || hash != [32]byte{5} {
		t.Errorf("a key is found: %v, with %x, %v", found, hash, err)
	}
	u := exampleUpload(push.ID{1}, 1)
	j.PutUpload(u, nil)
	added := example(1)
	acceptAll(t, j, added)
	if added.ID.Compare(want.ID) <= 0 {
		t.Errorf("the id %s comes before that of an earlier push", added.ID)
	}
	j = reopen(t, j)
	wantUploads(t, j, u.Push, u)
	wantPush(t, j, want)
	wantPush(t, j, added)
}

func unpack(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, z); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
