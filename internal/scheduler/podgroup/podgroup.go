// SPDX-License-Identifier: Apache-2.0

// Package podgroup keeps the groups of pods (PodGroup, KEP-4671) as the
// scheduler knows them: the objects and who belongs to them. The scheduling loop
// owns it; it takes no locks and asks nobody.
package podgroup

import (
	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/scheduler/snapshot"
)

// Key names a group.
type Key = types.NamespacedName

// KeyOf returns the group that a pod belongs to; false says that it is in none.
func KeyOf(pod *corev1.Pod) (Key, bool) {
	if g := pod.Spec.SchedulingGroup; g != nil && g.PodGroupName != nil {
		return Key{Namespace: pod.Namespace, Name: *g.PodGroupName}, true
	}
	return Key{}, false
}

// Groups are all groups; create them with New.
type Groups struct{ byKey map[Key]*Group }

// Group is one of them.
type Group struct {
	// Object is nil until the informer has seen it, and when it is gone.
	Object *schedulingv1beta1.PodGroup
	// Placed says that its scheduling was reported as done, which stays true.
	Placed  bool
	members map[types.UID]*corev1.Pod
}

// New returns no groups.
func New() *Groups { return &Groups{byKey: map[Key]*Group{}} }

// Get returns a group, nil when neither an object nor a pod speaks of it. It
// may be called on nil Groups, of a scheduler that knows none.
func (g *Groups) Get(key Key) *Group {
	if g == nil {
		return nil
	}
	return g.byKey[key]
}

// Of returns the group of a pod that has an object, or nil.
func (g *Groups) Of(pod *corev1.Pod) *Group {
	if g == nil {
		return nil
	}
	key, ok := KeyOf(pod)
	if !ok {
		return nil
	}
	if group := g.byKey[key]; group != nil && group.Object != nil {
		return group
	}
	return nil
}

func (g *Groups) at(key Key) *Group {
	group := g.byKey[key]
	if group == nil {
		group = &Group{members: map[types.UID]*corev1.Pod{}}
		g.byKey[key] = group
	}
	return group
}

// Set gives a group its object; nil takes it away.
func (g *Groups) Set(key Key, obj *schedulingv1beta1.PodGroup) {
	group := g.at(key)
	if obj == nil || group.Object != nil && group.Object.UID != obj.UID {
		group.Placed = false
	}
	group.Object = obj
	g.tidy(key, group)
}

// Join notes a pod, also one that has changed.
func (g *Groups) Join(pod *corev1.Pod) {
	if key, ok := KeyOf(pod); ok {
		g.at(key).members[pod.UID] = pod
	}
}

// Leave forgets a pod that is gone or has ended.
func (g *Groups) Leave(pod *corev1.Pod) {
	if key, ok := KeyOf(pod); ok {
		if group := g.byKey[key]; group != nil {
			delete(group.members, pod.UID)
			g.tidy(key, group)
		}
	}
}

func (g *Groups) tidy(key Key, group *Group) {
	if group.Object == nil && len(group.members) == 0 {
		delete(g.byKey, key)
	}
}

// Len is how many pods belong to the group.
func (g *Group) Len() int { return len(g.members) }

// Scheduled are the pods of the group that have a node in the snapshot.
func (g *Group) Scheduled(snap *snapshot.Snapshot) []*snapshot.Pod {
	var out []*snapshot.Pod
	for uid := range g.members {
		if p := snap.Pod(uid); p != nil {
			out = append(out, p)
		}
	}
	return out
}

// MinCount is how many pods must have nodes, at least 1.
func (g *Group) MinCount() int {
	if gang := g.Object.Spec.SchedulingPolicy.Gang; gang != nil {
		return int(gang.MinCount)
	}
	return 1
}

// Gang says whether all or none of MinCount pods are placed.
func (g *Group) Gang() bool { return g.Object.Spec.SchedulingPolicy.Gang != nil }

// Priority is the group's.
func (g *Group) Priority() int32 {
	if p := g.Object.Spec.Priority; p != nil {
		return *p
	}
	return 0
}

// Indivisible says that the pods are only disrupted together.
func (g *Group) Indivisible() bool {
	m := g.Object.Spec.DisruptionMode
	return m != nil && m.All != nil
}
