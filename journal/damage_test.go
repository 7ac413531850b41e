package journal

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/lsst-dm/s3daemon/push"
)

var damageRounds = flag.Int("damage", 40, "how many damaged files TestDamage makes")
var damageStep = flag.Int("damage-step", 7, "how many bytes on the next flipped bit of TestEveryByteOfASmallJournal is")

// sample makes a journal of some thousand pushes in dir, with pages that were
// used and freed and a deeper tree, and returns all that is in it.
func sample(t testing.TB, dir string) map[push.ID]*Record {
	t.Helper()
	j := open(t, Config{Dir: dir})
	all := make([]*Record, 2000)
	for i := range all {
		all[i] = example(i)
		if i%10 == 0 {
			all[i].IdempotencyKey = fmt.Sprint("key-", i)
		}
		if i%500 == 0 {
			all[i].Request.Metadata = map[string]string{"long": string(make([]byte, 6000))} // more than a page
		}
	}
	records := make(map[push.ID]*Record)
	for n := 0; n < len(all); n += 500 {
		acceptAll(t, j, all[n:n+500]...)
		for i := n; i < n+400; i += 3 {
			all[i] = ended(*all[i])
			endAll(j, all[i])
		}
	}
	for _, r := range all {
		records[r.ID] = r
		for n := range uploadsOf(r) {
			u := exampleUpload(r.ID, n)
			j.PutUpload(u, nil)
			for i := range partsOfSample {
				j.PutPart(u, examplePart(i+1), nil)
			}
		}
		dropped := exampleUpload(r.ID, -1)
		j.PutUpload(dropped, nil)
		j.PutPart(dropped, examplePart(1), nil)
		j.DropUpload(dropped, nil)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return records
}

// partsOfSample is how many parts each upload of a sample has.
const partsOfSample = 7

// uploadsOf returns how many uploads there are of a push of a sample.
func uploadsOf(r *Record) int {
	if r.Size%10 != 0 {
		return 0
	}
	return 2
}

// TestDamage overwrites parts of a journal: whatever is done to it, it opens
// with all that was in it, or it is moved aside.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	records := sample(t, dir)
	good, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	moved := 0
	for round := range *damageRounds {
		bad, what := harm(rng, good)
		if openDamaged(t, fmt.Sprintf("round %d: %s", round, what), bad, records) {
			moved++
		}
	}
	t.Logf("%d of %d files were moved aside", moved, *damageRounds)
	if moved == 0 || moved == *damageRounds {
		t.Errorf("%d of %d files were moved aside: is anything damaged, or everything?", moved, *damageRounds)
	}
}

// harm returns a damaged copy, and what was done to it.
func harm(rng *rand.Rand, good []byte) ([]byte, string) {
	bad := append([]byte(nil), good...)
	what := ""
	for range 1 + rng.IntN(3) {
		at := rng.IntN(len(bad))
		size := 1 << rng.IntN(16)
		if rng.IntN(2) == 0 {
			at &^= 4095 // the headers of pages are worth it
			at += rng.IntN(200)
		}
		at = min(at, len(bad)-1)
		part := bad[at:min(at+size, len(bad))]
		switch kind := rng.IntN(6); kind {
		case 0:
			what += fmt.Sprintf("%d zeros at %d; ", len(part), at)
			clear(part)
		case 1:
			what += fmt.Sprintf("cut at %d; ", at)
			bad = bad[:max(at, 1)]
		case 2:
			what += fmt.Sprintf("a flipped bit at %d; ", at)
			part[0] ^= 1 << rng.IntN(8)
		case 3:
			from := rng.IntN(len(bad)) &^ 4095
			what += fmt.Sprintf("a page from %d at %d; ", from, at&^4095)
			copy(bad[at&^4095:], good[from:min(from+4096, len(good))])
		case 4:
			what += fmt.Sprintf("a byte at %d; ", at)
			part[0] = byte(rng.IntN(256))
		default:
			what += fmt.Sprintf("%d bytes of noise at %d; ", len(part), at)
			for i := range part {
				part[i] = byte(rng.Uint32())
			}
		}
	}
	return bad, what
}

