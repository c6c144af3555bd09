// SPDX-License-Identifier: Apache-2.0

package topologymanager

import "math/bits"

// Mask is a set of NUMA nodes by their numbers, at most 64.
type Mask uint64

// MaskOf is the set of some nodes.
func MaskOf(nodes ...int) Mask {
	m := Mask(0)
	for _, n := range nodes {
		if n >= 0 && n < 64 {
			m |= 1 << n
		}
	}
	return m
}

// Count is the number of nodes of a set.
func (m Mask) Count() int { return bits.OnesCount64(uint64(m)) }

// Has says whether a node is in a set.
func (m Mask) Has(node int) bool { return node >= 0 && node < 64 && m&(1<<node) != 0 }

// Nodes are the nodes of a set, lowest first.
func (m Mask) Nodes() []int {
	var out []int
	for rest := uint64(m); rest != 0; rest &= rest - 1 {
		out = append(out, bits.TrailingZeros64(rest))
	}
	return out
}

// Narrower says whether a set has fewer nodes than another, or as many and lower
// ones.
func (m Mask) Narrower(than Mask) bool {
	if m.Count() == than.Count() {
		return m < than
	}
	return m.Count() < than.Count()
}

// EachMask calls visit with all sets of some nodes that are not empty, smaller
// sets first.
func EachMask(nodes []int, visit func(Mask)) {
	var pick func(from, left int, m Mask)
	pick = func(from, left int, m Mask) {
		if left == 0 {
			visit(m)
			return
		}
		for i := from; i <= len(nodes)-left; i++ {
			pick(i+1, left-1, m|MaskOf(nodes[i]))
		}
	}
	for size := 1; size <= len(nodes); size++ {
		pick(0, size, 0)
	}
}

// Hint is a set of nodes that a request can be satisfied from.
type Hint struct {
	// Affinity is zero where all nodes are alike.
	Affinity Mask
	// Preferred says that no smaller set could ever satisfy the request.
	Preferred bool
}
