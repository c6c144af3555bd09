// SPDX-License-Identifier: Apache-2.0

// Package defaultpreemption is the plugin DefaultPreemption: when no node
// fits, it evicts pods of lower priority from the node where that does the
// least harm, and nominates the node for the pod.
package defaultpreemption

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/types"
	configv1 "k8s.io/kube-scheduler/config/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/podgroup"
	"kaji/internal/scheduler/snapshot"
)

// Name is the plugin's name.
const Name = "DefaultPreemption"

// Plugin implements PostFilter and PreEnqueue.
type Plugin struct {
	h                 plugin.Handle
	pods              client.Typed[*corev1.Pod]
	budgets           client.Typed[*policyv1.PodDisruptionBudget]
	percent, absolute int
	groups            *podgroup.Groups // nil when there are none

	preempting map[types.UID]struct{} // pods and groups whose victims are being evicted
	// evicted are pods that had to go for a group and are still in the snapshot:
	// the informer may be behind with the news that they end.
	evicted map[types.UID]struct{}

	noVictims, notHelpful *plugin.Status
}

// New returns the plugin; groups is nil when there are no groups of pods.
func New(h plugin.Handle, groups *podgroup.Groups, args *configv1.DefaultPreemptionArgs) *Plugin {
	c := h.Client()
	p := &Plugin{
		h: h, groups: groups, pods: client.For[*corev1.Pod](c), budgets: client.For[*policyv1.PodDisruptionBudget](c),
		percent: int(ptr.Deref(args.MinCandidateNodesPercentage, 10)), absolute: int(ptr.Deref(args.MinCandidateNodesAbsolute, 100)),
		preempting: map[types.UID]struct{}{}, evicted: map[types.UID]struct{}{},
		noVictims:  plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "No preemption victims found for incoming pod"),
		notHelpful: plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "Preemption is not helpful for scheduling"),
	}
	p.budgets.Informer()
	return p
}

// Name implements plugin.Plugin.
func (p *Plugin) Name() string { return Name }

// PreEnqueue implements plugin.PreEnqueuer: a pod waits until the evictions
// that it caused have been asked for.
func (p *Plugin) PreEnqueue(pod *corev1.Pod) *plugin.Status {
	if _, in := podgroup.KeyOf(pod); in && p.groups != nil {
		if g := p.groups.Of(pod); g != nil {
			if _, busy := p.preempting[g.Object.UID]; busy {
				return plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "waiting for the preemption for this pod group to be finished")
			}
		}
		return nil
	}
	if _, busy := p.preempting[pod.UID]; busy {
		return plugin.NewStatus(Name, plugin.UnschedulableAndUnresolvable, "waiting for the preemption for this pod to be finished")
	}
	return nil
}

// Events implements plugin.Eventer: nothing but the end of the evictions lets
// the pod in again, and the plugin sees to that itself.
func (p *Plugin) Events() []plugin.EventHint { return nil }

// candidate is a node with the pods to evict from it.
type candidate struct {
	node    *snapshot.Node
	victims *plugin.Victims
}

// PostFilter implements plugin.PostFilterer.
func (p *Plugin) PostFilter(ctx context.Context, c *plugin.Cycle) (*plugin.Nomination, *plugin.Status) {
	no := func(n *plugin.Nomination, reason string) (*plugin.Nomination, *plugin.Status) {
		p.h.Preempted(0)
		return n, plugin.NewStatus(Name, plugin.Unschedulable, "preemption: "+reason)
	}
	if why := p.ineligible(c); why != "" {
		return no(nil, why)
	}
	found, refusals := p.candidates(ctx, c)
	if len(found) == 0 {
		// The nomination, if there is one, was in vain.
		return no(&plugin.Nomination{}, p.explain(c, refusals))
	}
	found, err := p.askExtenders(ctx, c, found)
	if err != nil {
		p.h.Preempted(0)
		return nil, plugin.AsStatus(Name, fmt.Errorf("preemption: %w", err))
	}
	if len(found) == 0 {
		return no(nil, "no candidate node for preemption")
	}
	best := choose(found)
	p.h.Preempted(len(best.victims.Pods))
	p.preempt(c, best)
	return &plugin.Nomination{NodeName: best.node.Name}, plugin.NewStatus(Name, plugin.Success,
		fmt.Sprintf("preemption: found a potential placement for pod on node %s, preempting %d victims", best.node.Name, len(best.victims.Pods)))
}

