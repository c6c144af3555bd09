// SPDX-License-Identifier: Apache-2.0

package podtopologyspread

import (
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"kaji/internal/scheduler/snapshot"
)

// constraint is one constraint of a pod, with the counts of one attempt.
type constraint struct {
	topology   *snapshot.Topology
	set        *snapshot.PodSet
	selector   labels.Selector
	maxSkew    int32
	minDomains int
	self       int32 // 1 when the pod counts itself
	action     corev1.UnsatisfiableConstraintAction
	affinity   corev1.NodeInclusionPolicy
	taints     corev1.NodeInclusionPolicy
	byHost     bool

	counts  []int32 // by value, -1 where no node was seen
	base    []int32 // by slot: what was counted, -1 where the node was not eligible
	domains int
	lacking int // 1 when nodes without the label are scored: they are a domain, too
	least   int32
	weight  float64
}

// parse understands a constraint; selector, when not nil, replaces its own.
func (p *Plugin) parse(pod *corev1.Pod, c *corev1.TopologySpreadConstraint, selector labels.Selector) (constraint, error) {
	if selector == nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(c.LabelSelector); err != nil {
			return constraint{}, err
		}
		if len(c.MatchLabelKeys) > 0 {
			selector = withKeys(selector, pod, c.MatchLabelKeys)
		}
	}
	con := constraint{
		selector: selector, maxSkew: c.MaxSkew, minDomains: int(ptr.Deref(c.MinDomains, 1)), action: c.WhenUnsatisfiable,
		affinity: ptr.Deref(c.NodeAffinityPolicy, corev1.NodeInclusionPolicyHonor),
		taints:   ptr.Deref(c.NodeTaintsPolicy, corev1.NodeInclusionPolicyIgnore),
		topology: p.snap.Topology(c.TopologyKey), byHost: c.TopologyKey == corev1.LabelHostname,
	}
	con.set = p.snap.PodSet(snapshot.NewLivingTerm(pod.Namespace, selector, c.TopologyKey))
	if selector.Matches(labels.Set(pod.Labels)) {
		con.self = 1
	}
	return con, nil
}

// withKeys narrows a selector to the pod's own values of keys, where the API
// server has not done so already.
func withKeys(s labels.Selector, pod *corev1.Pod, keys []string) labels.Selector {
	reqs, _ := s.Requirements()
	for _, key := range keys {
		value, ok := pod.Labels[key]
		if !ok {
			continue
		}
		r, err := labels.NewRequirement(key, selection.In, []string{value})
		if err != nil || slices.ContainsFunc(reqs, func(had labels.Requirement) bool { return had.Equal(*r) }) {
			continue
		}
		s = s.Add(*r)
	}
	return s
}

func (c *constraint) selects(pod *corev1.Pod) bool { return c.selector.Matches(labels.Set(pod.Labels)) }

// begin clears the counts.
func (c *constraint) begin(s *snapshot.Snapshot) {
	c.counts = slices.Repeat([]int32{-1}, c.topology.Values())
	c.domains, c.lacking = 0, 0
	if c.action == corev1.DoNotSchedule {
		c.base = slices.Repeat([]int32{-1}, len(s.Slots()))
	}
}

// see notes that a domain exists.
func (c *constraint) see(value int32) {
	if c.counts[value] < 0 {
		c.counts[value] = 0
		c.domains++
	}
}

func (c *constraint) seen(value int32) bool { return value >= 0 && c.counts[value] >= 0 }

// on returns how many pods of a node are counted. A selector that is empty
// counts none of those that are there; that it selects every pod is heard only
// where a simulation lends or takes one, as it is upstream.
func (c *constraint) on(n *snapshot.Node) int32 {
	if c.selector.Empty() {
		return 0
	}
	return c.set.On(n)
}

// add counts the pods of a node whose domain was seen.
func (c *constraint) add(n *snapshot.Node) { c.counts[c.topology.Of(n)] += c.on(n) }

