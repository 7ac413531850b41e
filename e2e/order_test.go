package e2e

import (
	"fmt"
	"slices"
	"testing"
)

// Pushes to one object reach the store one at a time and in the order in which
// they were accepted, whatever fails in between, and when the daemon is killed
// in the midst of it.
func TestOrder(t *testing.T) {
	seed := seedOf(t)
	for _, kills := range []int{0, 3} {
		t.Run(fmt.Sprintf("%d kills", kills), func(t *testing.T) {
			p := newFaultProxy(t)
			held := newGate()
			p.follow(always(fault{before: held.wait})) // until all are accepted
			d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_LOG_LEVEL=debug")
			bucket := newBucket(t)
			// Their sizes tell the versions apart, whatever the store says.
			const versions = 30
			order := map[int64]int{}
			var files, ids []string
			for i := range versions {
				size := int64(1000 + i)
				files = append(files, makeFile(t, fmt.Sprintf("version-%d", i), size))
				order[size] = i
			}
			for i, f := range files {
				w := async.labelled("order")
				if i == versions/2 {
					w.prefer = "" // and nothing changes when somebody waits
					go d.tryPushAs(t.Context(), w, f, "s3://"+bucket+"/key")
					waitFor(t, "it to be accepted", func() bool { return len(d.listOf(t, "label=order")) == i+1 })
					ids = append(ids, d.pageOf(t, "label=order&limit=1").Pushes[0].ID)
					continue
				}
				ids = append(ids, d.pushAs(t, w, f, "s3://"+bucket+"/key").accepted(t).ID)
			}
			if !slices.IsSorted(ids) {
				t.Errorf("the ids do not sort in the order of acceptance: %v", ids)
			}
			p.follow(randomFaults(seed, 0.3, allFaults()...))
			held.open()
			for i := range kills {
				want := versions * (i + 1) / (kills + 1)
				d.waitForTries(t, "some to be stored", func() bool { return len(p.objectsMade(bucket, "key")) >= want })
				d.kill()
				d = d.restart(t)
			}
			d.barrier(t, "order")
			for _, id := range ids {
				// Who waited may have been given up while he did.
				if r := d.pushOf(t, id); r.State != "done" && id != ids[versions/2] {
					t.Errorf("%s: %s, %+v", r.File, r.State, r.Problem)
				}
			}
			last, seen := -1, map[int]bool{}
			for _, x := range p.objectsMade(bucket, "key") {
				version := order[x.size]
				seen[version] = true
				if version < last {
					t.Errorf("the store was given version %d after version %d", version, last)
				}
				last = version
			}
			if len(seen) < versions-1 || last != versions-1 {
				t.Errorf("the store was given %d versions, the last of them %d; want %d", len(seen), last, versions)
			}
			if crowded := p.madeAtOnce(); len(crowded) > 0 {
				t.Errorf("two requests made an object at once: %v", crowded)
			}
			checkObject(t, bucket, "key", files[versions-1])
			t.Logf("the store's proxy saw: %s", p.summary())
		})
	}
}

// Two objects do not wait for each other.
func TestOrderIsPerObject(t *testing.T) {
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	g := newGate()
	p.follow(func(r request) fault {
		if r.key == "stuck" {
			return fault{before: g.wait}
		}
		return fault{}
	})
	first := d.pushAsync(t, file, "s3://"+bucket+"/stuck")
	second := d.pushAsync(t, file, "s3://"+bucket+"/stuck")
	waitFor(t, "one to be under way", func() bool { return p.nowHeld() == 1 })
	for i := range 5 {
		d.push(t, file, fmt.Sprintf("s3://%s/other-%d", bucket, i)).done(t)
	}
	if r := d.pushOf(t, second.ID); r.State != "queued" {
		t.Errorf("the second push to an object is %s while the first is under way", r.State)
	}
	if r := d.pushOf(t, first.ID); r.State != "running" {
		t.Errorf("the first push is %s, want running", r.State)
	}
	g.open()
	d.doneOf(t, first.ID)
	d.doneOf(t, second.ID)
	checkObject(t, bucket, "stuck", file)
}