// ineligible says why the pod must not preempt others, "" when it may.
func (p *Plugin) ineligible(c *plugin.Cycle) string {
	pod := c.Pod.Object
	if pod.Spec.PreemptionPolicy != nil && *pod.Spec.PreemptionPolicy == corev1.PreemptNever {
		return "not eligible due to preemptionPolicy=Never."
	}
	n := c.Snapshot.Node(pod.Status.NominatedNodeName)
	if n == nil {
		return ""
	}
	if st := c.Statuses[n.Slot]; st != nil && st.Code == plugin.UnschedulableAndUnresolvable {
		return "" // the nominated node is lost; look for another
	}
	for _, victim := range n.Pods {
		if victim.Priority() < c.Pod.Priority() && terminating(victim.Object) {
			return "not eligible due to a terminating pod on the nominated node."
		}
	}
	return ""
}

// terminating says whether the scheduler evicted the pod and it is on its way out.
func terminating(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp == nil {
		return false
	}
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler
	})
}

// candidates tries nodes that removing pods may help, from a random one on,
// until there are enough. It returns those that were found, and why others are
// none, by slot.
func (p *Plugin) candidates(ctx context.Context, c *plugin.Cycle) ([]candidate, []*plugin.Status) {
	refusals := make([]*plugin.Status, len(c.Statuses))
	var hopeful []*snapshot.Node
	for slot, st := range c.Statuses {
		if n := c.Snapshot.Slots()[slot]; n != nil && st != nil && st.Code == plugin.Unschedulable {
			hopeful = append(hopeful, n)
		}
	}
	if len(hopeful) == 0 {
		return nil, refusals
	}
	enough := min(max(len(hopeful)*p.percent/100, p.absolute), len(hopeful))
	budgets := p.budgets.CachedList("", nil)
	var found []candidate
	harmless := false
	start := rand.IntN(len(hopeful))
	for i := range hopeful {
		n := hopeful[(start+i)%len(hopeful)]
		victims, st := p.victims(ctx, c, n, budgets)
		if st != nil {
			refusals[n.Slot] = st
			continue
		}
		found = append(found, candidate{n, victims})
		harmless = harmless || victims.NumPDBViolations == 0
		if len(found) >= enough && harmless {
			break
		}
	}
	return found, refusals
}

// victims finds the least important pods whose removal makes room on n.
func (p *Plugin) victims(ctx context.Context, c *plugin.Cycle, n *snapshot.Node, budgets []*policyv1.PodDisruptionBudget) (out *plugin.Victims, st *plugin.Status) {
	lower := p.units(c.Snapshot, n.Pods, c.Pod.Priority())
	if len(lower) == 0 {
		return nil, p.noVictims
	}
	slices.SortFunc(lower, importantUnit)
	c.Snapshot.Simulate(func() {
		removed := map[*unit]bool{}
		for _, u := range lower {
			withdraw(c.Snapshot, u)
			removed[u] = true
		}
		defer func() {
			for _, u := range lower {
				if removed[u] {
					lend(c.Snapshot, u)
				}
			}
		}()
		if st = c.Fits(ctx, n); st != nil {
			return
		}
		out = &plugin.Victims{}
		reprieve := func(list []*unit) {
			for _, u := range list {
				lend(c.Snapshot, u)
				if c.Fits(ctx, n) == nil {
					delete(removed, u)
					continue
				}
				withdraw(c.Snapshot, u)
				out.NumPDBViolations += u.violations
				out.Pods = append(out.Pods, u.objects()...)
			}
		}
		// Those protected by a budget get the first chance to stay.
		violating, free := violations(lower, budgets)
		reprieve(violating)
		reprieve(free)
	})
	if st != nil {
		return nil, st
	}
	slices.SortFunc(out.Pods, importantObject)
	return out, nil
}

