// SPDX-License-Identifier: Apache-2.0

// Package snapshot is the scheduler's picture of the cluster: nodes with what
// is used on them, the pods placed there, and counters over topology domains.
// It is kept up to date change by change and never copied: the scheduling loop
// owns it, applies what informers report between two decisions, and plugins
// read it while a decision is made.
//
// A Snapshot is not safe for concurrent use. What it never does: read the API,
// start goroutines, or judge whether a pod fits.
package snapshot

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Snapshot holds the nodes in slots. A slot keeps its number as long as its
// node lives, so that columns (arrays by slot) stay valid.
type Snapshot struct {
	slots  []*Node // nil where free
	free   []int32
	byName map[string]*Node
	count  int // nodes that have an object

	pods       map[types.UID]*Pod
	waiting    map[string]map[*Pod]struct{} // pods on nodes that are not known yet
	nominated  map[types.UID]*Pod
	namespaces map[string]labels.Set

	scalars    map[corev1.ResourceName]int
	scalarName []corev1.ResourceName
	images     map[string]*Image
	topologies map[string]*Topology
	claims     map[string]int // pods placed by "namespace/claim"

	counters counters

	changes    []int32 // slots in the order of their changes
	changeBase uint64  // position of changes[0]
	simulating bool
	placements uint64
}

// Image is what the cluster knows about one container image.
type Image struct {
	Size  int64
	Nodes int
}

// New returns an empty snapshot.
func New() *Snapshot {
	return &Snapshot{
		byName:     map[string]*Node{},
		pods:       map[types.UID]*Pod{},
		waiting:    map[string]map[*Pod]struct{}{},
		nominated:  map[types.UID]*Pod{},
		namespaces: map[string]labels.Set{},
		scalars:    map[corev1.ResourceName]int{},
		images:     map[string]*Image{},
		topologies: map[string]*Topology{},
		claims:     map[string]int{},
		counters:   newCounters(),
	}
}

// Slots returns the nodes by slot; free slots are nil. The slice must not be
// changed and is valid until the next change of the snapshot.
func (s *Snapshot) Slots() []*Node { return s.slots }

// Len returns the number of nodes.
func (s *Snapshot) Len() int { return s.count }

// Node returns the node by name, or nil.
func (s *Snapshot) Node(name string) *Node { return s.byName[name] }

// Pod returns the placed or assumed pod, or nil.
func (s *Snapshot) Pod(uid types.UID) *Pod { return s.pods[uid] }

// Pods returns the number of placed and assumed pods.
func (s *Snapshot) Pods() int { return len(s.pods) }

// ClaimUsers returns how many placed pods use the claim "namespace/name".
func (s *Snapshot) ClaimUsers(key string) int { return s.claims[key] }

// Image returns what is known of an image name, or nil.
func (s *Snapshot) Image(name string) *Image { return s.images[name] }

// NamespaceLabels returns the labels of a namespace, nil when it is unknown.
func (s *Snapshot) NamespaceLabels(name string) labels.Set { return s.namespaces[name] }

// Position is where the log of changes ends. Changes since a position are
// those that a cached judgement of nodes must look at again.
func (s *Snapshot) Position() uint64 { return s.changeBase + uint64(len(s.changes)) }

// ChangedSince returns the slots changed since pos, with repetitions; false
// says that the log no longer reaches back so far and everything may differ.
func (s *Snapshot) ChangedSince(pos uint64) ([]int32, bool) {
	if pos < s.changeBase {
		return nil, false
	}
	return s.changes[pos-s.changeBase:], true
}

func (s *Snapshot) changed(n *Node) {
	if s.simulating {
		return
	}
	if limit := 4*len(s.slots) + 1024; len(s.changes) >= limit {
		half := len(s.changes) / 2
		s.changeBase += uint64(half)
		s.changes = append(s.changes[:0], s.changes[half:]...)
	}
	s.changes = append(s.changes, n.Slot)
}

