// SPDX-License-Identifier: Apache-2.0

package queue

import stdheap "container/heap"

// heap is a priority queue of items that know their place in it.
type heap struct {
	items []*Item
	less  func(a, b *Item) bool
}

func (h *heap) len() int        { return len(h.items) }
func (h *heap) push(it *Item)   { stdheap.Push((*sorted)(h), it) }
func (h *heap) pop() *Item      { return stdheap.Pop((*sorted)(h)).(*Item) }
func (h *heap) fix(it *Item)    { stdheap.Fix((*sorted)(h), it.index) }
func (h *heap) remove(it *Item) { stdheap.Remove((*sorted)(h), it.index) }

// pods counts the pods in the heap.
func (h *heap) pods() (n int) {
	for _, it := range h.items {
		n += it.size()
	}
	return n
}

// sorted is the heap as the standard library sees it.
type sorted heap

func (s *sorted) Len() int           { return len(s.items) }
func (s *sorted) Less(i, j int) bool { return s.less(s.items[i], s.items[j]) }
func (s *sorted) Swap(i, j int) {
	s.items[i], s.items[j] = s.items[j], s.items[i]
	s.items[i].index, s.items[j].index = i, j
}
func (s *sorted) Push(x any) {
	it := x.(*Item)
	it.index = len(s.items)
	s.items = append(s.items, it)
}
func (s *sorted) Pop() any {
	last := len(s.items) - 1
	it := s.items[last]
	s.items[last] = nil
	s.items = s.items[:last]
	return it
}
