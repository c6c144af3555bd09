// SPDX-License-Identifier: Apache-2.0

package snapshot

// Topology is a column: the value of one label for every node, as a small
// number.
type Topology struct {
	// Key is the label.
	Key string

	value []int32 // by slot, -1 where the label is absent
	ids   map[string]int32
	names []string
	nodes []int32 // by value: how many nodes have it
}

// Topology returns the column of a label.
func (s *Snapshot) Topology(key string) *Topology {
	t := s.topologies[key]
	if t == nil {
		t = &Topology{Key: key, ids: map[string]int32{}}
		s.topologies[key] = t
		for _, n := range s.slots {
			if n != nil {
				v, ok := n.Object.Labels[key]
				t.set(n.Slot, v, ok)
			}
		}
	}
	return t
}

// Of returns the number of the node's value, -1 when it lacks the label.
func (t *Topology) Of(n *Node) int32 {
	if int(n.Slot) >= len(t.value) {
		return -1
	}
	return t.value[n.Slot]
}

// Values returns how many numbers were given out; some may have no node now.
func (t *Topology) Values() int { return len(t.names) }

// Nodes returns how many nodes have the value.
func (t *Topology) Nodes(value int32) int32 { return t.nodes[value] }

func (t *Topology) set(slot int32, v string, ok bool) {
	for int(slot) >= len(t.value) {
		t.value = append(t.value, -1)
	}
	if old := t.value[slot]; old >= 0 {
		t.nodes[old]--
	}
	if !ok {
		t.value[slot] = -1
		return
	}
	id, known := t.ids[v]
	if !known {
		id = int32(len(t.names))
		t.ids[v] = id
		t.names = append(t.names, v)
		t.nodes = append(t.nodes, 0)
	}
	t.value[slot] = id
	t.nodes[id]++
}