// Simulate runs try, which may place and remove pods as long as it restores
// all of them before it returns. Judgements cached by others stay valid.
func (s *Snapshot) Simulate(try func()) {
	outer := s.simulating
	s.simulating = true
	try()
	s.simulating = outer
	if !outer {
		s.counters.sweep()
	}
}

// Simulating says whether a Simulate is under way.
func (s *Snapshot) Simulating() bool { return s.simulating }

// SetNode adds or replaces a node.
func (s *Snapshot) SetNode(obj *corev1.Node) *Node {
	n := s.byName[obj.Name]
	if n == nil {
		n = &Node{Name: obj.Name}
		if k := len(s.free); k > 0 {
			n.Slot = s.free[k-1]
			s.free = s.free[:k-1]
			s.slots[n.Slot] = n
		} else {
			n.Slot = int32(len(s.slots))
			s.slots = append(s.slots, n)
		}
		s.byName[obj.Name] = n
		s.count++
		s.counters.grow(len(s.slots))
		s.setObject(n, obj)
		for p := range s.waiting[obj.Name] {
			s.place(n, p)
		}
		delete(s.waiting, obj.Name)
	} else if sameNode(n.Object, obj) {
		n.Object = obj
		return n
	} else if labels.Equals(n.Object.Labels, obj.Labels) {
		s.setObject(n, obj)
	} else {
		// Counters are by topology value: take the pods out under the old
		// labels and put them back under the new ones.
		pods := append([]*Pod(nil), n.Pods...)
		for _, p := range pods {
			s.counters.apply(s, n, p, -1)
		}
		s.setObject(n, obj)
		for _, p := range pods {
			s.counters.apply(s, n, p, 1)
		}
	}
	s.changed(n)
	return n
}

// RemoveNode forgets a node. Pods on it are kept aside, as their node may come back.
func (s *Snapshot) RemoveNode(name string) {
	n := s.byName[name]
	if n == nil {
		return
	}
	for len(n.Pods) > 0 {
		p := n.Pods[len(n.Pods)-1]
		s.displace(n, p)
		s.await(name, p)
	}
	s.setImages(n, nil)
	for _, t := range s.topologies {
		t.set(n.Slot, "", false)
	}
	delete(s.byName, name)
	s.slots[n.Slot] = nil
	s.free = append(s.free, n.Slot)
	s.count--
	s.changed(n)
}

func (s *Snapshot) setObject(n *Node, obj *corev1.Node) {
	n.Object = obj
	n.setTaints(obj.Spec.Taints)
	n.Allocatable = s.Resources(obj.Status.Allocatable)
	n.AllowedPods = int64(0)
	if q, ok := obj.Status.Allocatable[corev1.ResourcePods]; ok {
		n.AllowedPods = q.Value()
	}
	s.setImages(n, obj.Status.Images)
	for _, t := range s.topologies {
		v, ok := obj.Labels[t.Key]
		t.set(n.Slot, v, ok)
	}
}

func (s *Snapshot) setImages(n *Node, list []corev1.ContainerImage) {
	for name := range n.images {
		if img := s.images[name]; img != nil {
			if img.Nodes--; img.Nodes == 0 {
				delete(s.images, name)
			}
		}
	}
	n.images = nil
	if len(list) == 0 {
		return
	}
	n.images = make(map[string]struct{}, len(list))
	for i := range list {
		for _, name := range list[i].Names {
			if _, twice := n.images[name]; twice {
				continue
			}
			n.images[name] = struct{}{}
			img := s.images[name]
			if img == nil {
				img = &Image{Size: list[i].SizeBytes} // the first node's word
				s.images[name] = img
			}
			img.Nodes++
		}
	}
}

// Place puts a pod on a node, whether the node is known or not. A pod that is
// already placed elsewhere is moved.
func (s *Snapshot) Place(nodeName string, p *Pod) {
	if old := s.pods[p.UID()]; old != nil {
		s.Displace(old)
	}
	s.pods[p.UID()] = p
	p.NodeName = nodeName
	if n := s.byName[nodeName]; n != nil {
		s.place(n, p)
	} else {
		s.await(nodeName, p)
	}
}

