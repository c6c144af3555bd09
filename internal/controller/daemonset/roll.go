// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"kaji/internal/controller/podstate"
)

// bounds returns how many nodes may have a second pod, and how many may have
// none that is available, of so many nodes.
func (r *round) bounds(desired int) (surge, unavailable int) {
	u := r.ds.Spec.UpdateStrategy.RollingUpdate
	if r.ds.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType || u == nil {
		return 0, 0
	}
	if desired == 0 {
		desired = 1 // asked for whether surging is allowed at all
	}
	surge, _ = intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(u.MaxSurge, intstr.FromInt32(0)), desired, true)
	unavailable, _ = intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(u.MaxUnavailable, intstr.FromInt32(0)), desired, true)
	if surge == 0 && unavailable == 0 {
		unavailable = 1 // or nothing would ever move
	}
	return surge, unavailable
}

func (r *round) ofHash(p *corev1.Pod) bool {
	return p.Labels[appsv1.ControllerRevisionHashLabelKey] == r.hash
}

func (r *round) available(p *corev1.Pod) bool {
	ok, _ := podstate.Available(p, r.ds.Spec.MinReadySeconds, r.now)
	return ok
}

// pair finds a node's one pod of the present template and its one older pod;
// false says that there are more than a rollout has, and manage must clean up
// first.
func (r *round) pair(pods []*corev1.Pod) (fresh, old *corev1.Pod, ok bool) {
	for _, p := range pods {
		if p.DeletionTimestamp != nil {
			continue
		}
		slot := &old
		if r.current(p) {
			slot = &fresh
		}
		if *slot != nil {
			return nil, nil, false
		}
		*slot = p
	}
	return fresh, old, true
}

// desired counts the nodes that should have a pod.
func (r *round) desired() (n int) {
	for _, node := range r.nodes {
		if fits(r.ds, node).run {
			n++
		}
	}
	return n
}

// roll returns the next pods to replace.
func (r *round) roll() (create []string, remove []*corev1.Pod) {
	surge, unavailable := r.bounds(r.desired())
	if surge == 0 {
		return nil, r.rollDown(unavailable)
	}
	return r.rollUp(surge)
}

// rollDown deletes old pods, first those that nobody misses, as long as enough
// nodes have an available one; manage makes the new ones.
func (r *round) rollDown(allowed int) (remove []*corev1.Pod) {
	var candidates []*corev1.Pod
	missing := 0
	for _, node := range r.nodes {
		pods := r.placed[node.Name]
		if len(pods) == 0 {
			if fits(r.ds, node).run {
				missing++
			}
			continue
		}
		fresh, old, ok := r.pair(pods)
		switch {
		case !ok:
			missing++
		case old == nil && fresh == nil, old != nil && fresh != nil:
			missing++ // manage is about to change that
		case fresh != nil:
			if !r.available(fresh) {
				missing++
			}
		case !r.available(old):
			remove = append(remove, old)
			missing++
		default:
			candidates = append(candidates, old)
		}
	}
	return append(remove, candidates[:max(0, min(allowed-missing, len(candidates)))]...)
}

// rollUp makes new pods beside old ones, first where the old one is not
// available, and deletes old ones whose new one is.
func (r *round) rollUp(allowed int) (create []string, remove []*corev1.Pod) {
	var candidates []string
	surging := 0
	for _, node := range r.nodes {
		pods := r.placed[node.Name]
		if len(pods) == 0 {
			continue // manage's
		}
		fresh, old, ok := r.pair(pods)
		switch {
		case !ok:
			surging++
		case old == nil: // done, or manage makes it
		case fresh == nil && !r.available(old):
			create = append(create, node.Name)
		case fresh == nil:
			candidates = append(candidates, node.Name)
		case !r.available(fresh):
			surging++
		default:
			remove = append(remove, old)
		}
	}
	return append(create, candidates[:max(0, min(allowed-surging, len(candidates)))]...), remove
}
