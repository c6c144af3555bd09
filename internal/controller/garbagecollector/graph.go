// SPDX-License-Identifier: Apache-2.0

package garbagecollector

import (
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
)

// item is an object that has owners, or that waits for its dependents.
type item struct {
	at         client.Resource
	name       string
	uid        types.UID
	owners     []metav1.OwnerReference // the object's own, not to be changed
	deleting   bool
	foreground bool // deleted, and waiting until its dependents are
	orphan     bool // deleted, and waiting until its dependents are released
}

// blocks says whether the item must be gone before its owner may.
func (it *item) blocks(owner types.UID) bool {
	return slices.ContainsFunc(it.owners, func(ref metav1.OwnerReference) bool {
		return ref.UID == owner && ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
	})
}

// graph is who depends on whom. Objects that nobody owns and that wait for
// nothing are not in it: the informers have them.
type graph struct {
	mu         sync.Mutex
	items      map[types.UID]*item
	dependents map[types.UID]map[types.UID]*item
}

func newGraph() *graph {
	return &graph{items: map[types.UID]*item{}, dependents: map[types.UID]map[types.UID]*item{}}
}

// itemOf returns what the graph keeps of an object, nil for nothing.
func itemOf(at client.Resource, o metav1.Object) *item {
	it := &item{at: at, name: o.GetName(), uid: o.GetUID(), owners: o.GetOwnerReferences(), deleting: o.GetDeletionTimestamp() != nil}
	it.at.Namespace = o.GetNamespace()
	if it.deleting {
		it.foreground = slices.Contains(o.GetFinalizers(), metav1.FinalizerDeleteDependents)
		it.orphan = slices.Contains(o.GetFinalizers(), metav1.FinalizerOrphanDependents)
	}
	if len(it.owners) == 0 && !it.foreground && !it.orphan {
		return nil
	}
	return it
}

// put notes an object's present state; it may be nil. It returns what was noted
// before.
func (g *graph) put(uid types.UID, it *item) (before *item) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before = g.items[uid]
	if before != nil {
		for _, ref := range before.owners {
			if deps := g.dependents[ref.UID]; deps != nil {
				if delete(deps, uid); len(deps) == 0 {
					delete(g.dependents, ref.UID)
				}
			}
		}
	}
	if it == nil {
		delete(g.items, uid)
		return before
	}
	g.items[uid] = it
	for _, ref := range it.owners {
		deps := g.dependents[ref.UID]
		if deps == nil {
			deps = map[types.UID]*item{}
			g.dependents[ref.UID] = deps
		}
		deps[uid] = it
	}
	return before
}

func (g *graph) get(uid types.UID) *item {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.items[uid]
}

// of returns the dependents of an object.
func (g *graph) of(owner types.UID) []*item {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*item, 0, len(g.dependents[owner]))
	for _, it := range g.dependents[owner] {
		out = append(out, it)
	}
	return out
}
