//go:build linux

package link

import "time"

// slabSize is what the queue's memory grows by: many packets, so that their
// number is nothing to the allocator.
const slabSize = 1 << 20

// A slab holds parcels that follow each other in a queue.
type slab struct {
	data    []byte
	parcels int // that are still in the queue
}

// A parcel is packets on their way that arrive together.
type parcel struct {
	due     time.Duration
	packets int
	data    []byte
	in      *slab
}

// A queue has the parcels that are on their way, in the order in which they
// arrive.
type queue struct {
	parcels []parcel // those before head are gone
	head    int
	filling *slab
	spare   []*slab
}

// put adds a parcel of n bytes, which is due no earlier than those before it,
// and returns the place for them.
func (q *queue) put(due time.Duration, packets, n int) []byte {
	s := q.slabFor(n)
	start := len(s.data)
	s.data = s.data[:start+n]
	s.parcels++
	p := parcel{due: due, packets: packets, data: s.data[start:], in: s}
	if q.head > 0 && len(q.parcels) == cap(q.parcels) {
		kept := copy(q.parcels, q.parcels[q.head:])
		q.parcels, q.head = q.parcels[:kept], 0
	}
	q.parcels = append(q.parcels, p)
	return p.data
}

// slabFor returns the slab that the next n bytes go to.
func (q *queue) slabFor(n int) *slab {
	if s := q.filling; s != nil {
		if len(s.data)+n <= cap(s.data) {
			return s
		}
		if s.parcels == 0 {
			q.spare = append(q.spare, s)
		}
	}
	if last := len(q.spare) - 1; last >= 0 {
		q.filling, q.spare = q.spare[last], q.spare[:last]
		q.filling.data = q.filling.data[:0]
	} else {
		q.filling = &slab{data: make([]byte, 0, slabSize)}
	}
	return q.filling
}

// first returns the parcel that arrives next, if there is one.
func (q *queue) first() (parcel, bool) {
	if q.head == len(q.parcels) {
		return parcel{}, false
	}
	return q.parcels[q.head], true
}

// drop removes the parcel that first returns, whose bytes are the queue's
// again.
func (q *queue) drop() {
	s := q.parcels[q.head].in
	q.parcels[q.head] = parcel{}
	q.head++
	if q.head == len(q.parcels) {
		q.parcels, q.head = q.parcels[:0], 0
	}
	if s.parcels--; s.parcels == 0 && s != q.filling {
		q.spare = append(q.spare, s)
	}
}