// importantObject orders by priority, then by who has run longer.
func importantObject(a, b *corev1.Pod) int {
	if p, q := priority(a), priority(b); p != q {
		return int(q) - int(p)
	}
	switch s, t := a.Status.StartTime, b.Status.StartTime; {
	case s == nil && t == nil:
		return strings.Compare(string(a.UID), string(b.UID))
	case s == nil:
		return 1
	case t == nil:
		return -1
	default:
		return s.Compare(t.Time)
	}
}

func priority(p *corev1.Pod) int32 { return ptr.Deref(p.Spec.Priority, 0) }

// explain is the message when no node became a candidate.
func (p *Plugin) explain(c *plugin.Cycle, refusals []*plugin.Status) string {
	counts := map[string]int{}
	for slot, n := range c.Snapshot.Slots() {
		if n == nil {
			continue
		}
		st := p.notHelpful
		if slot < len(refusals) && refusals[slot] != nil {
			st = refusals[slot]
		}
		for _, reason := range st.Messages() {
			counts[reason]++
		}
	}
	list := make([]string, 0, len(counts))
	for reason, n := range counts {
		list = append(list, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(list)
	return fmt.Sprintf("0/%d nodes are available: %s.", c.Snapshot.Len(), strings.Join(list, ", "))
}

// askExtenders lets extenders that know of preemption narrow the candidates.
func (p *Plugin) askExtenders(ctx context.Context, c *plugin.Cycle, found []candidate) ([]candidate, error) {
	for _, e := range c.Extenders {
		if !e.SupportsPreemption() || !e.IsInterested(c.Pod.Object) {
			continue
		}
		byName := map[string]*plugin.Victims{}
		for _, f := range found {
			byName[f.node.Name] = f.victims
		}
		kept, err := e.ProcessPreemption(ctx, c.Pod.Object, byName)
		if err != nil {
			if e.Ignorable() {
				continue
			}
			return nil, err
		}
		var next []candidate
		for _, f := range found {
			if v := kept[f.node.Name]; v != nil && len(v.Pods) > 0 {
				next = append(next, candidate{f.node, v})
			}
		}
		if found = next; len(found) == 0 {
			break
		}
	}
	return found, nil
}

// choose picks the candidate that does the least harm: fewest violated
// budgets, lowest most important victim, lowest sum of priorities, fewest
// victims, and then the one whose most important victims started last.
func choose(found []candidate) candidate {
	for _, harm := range []func(candidate) int64{
		func(c candidate) int64 { return c.victims.NumPDBViolations },
		func(c candidate) int64 { return int64(highest(c)) },
		func(c candidate) int64 {
			var sum int64
			for _, v := range c.victims.Pods {
				sum += int64(priority(v)) + math.MaxInt32 + 1
			}
			return sum
		},
		func(c candidate) int64 { return int64(len(c.victims.Pods)) },
		func(c candidate) int64 { return -earliest(c) },
	} {
		least := int64(math.MaxInt64)
		for _, c := range found {
			least = min(least, harm(c))
		}
		found = slices.DeleteFunc(slices.Clone(found), func(c candidate) bool { return harm(c) > least })
		if len(found) == 1 {
			break
		}
	}
	return found[0]
}

func highest(c candidate) int32 {
	if len(c.victims.Pods) == 0 {
		return math.MinInt32
	}
	return priority(c.victims.Pods[0])
}

// earliest is when the first of the most important victims started.
func earliest(c candidate) int64 {
	first := int64(math.MaxInt64)
	for _, v := range c.victims.Pods {
		if priority(v) == highest(c) && v.Status.StartTime != nil {
			first = min(first, v.Status.StartTime.UnixNano())
		}
	}
	return first
}