// openDamaged opens a journal that is bad, which must have all the records or
// be moved aside; it reports which.
func openDamaged(t *testing.T, what string, bad []byte, records map[push.ID]*Record) (moved bool) {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, fileName)
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	var log recorder
	j, err := Open(t.Context(), Config{Dir: dir, Log: slogTo(&log)})
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return false
	}
	defer j.Close()
	if to := j.MovedAside(); to != "" {
		if kept, err := os.ReadFile(to); err != nil || string(kept) != string(bad) {
			t.Errorf("%s: what was moved aside is not what was there, %v", what, err)
		}
		wantQueued(t, j)
		return true
	}
	// With one of the first two pages gone, the newest transaction may be
	// missing; then the log says so.
	behind := log.String() != ""
	n := 0
	err = j.Newest(push.ID{}, func(r *Record) bool {
		n++
		if was := records[r.ID]; !reflect.DeepEqual(r, was) && (!behind || r.Request.File != was.Request.File) {
			t.Errorf("%s: push %s is not what it was", what, r.ID)
		}
		return true
	})
	if err != nil || n != len(records) && !behind {
		t.Errorf("%s: %d pushes of %d, %v", what, n, len(records), err)
	}
	if !behind {
		wantSampleUploads(t, what, j, records)
	}
	// It can be written, too.
	r := example(99)
	acceptAll(t, j, r)
	endAll(j, ended(*r))
	return false
}

func wantSampleUploads(t *testing.T, what string, j *Journal, records map[push.ID]*Record) {
	t.Helper()
	want := 0
	for id, r := range records {
		n := uploadsOf(r)
		want += n
		if n == 0 {
			continue
		}
		uploads, err := j.Uploads(id)
		if err != nil || len(uploads) != n {
			t.Errorf("%s: push %s has %d uploads, want %d, %v", what, id, len(uploads), n, err)
		}
		for i := range uploads {
			u := &uploads[i]
			parts, err := j.Parts(u)
			if err != nil || len(parts) != partsOfSample || !reflect.DeepEqual(u, exampleUpload(id, i)) || !reflect.DeepEqual(&parts[2], examplePart(3)) {
				t.Errorf("%s: upload %d of push %s is not what it was: %+v, %v", what, i, id, u, err)
			}
		}
	}
	if got := j.countUploads(); got != uint64(want) {
		t.Errorf("%s: %d uploads, want %d", what, got, want)
	}
}

