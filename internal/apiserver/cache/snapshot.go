// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"iter"
	"slices"
	"strings"

	"kaji/internal/api"
	"kaji/internal/store"
)

// Snapshot is one kind at one revision. It never changes.
type Snapshot struct {
	// Revision is the store's revision the snapshot is good for: it may be
	// newer than the last change of the kind.
	Revision int64

	kind *api.Kind
	at   *link
}

// Len returns the number of objects.
func (s *Snapshot) Len() int { return s.at.root.len() }

// Get returns the object at a store key.
func (s *Snapshot) Get(key string) (*Entry, bool) {
	if n := s.at.root.get(key); n != nil {
		return n.entry, true
	}
	return nil, false
}

// Remaining returns the number of objects in a namespace (all when empty) with
// a key not below from.
func (s *Snapshot) Remaining(namespace, from string) int {
	start, end := s.bounds(namespace)
	return s.at.root.count(end) - s.at.root.count(max(start, from))
}

// bounds returns the range of the keys in a namespace, all when empty.
func (s *Snapshot) bounds(namespace string) (start, end string) {
	start = s.kind.Prefix + "/"
	if namespace != "" && s.kind.Namespaced {
		start += namespace + "/"
	}
	return start, store.PrefixEnd(start)
}

// All returns the objects in a namespace (all when empty) in the order of
// their keys, beginning with the key from, or the first one when it is empty.
func (s *Snapshot) All(namespace, from string) iter.Seq[*Entry] {
	start, end := s.bounds(namespace)
	return func(yield func(*Entry) bool) {
		s.at.root.ascend(max(start, from), end, func(n *node) bool { return yield(n.entry) })
	}
}

// Indexed says whether the cache keeps an index of a field.
func (s *Snapshot) Indexed(field string) bool {
	return s.at.indices != nil && slices.Contains(s.kind.IndexedFields, field)
}

// Select is All with only the objects whose indexed field has a value.
func (s *Snapshot) Select(namespace, from, field, value string) iter.Seq[*Entry] {
	index := s.at.indices[slices.Index(s.kind.IndexedFields, field)]
	start, end := s.bounds(namespace)
	return func(yield func(*Entry) bool) {
		index.ascend(indexKey(value, max(start, from)), indexKey(value, end), func(n *node) bool {
			_, key, _ := strings.Cut(n.key, "\x00")
			return yield(s.at.root.get(key).entry)
		})
	}
}

// Cursor returns a cursor that stands at the snapshot: what it delivers first
// is the first change after it.
func (c *Cache) Cursor(s *Snapshot) *Cursor {
	c.mu.RLock()
	f := c.feeds[s.kind.Prefix]
	c.mu.RUnlock()
	if f == nil || f.kind != s.kind {
		return &Cursor{at: s.at, ended: closed}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.end == nil || f.tail.Load() == nil {
		return &Cursor{at: s.at, ended: closed}
	}
	return &Cursor{at: s.at, ended: f.end}
}

// closed is a channel that was closed from the beginning.
var closed = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()
