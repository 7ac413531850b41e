package uploader

import stdheap "container/heap"

// heap is a priority queue of entries, by age unless before says otherwise.
type heap struct {
	entries []*entry
	before  func(a, b *entry) bool
}

func (h *heap) len() int        { return len(h.entries) }
func (h *heap) top() *entry     { return h.entries[0] }
func (h *heap) push(e *entry)   { stdheap.Push((*heapOrder)(h), e) }
func (h *heap) pop() *entry     { return stdheap.Pop((*heapOrder)(h)).(*entry) }
func (h *heap) popLast() *entry { return (*heapOrder)(h).Pop().(*entry) } // one of those that go late
func (h *heap) restore()        { stdheap.Init((*heapOrder)(h)) }

// heapOrder is what container/heap asks for.
type heapOrder heap

func (h *heapOrder) Len() int { return len(h.entries) }
func (h *heapOrder) Less(i, j int) bool {
	a, b := h.entries[i], h.entries[j]
	if h.before != nil {
		return h.before(a, b)
	}
	return a.id.Compare(b.id) < 0
}
func (h *heapOrder) Swap(i, j int) { h.entries[i], h.entries[j] = h.entries[j], h.entries[i] }
func (h *heapOrder) Push(x any)    { h.entries = append(h.entries, x.(*entry)) }

// Pop gives memory back where a long queue has become short.
func (h *heapOrder) Pop() any {
	n := len(h.entries) - 1
	e := h.entries[n]
	h.entries[n] = nil
	h.entries = h.entries[:n]
	if cap(h.entries) > 1024 && n < cap(h.entries)/4 {
		h.entries = append(make([]*entry, 0, cap(h.entries)/2), h.entries...)
	}
	return e
}