// TestEveryByteOfASmallJournal flips bits in each byte that is in use.
func TestEveryByteOfASmallJournal(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	records := make(map[push.ID]*Record)
	for i := range 30 {
		r := example(i)
		r.IdempotencyKey = fmt.Sprint(i)
		acceptAll(t, j, r)
		records[r.ID] = r
		if i%3 == 0 {
			u := exampleUpload(r.ID, 1)
			j.PutUpload(u, nil)
			j.PutPart(u, examplePart(1), nil)
			j.PutPart(u, examplePart(2), nil)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(good); err != nil {
		t.Fatal(err)
	}
	found, unnoticed := 0, 0
	for at := 0; at < 40*4096 && at < len(good); at += *damageStep {
		if good[at] == 0 && at%8 != 1 {
			continue // mostly padding
		}
		bit := byte(1) << (at % 8)
		if _, err := f.WriteAt([]byte{good[at] ^ bit}, int64(at)); err != nil {
			t.Fatal(err)
		}
		c, err := check(f)
		switch {
		case err != nil:
			found++
		case !c.oneMeta && (int(c.queue) != len(records) || c.uploads != 10 || c.parts != 20):
			t.Errorf("with bit %d of byte %d flipped there are %s", at%8, at, &c.totals)
		default:
			unnoticed++ // a free page, or padding
		}
		if _, err := f.WriteAt(good[at:at+1], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d flipped bits were found, %d made no difference", found, unnoticed)
	if found == 0 {
		t.Error("no flipped bit was found")
	}
}

// TestCheckAgreesWithBbolt: what bbolt has written, in all kinds of states, is
// never called damaged.
func TestCheckAgreesWithBbolt(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	dir := t.TempDir()
	j := open(t, Config{Dir: dir, HistoryCount: 500})
	var queue []*Record
	uploads := make(map[string]bool)
	for step := range 200 {
		changeUploads(j, rng, uploads)
		switch n := 1 + rng.IntN(1<<rng.IntN(9)); {
		case rng.IntN(100) == 0: // all
			for i, r := range queue {
				queue[i] = ended(*r)
			}
			endAll(j, queue...)
			queue = nil
		case rng.IntN(2) == 0 && len(queue) > 0:
			ends := make([]*Record, 0, n)
			for range min(n, len(queue)) {
				i := rng.IntN(len(queue))
				r := ended(*queue[i])
				if rng.IntN(50) == 0 {
					r.Problem = &push.Problem{Detail: string(make([]byte, rng.IntN(20_000)))}
				}
				ends = append(ends, r)
				queue[i] = queue[len(queue)-1]
				queue = queue[:len(queue)-1]
			}
			endAll(j, ends...)
		default:
			some := make([]*Record, n)
			for i := range some {
				some[i] = example(step*1000 + i)
				if rng.IntN(3) == 0 {
					key := make([]byte, 1+rng.IntN(100))
					for i := range key {
						key[i] = byte(rng.Uint32())
					}
					some[i].IdempotencyKey = hex.EncodeToString(key)
				}
				if rng.IntN(50) == 0 {
					some[i].Request.Metadata = map[string]string{"x": string(make([]byte, rng.IntN(20_000)))}
				}
			}
			acceptDistinct(j, some)
			queue = append(queue, accepted(j, some)...)
		}
		c, err := check(j.file)
		if err != nil || c.oneMeta || int(c.queue) != len(queue) || int(c.uploads) != len(uploads) {
			t.Fatalf("step %d: %s, want %d in the queue and %d uploads; %v", step, &c.totals, len(queue), len(uploads), err)
		}
	}
	// bbolt's own check agrees.
	err := j.db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// changeUploads begins an upload with some parts, or drops one. have is what
// there are.
func changeUploads(j *Journal, rng *rand.Rand, have map[string]bool) {
	u := exampleUpload(push.ID{byte(rng.IntN(20))}, 0)
	key := string(uploadKey(u))
	if have[key] {
		j.DropUpload(u, nil)
		delete(have, key)
	} else {
		have[key] = true
		u.ID = string(make([]byte, rng.IntN(5_000)))
		j.PutUpload(u, nil)
		for n := range rng.IntN(1 << rng.IntN(11)) {
			j.PutPart(u, examplePart(n+1), nil)
		}
	}
	await(j)
}

// acceptDistinct accepts records, of which some may have a key that is taken.
func acceptDistinct(j *Journal, records []*Record) {
	done := make(chan struct{}, len(records))
	for _, r := range records {
		j.Accept(r, func(error) { done <- struct{}{} })
	}
	for range records {
		<-done
	}
}

// accepted returns those that are in the journal.
func accepted(j *Journal, records []*Record) []*Record {
	var in []*Record
	for _, r := range records {
		if _, found, _ := j.Get(r.ID); found {
			in = append(in, r)
		}
	}
	return in
}

// TestStalePages puts single pages of an earlier state of a journal in the place
// of the newer ones, as a disk does that has lost a write. Each is whole in
// itself.
func TestStalePages(t *testing.T) {
	dir := t.TempDir()
	j := open(t, Config{Dir: dir})
	read := func() []byte {
		b, err := os.ReadFile(filepath.Join(dir, fileName))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var before []byte
	var queue []*Record
	for i := range 120 {
		r := example(i)
		acceptAll(t, j, r)
		if queue = append(queue, r); i%4 == 3 {
			endAll(j, ended(*queue[0]), ended(*queue[2]))
			queue = queue[3:]
		}
		u := exampleUpload(push.ID{byte(i % 7)}, i%3)
		j.PutUpload(u, nil)
		j.PutPart(u, examplePart(i+1), nil)
		if i%10 == 9 {
			j.DropUpload(u, nil)
		}
		await(j)
		if i == 100 {
			before = read()
		}
	}
	want, err := check(j.file)
	if err != nil {
		t.Fatal(err)
	}
	after := read()
	f, err := os.Create(filepath.Join(dir, "copy"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(after); err != nil {
		t.Fatal(err)
	}
	found := 0
	for at := 2 * 4096; at < min(len(before), len(after)); at += 4096 {
		if bytes.Equal(before[at:at+4096], after[at:at+4096]) {
			continue
		}
		if _, err := f.WriteAt(before[at:at+4096], int64(at)); err != nil {
			t.Fatal(err)
		}
		if got, err := check(f); err != nil {
			found++
		} else if got != want {
			t.Errorf("with an old page at %d there is %+v, want %+v", at, got, want)
		}
		if _, err := f.WriteAt(after[at:at+4096], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	if found < 3 {
		t.Errorf("%d stale pages were found", found)
	}
}