// count counts the pods of an eligible node.
func (c *constraint) count(n *snapshot.Node) {
	c.see(c.topology.Of(n))
	c.base[n.Slot] = c.set.On(n)
	c.add(n)
}

// settle finds the least count, once all are in.
func (c *constraint) settle() { c.least = c.leastWith(-1, 0) }

// leastWith is the least count if one domain had another.
func (c *constraint) leastWith(value, count int32) int32 {
	if c.domains < c.minDomains {
		return 0
	}
	least := int32(math.MaxInt32)
	for v, n := range c.counts {
		if int32(v) == value {
			n = count
		}
		if n >= 0 && n < least {
			least = n
		}
	}
	return least
}

// at returns the count of the domain of n and the least one. Pods that a
// simulation took from the node or lent to it are reckoned in.
func (c *constraint) at(n *snapshot.Node, value int32) (here, least int32) {
	here = max(c.counts[value], 0)
	base := c.base[n.Slot]
	if base < 0 {
		return here, c.least
	}
	if now := c.set.On(n); now != base {
		here += now - base
		return here, c.leastWith(value, here)
	}
	return here, c.least
}

// eligibility remembers which nodes the affinity and tolerations of alike pods
// admit; asking selectors is dear and nodes' labels change rarely.
type eligibility struct{ columns map[string]*column }

type column struct {
	pos      uint64
	known    []bool
	affinity []bool
	taints   []bool
}

const maxColumns = 256

// of returns whether a constraint counts a node for the pod.
func (e *eligibility) of(s *snapshot.Snapshot, pod *corev1.Pod, cons []constraint) func(*constraint, *snapshot.Node) bool {
	taints := slices.ContainsFunc(cons, func(c constraint) bool { return c.taints == corev1.NodeInclusionPolicyHonor })
	affine := len(pod.Spec.NodeSelector) > 0 || pod.Spec.Affinity != nil && pod.Spec.Affinity.NodeAffinity != nil &&
		pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil
	if !taints && !affine {
		return func(*constraint, *snapshot.Node) bool { return true }
	}
	col := e.column(s, pod)
	required := nodeaffinity.GetRequiredNodeAffinity(pod)
	return func(c *constraint, n *snapshot.Node) bool {
		if !col.known[n.Slot] {
			col.known[n.Slot] = true
			col.affinity[n.Slot], _ = required.Match(n.Object)
			col.taints[n.Slot] = toleratesAll(pod, n)
		}
		return (c.affinity != corev1.NodeInclusionPolicyHonor || col.affinity[n.Slot]) &&
			(c.taints != corev1.NodeInclusionPolicyHonor || col.taints[n.Slot])
	}
}

func (e *eligibility) column(s *snapshot.Snapshot, pod *corev1.Pod) *column {
	spec := corev1.PodSpec{NodeSelector: pod.Spec.NodeSelector, Tolerations: pod.Spec.Tolerations}
	if pod.Spec.Affinity != nil {
		spec.Affinity = &corev1.Affinity{NodeAffinity: pod.Spec.Affinity.NodeAffinity}
	}
	key, err := spec.Marshal()
	col := e.columns[string(key)]
	if col == nil || err != nil {
		if len(e.columns) >= maxColumns || e.columns == nil {
			e.columns = map[string]*column{}
		}
		col = &column{}
		e.columns[string(key)] = col
	}
	changed, ok := s.ChangedSince(col.pos)
	if n := len(s.Slots()); !ok || len(col.known) != n {
		*col = column{known: make([]bool, n), affinity: make([]bool, n), taints: make([]bool, n)}
	} else {
		for _, slot := range changed {
			col.known[slot] = false
		}
	}
	col.pos = s.Position()
	return col
}

func toleratesAll(pod *corev1.Pod, n *snapshot.Node) bool {
	for i := range n.HardTaints {
		if !slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
			return t.ToleratesTaint(klog.Logger{}, &n.HardTaints[i], true)
		}) {
			return false
		}
	}
	return true
}
