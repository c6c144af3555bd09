// SPDX-License-Identifier: Apache-2.0

package cache

// node is a persistent weight-balanced search tree: a change copies the path to
// the root and shares the rest, so that every old root stays a valid snapshot.
// The nil node is the empty tree. Index trees have no entries, only keys.
type node struct {
	key         string
	entry       *Entry
	left, right *node
	size        int
}

// balance is how much heavier than its sibling a subtree may be, and rotate the
// weight at which a double rotation is needed; the pair keeps the tree balanced
// under both insertion and deletion (Hirai and Yamamoto, 2011).
const (
	balance = 3
	rotate  = 2
)

func (n *node) len() int {
	if n == nil {
		return 0
	}
	return n.size
}

func join(key string, entry *Entry, left, right *node) *node {
	return &node{key: key, entry: entry, left: left, right: right, size: left.len() + right.len() + 1}
}

// balanced joins two trees of which one may be out of balance by one change.
func balanced(key string, entry *Entry, l, r *node) *node {
	lw, rw := l.len()+1, r.len()+1
	switch {
	case rw > balance*lw:
		if r.left.len()+1 < rotate*(r.right.len()+1) {
			return join(r.key, r.entry, join(key, entry, l, r.left), r.right)
		}
		m := r.left
		return join(m.key, m.entry, join(key, entry, l, m.left), join(r.key, r.entry, m.right, r.right))
	case lw > balance*rw:
		if l.right.len()+1 < rotate*(l.left.len()+1) {
			return join(l.key, l.entry, l.left, join(key, entry, l.right, r))
		}
		m := l.right
		return join(m.key, m.entry, join(l.key, l.entry, l.left, m.left), join(key, entry, m.right, r))
	}
	return join(key, entry, l, r)
}

func (n *node) get(key string) *node {
	for n != nil && n.key != key {
		if key < n.key {
			n = n.left
		} else {
			n = n.right
		}
	}
	return n
}

func (n *node) put(key string, entry *Entry) *node {
	switch {
	case n == nil:
		return join(key, entry, nil, nil)
	case key < n.key:
		return balanced(n.key, n.entry, n.left.put(key, entry), n.right)
	case key > n.key:
		return balanced(n.key, n.entry, n.left, n.right.put(key, entry))
	}
	return join(key, entry, n.left, n.right)
}

func (n *node) remove(key string) *node {
	switch {
	case n == nil:
		return nil
	case key < n.key:
		return balanced(n.key, n.entry, n.left.remove(key), n.right)
	case key > n.key:
		return balanced(n.key, n.entry, n.left, n.right.remove(key))
	case n.left == nil:
		return n.right
	case n.right == nil:
		return n.left
	}
	next := n.right
	for next.left != nil {
		next = next.left
	}
	return balanced(next.key, next.entry, n.left, n.right.remove(next.key))
}

// ascend visits the keys in [start, end) in order until visit returns false;
// an empty end means no bound. It says whether it was left to finish.
func (n *node) ascend(start, end string, visit func(*node) bool) bool {
	for n != nil {
		if n.key < start {
			n = n.right
			continue
		}
		if end != "" && n.key >= end {
			n = n.left
			continue
		}
		if !n.left.ascend(start, end, visit) || !visit(n) {
			return false
		}
		n = n.right
	}
	return true
}

// count returns the number of keys below key.
func (n *node) count(key string) int {
	below := 0
	for n != nil {
		if n.key < key {
			below += n.left.len() + 1
			n = n.right
		} else {
			n = n.left
		}
	}
	return below
}

// build returns the tree of entries that are sorted by key.
func build(entries []*Entry) *node {
	if len(entries) == 0 {
		return nil
	}
	mid := len(entries) / 2
	return join(entries[mid].Key, entries[mid], build(entries[:mid]), build(entries[mid+1:]))
}