// Displace takes a placed pod away.
func (s *Snapshot) Displace(p *Pod) {
	if s.pods[p.UID()] != p {
		return
	}
	delete(s.pods, p.UID())
	if n := s.byName[p.NodeName]; n != nil {
		s.displace(n, p)
		return
	}
	delete(s.waiting[p.NodeName], p)
	if len(s.waiting[p.NodeName]) == 0 {
		delete(s.waiting, p.NodeName)
	}
}

// Refresh replaces the object of a placed pod by a newer one. It is cheap when
// nothing changed that placing depends on.
func (s *Snapshot) Refresh(old, p *Pod) {
	if old.sameUse(p) && s.pods[p.UID()] == old {
		old.Object = p.Object
		return
	}
	s.Place(p.Object.Spec.NodeName, p)
}

// Lend puts a pod that is not placed on a node, and Withdraw takes a pod off
// one, within Simulate only; each undoes the other.
func (s *Snapshot) Lend(n *Node, p *Pod) { s.place(n, p) }

// Withdraw is the opposite of Lend.
func (s *Snapshot) Withdraw(n *Node, p *Pod) { s.displace(n, p) }

func (s *Snapshot) await(name string, p *Pod) {
	if s.waiting[name] == nil {
		s.waiting[name] = map[*Pod]struct{}{}
	}
	s.waiting[name][p] = struct{}{}
}

func (s *Snapshot) place(n *Node, p *Pod) {
	n.add(p)
	s.account(n, p, 1)
}

func (s *Snapshot) displace(n *Node, p *Pod) {
	n.remove(p)
	s.account(n, p, -1)
}

func (s *Snapshot) account(n *Node, p *Pod, by int) {
	s.placements++
	for _, claim := range p.Claims {
		if s.claims[claim] += by; s.claims[claim] == 0 {
			delete(s.claims, claim)
		}
	}
	s.counters.apply(s, n, p, by)
	s.changed(n)
}

// Nominate records that a pending pod is expected on a node; "" withdraws it.
func (s *Snapshot) Nominate(p *Pod, nodeName string) {
	if old := s.nominated[p.UID()]; old != nil {
		if n := s.byName[old.Nominated]; n != nil {
			n.Nominated = without(n.Nominated, old)
		}
		delete(s.nominated, p.UID())
	}
	p.Nominated = nodeName
	if nodeName == "" {
		return
	}
	s.nominated[p.UID()] = p
	if n := s.byName[nodeName]; n != nil {
		n.Nominated = append(n.Nominated, p)
	}
}

// Nominations returns the pending pods that are expected on some node. The map
// must not be changed.
func (s *Snapshot) Nominations() map[types.UID]*Pod { return s.nominated }

// SetNamespace records the labels of a namespace.
func (s *Snapshot) SetNamespace(name string, set labels.Set) {
	old, known := s.namespaces[name]
	if known && labels.Equals(old, set) {
		return
	}
	s.namespaces[name] = set
	s.counters.namespaceChanged(s)
}

// RemoveNamespace forgets a namespace.
func (s *Snapshot) RemoveNamespace(name string) {
	delete(s.namespaces, name)
	s.counters.namespaceChanged(s)
}

// sameNode says that nothing changed which placing pods depends on; most
// changes of nodes are heartbeats.
func sameNode(a, b *corev1.Node) bool {
	return a.Spec.Unschedulable == b.Spec.Unschedulable && labels.Equals(a.Labels, b.Labels) &&
		equality.Semantic.DeepEqual(a.Spec.Taints, b.Spec.Taints) &&
		equality.Semantic.DeepEqual(a.Status.Allocatable, b.Status.Allocatable) &&
		equality.Semantic.DeepEqual(a.Status.DeclaredFeatures, b.Status.DeclaredFeatures) &&
		equality.Semantic.DeepEqual(a.Status.Images, b.Status.Images)
}

func without(list []*Pod, p *Pod) []*Pod {
	for i := range list {
		if list[i] == p {
			last := len(list) - 1
			list[i], list[last] = list[last], nil
			return list[:last]
		}
	}
	return list
}
