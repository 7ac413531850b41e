//go:build linux

package link

import (
	"bytes"
	"os"
	"testing"
	"time"
)

// TestLate checks that packets are counted which arrive long after they were
// due, and those that are not due are not delivered.
func TestLate(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	defer in.Close()
	w := way{to: int(in.Fd())}
	for i, due := range []time.Duration{0, time.Minute, 2 * time.Hour} {
		w.queue.put(due, i+1, 100)
	}
	n, err := w.deliver(time.Now().Add(-time.Hour))
	if late := w.counts().Late; n != 2 || err != nil || late != 1+2 {
		t.Errorf("%d were delivered (%v), %d packets of which late", n, err, late)
	}
}

// TestQueue checks that packets come out as they went in, and that the memory
// of those which are gone is used again.
func TestQueue(t *testing.T) {
	const size, depth, packets = 20_000, 200, 5_000
	var q queue
	content := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, size+i%7) }
	take := func(i int) {
		t.Helper()
		p, ok := q.first()
		if !ok || p.due != time.Duration(i) || p.packets != i%3 || !bytes.Equal(p.data, content(i)) {
			t.Fatalf("packet %d: %v, due %d", i, ok, p.due)
		}
		q.drop()
	}
	slabs := map[*slab]bool{}
	for i := range packets {
		copy(q.put(time.Duration(i), i%3, size+i%7), content(i))
		slabs[q.filling] = true
		if i >= depth {
			take(i - depth)
		}
	}
	for i := packets - depth; i < packets; i++ {
		take(i)
	}
	if _, ok := q.first(); ok {
		t.Error("a packet too many")
	}
	if most := depth*(size+7)/slabSize + 3; len(slabs) > most {
		t.Errorf("%d slabs were used, not at most %d", len(slabs), most)
	}
	if most := 4 * depth; cap(q.parcels) > most {
		t.Errorf("room for %d packets, of which there were %d at most", cap(q.parcels), depth+1)
	}
}
