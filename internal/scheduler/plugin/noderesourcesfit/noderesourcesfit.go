// SPDX-License-Identifier: Apache-2.0

// Package noderesourcesfit is the plugin NodeResourcesFit: what pods request
// must fit into what is left of a node; emptier nodes are better, or fuller
// ones, or as the configured shape says.
package noderesourcesfit

import (
	"context"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	configv1 "k8s.io/kube-scheduler/config/v1"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "NodeResourcesFit"

// Plugin implements Filter and Score.
type Plugin struct {
	snap     *snapshot.Snapshot
	classes  client.Typed[*resourcev1.DeviceClass]
	ignored  sets.Set[string]
	groups   sets.Set[string]
	strategy *configv1.ScoringStrategy
	value    func(requested, capacity int64) int64

	refusals map[uint64]*plugin.Status
}

// New returns the plugin. ignored are resources that extenders see to.
func New(c client.Interface, snap *snapshot.Snapshot, args *configv1.NodeResourcesFitArgs, ignored sets.Set[string]) *Plugin {
	p := &Plugin{
		snap: snap, classes: client.For[*resourcev1.DeviceClass](c), ignored: ignored.Union(sets.New(args.IgnoredResources...)), groups: sets.New(args.IgnoredResourceGroups...),
		strategy: args.ScoringStrategy, refusals: map[uint64]*plugin.Status{},
	}
	switch args.ScoringStrategy.Type {
	case configv1.MostAllocated:
		p.value = mostAllocated
	case configv1.RequestedToCapacityRatio:
		p.value = toCapacityRatio(args.ScoringStrategy.RequestedToCapacityRatio.Shape)
	default:
		p.value = leastAllocated
	}
	return p
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// Sign implements plugin.Signer.
func (p *Plugin) Sign(c *plugin.Cycle, key []byte) ([]byte, bool) {
	key, ok := plugin.SignResources(c.Pod, key)
	return key, ok && !plugin.RequestsDevices(p.snap, c.Pod, p.classes)
}

// Bits of a refusal; those from firstScalar on are scalar resources.
const (
	unresolvable = 1 << iota
	tooManyPods
	cpu
	memory
	ephemeralStorage
	firstScalar = 5
)

// want is one scalar resource that a pod requests.
type want struct {
	id     int
	name   string
	amount int64
	// device says that a device class stands for the resource: DynamicResources
	// sees to it on nodes that have none of it.
	device bool
}

// Filter implements plugin.Filterer.
func (p *Plugin) Filter(_ context.Context, c *plugin.Cycle) (plugin.Filter, *plugin.Status) {
	r := &c.Pod.Requests
	scalars := p.scalars(r)
	nothing := r.MilliCPU == 0 && r.Memory == 0 && r.EphemeralStorage == 0 && len(scalars) == 0
	return plugin.Filter{Node: func(n *snapshot.Node) *plugin.Status {
		var short uint64
		if int64(len(n.Pods))+1 > n.AllowedPods {
			short |= tooManyPods
		}
		if nothing {
			return p.refuse(short, nil)
		}
		lacks := func(bit uint64, need, all, used int64) {
			if need > 0 && need > all-used {
				short |= bit
				if need > all {
					short |= unresolvable
				}
			}
		}
		lacks(cpu, r.MilliCPU, n.Allocatable.MilliCPU, n.Requested.MilliCPU)
		lacks(memory, r.Memory, n.Allocatable.Memory, n.Requested.Memory)
		lacks(ephemeralStorage, r.EphemeralStorage, n.Allocatable.EphemeralStorage, n.Requested.EphemeralStorage)
		for i := range scalars {
			if scalars[i].device && n.Allocatable.Scalar(scalars[i].id) == 0 {
				continue
			}
			lacks(1<<(firstScalar+i), scalars[i].amount, n.Allocatable.Scalar(scalars[i].id), n.Requested.Scalar(scalars[i].id))
		}
		return p.refuse(short, scalars)
	}}, nil
}

// scalars lists what the pod requests beyond CPU, memory and storage, without
// what is ignored. More than fit into a refusal's bits are not met in practice;
// the rest is then checked under the last bit.
func (p *Plugin) scalars(r *snapshot.Resources) []want {
	var out []want
	for id, amount := range r.Scalars {
		if amount == 0 {
			continue
		}
		name := string(p.snap.ScalarName(id))
		if group, _, extended := strings.Cut(name, "/"); extended && (p.ignored.Has(name) || p.groups.Has(group)) {
			continue
		}
		out = append(out, want{id, name, amount, plugin.DeviceClassOf(p.classes, corev1.ResourceName(name)) != nil})
	}
	slices.SortFunc(out, func(a, b want) int { return strings.Compare(a.name, b.name) })
	return out
}

func (p *Plugin) refuse(short uint64, scalars []want) *plugin.Status {
	if short == 0 {
		return nil
	}
	if len(scalars) == 0 {
		if st := p.refusals[short]; st != nil {
			return st
		}
	}
	code := plugin.Unschedulable
	if short&unresolvable != 0 {
		code = plugin.UnschedulableAndUnresolvable
	}
	st := plugin.NewStatus(Name, code)
	say := func(bit uint64, reason string) {
		if short&bit != 0 {
			st.Reasons = append(st.Reasons, reason)
		}
	}
	say(tooManyPods, "Too many pods")
	say(cpu, "Insufficient cpu")
	say(memory, "Insufficient memory")
	say(ephemeralStorage, "Insufficient ephemeral-storage")
	for i := range scalars {
		say(1<<(firstScalar+i), "Insufficient "+scalars[i].name)
	}
	if len(scalars) == 0 {
		p.refusals[short] = st
	}
	return st
}

// Score implements plugin.Scorer.
func (p *Plugin) Score(_ context.Context, c *plugin.Cycle, _ []*snapshot.Node) (plugin.Score, *plugin.Status) {
	amounts := plugin.Amounts(p.snap, c.Pod, p.strategy.Resources, true)
	ratio := p.strategy.Type == configv1.RequestedToCapacityRatio
	return plugin.Score{Node: func(n *snapshot.Node) int64 {
		var sum, weights int64
		for i := range amounts {
			requested, capacity := amounts[i].On(n)
			if capacity == 0 {
				continue
			}
			v := p.value(requested, capacity)
			if ratio && v <= 0 {
				continue
			}
			sum += v * amounts[i].Weight
			weights += amounts[i].Weight
		}
		if weights == 0 {
			return 0
		}
		if ratio {
			return int64(math.Round(float64(sum) / float64(weights)))
		}
		return sum / weights
	}}, nil
}

func leastAllocated(requested, capacity int64) int64 {
	if requested > capacity {
		return 0
	}
	return (capacity - requested) * plugin.MaxScore / capacity
}

func mostAllocated(requested, capacity int64) int64 {
	return min(requested, capacity) * plugin.MaxScore / capacity
}

// toCapacityRatio follows the shape's straight lines between its points.
func toCapacityRatio(shape []configv1.UtilizationShapePoint) func(requested, capacity int64) int64 {
	const scale = plugin.MaxScore / 10 // shapes score up to 10
	return func(requested, capacity int64) int64 {
		used := int64(100)
		if requested <= capacity {
			used = requested * 100 / capacity
		}
		for i, pt := range shape {
			if used > int64(pt.Utilization) {
				continue
			}
			if i == 0 {
				return int64(pt.Score) * scale
			}
			prev := shape[i-1]
			rise, run := int64(pt.Score-prev.Score)*scale, int64(pt.Utilization-prev.Utilization)
			return int64(prev.Score)*scale + rise*(used-int64(prev.Utilization))/run
		}
		return int64(shape[len(shape)-1].Score) * scale
	}
}

// Events implements plugin.Eventer.
func (p *Plugin) Events() []plugin.EventHint {
	return []plugin.EventHint{
		{Event: plugin.Event{Resource: plugin.AssignedPod, Action: plugin.Delete}},
		{Event: plugin.Event{Resource: plugin.AssignedPod, Action: plugin.UpdatePodScaleDown}},
		{Event: plugin.Event{Resource: plugin.TargetPod, Action: plugin.UpdatePodScaleDown}},
		{Event: plugin.Event{Resource: plugin.Node, Action: plugin.Add | plugin.UpdateNodeAllocatable}, Worth: p.nodeHelps},
		{Event: plugin.Event{Resource: plugin.DeviceClass, Action: plugin.Add | plugin.Update}, Worth: p.classHelps},
	}
}

// classHelps says whether a device class came to stand for a resource of the pod.
func (p *Plugin) classHelps(pod *corev1.Pod, before, after any) bool {
	is, ok := after.(*resourcev1.DeviceClass)
	if !ok {
		return true
	}
	was, _ := before.(*resourcev1.DeviceClass)
	parsed, err := p.snap.NewPod(pod)
	if err != nil {
		return true
	}
	r := &parsed.Requests
	requested := func(name string) bool { return p.snap.Amount(r, corev1.ResourceName(name)) > 0 }
	if was == nil && requested(resourcev1.ResourceDeviceClassPrefix+is.Name) {
		return true
	}
	name := is.Spec.ExtendedResourceName
	return name != nil && requested(*name) && (was == nil || was.Spec.ExtendedResourceName == nil || *was.Spec.ExtendedResourceName != *name)
}

// nodeHelps says whether an empty node of that size would hold the pod.
func (p *Plugin) nodeHelps(pod *corev1.Pod, _, after any) bool {
	node, ok := after.(*corev1.Node)
	if !ok {
		return true
	}
	parsed, err := p.snap.NewPod(pod)
	if err != nil {
		return true
	}
	all := p.snap.Resources(node.Status.Allocatable)
	r := &parsed.Requests
	if r.MilliCPU > all.MilliCPU || r.Memory > all.Memory || r.EphemeralStorage > all.EphemeralStorage {
		return false
	}
	for _, w := range p.scalars(r) {
		if have := all.Scalar(w.id); w.amount > have && (have > 0 || !w.device) {
			return false
		}
	}
	return true
}
