// SPDX-License-Identifier: Apache-2.0

package crd

import (
	"context"
	"maps"
	"sync"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/apiserver/cache"
	"kaji/internal/client"
)

// state is a later state of an entry's definition.
type state struct {
	entry   *cache.Entry
	settled *apiextensionsv1.CustomResourceDefinition
}

// writesAtOnce is how many states are written together, which the store then
// syncs to the disk together.
const writesAtOnce = 8

// writes stores the statuses of definitions behind the controller's back: a
// definition that comes behind hundreds of others is served before all those
// are written.
type writes struct {
	mu sync.Mutex
	// unwritten has the newest state of each definition that is to be written,
	// until the cache has it.
	unwritten map[string]*unwritten
	queue     []string // of those, whose turn has not come
	running   int
	all       sync.WaitGroup

	failed chan struct{} // a write is to be tried again
}

type unwritten struct {
	state
	queued bool
}

func newWrites() *writes {
	return &writes{unwritten: map[string]*unwritten{}, failed: make(chan struct{}, 1)}
}

// pending returns what is not written yet, by the definitions' names.
func (w *writes) pending() map[string]state {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.unwritten) == 0 {
		return nil
	}
	all := make(map[string]state, len(w.unwritten))
	for name, u := range w.unwritten {
		all[name] = u.state
	}
	return all
}

// write has states written, each by store, which says whether it is done with.
func (w *writes) write(states []state, store func(state) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range states {
		name := s.settled.Name
		if u := w.unwritten[name]; u != nil && u.queued {
			u.state = s
			continue
		}
		w.unwritten[name] = &unwritten{s, true}
		w.queue = append(w.queue, name)
	}
	for w.running < min(writesAtOnce, len(w.queue)) {
		w.running++
		w.all.Go(func() { w.run(store) })
	}
}

// replace writes s in place of what is to be written of its definition, if that
// is not being written already. It calls before first.
func (w *writes) replace(s state, before func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.unwritten[s.settled.Name]
	if u == nil || !u.queued || u.entry != s.entry {
		return false
	}
	before()
	u.state = s
	return true
}

// run writes while there is something to write.
func (w *writes) run(store func(state) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) > 0 {
		name := w.queue[0]
		w.queue = w.queue[1:]
		u := w.unwritten[name]
		u.queued = false
		s := u.state
		w.mu.Unlock()
		ok := store(s)
		w.mu.Lock()
		if w.unwritten[name] == u {
			delete(w.unwritten, name)
		}
		if !ok {
			select {
			case w.failed <- struct{}{}:
			default:
			}
		}
	}
	w.running--
}

// write has states written, sooner or later.
func (c *Controller) write(ctx context.Context, states []state) {
	c.writes.write(states, func(s state) bool { return c.writeStatus(ctx, s) })
}

// writeStatus stores the status of settled, a later state of e. A conflict is
// no failure: the newer state comes as an event.
func (c *Controller) writeStatus(ctx context.Context, s state) bool {
	crd := *wholeOf(s.entry)
	crd.Status = s.settled.Status
	_, err := c.cfg.Client.Update(ctx, client.Resource{GroupVersionResource: resource, Subresource: "status"}, crd.Name, &crd,
		metav1.UpdateOptions{FieldManager: "kube-apiserver"})
	if err == nil || apierrors.IsConflict(err) || apierrors.IsNotFound(err) || ctx.Err() != nil {
		return true
	}
	c.log.Error("cannot write the status of a custom resource definition", "name", crd.Name, "err", err)
	return false
}

// snapshot returns the definitions that are stored, and what is known of them
// and not written yet.
func (c *Controller) snapshot(ctx context.Context) (*newest, error) {
	// In this order: what has been written meanwhile is in the snapshot.
	pending := c.writes.pending()
	at, err := c.cfg.Cache.Snapshot(ctx, c.cfg.Kind)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(pending, func(name string, s state) bool {
		e, found := at.Get(c.cfg.Kind.Key("", name))
		return !found || e.Revision != s.entry.Revision
	})
	return &newest{at, pending}, nil
}

// newest is the definitions as they are known.
type newest struct {
	*cache.Snapshot
	pending map[string]state // later states of its entries
}

// definitions returns the newest state of each, in order, maybe without its
// schemas.
func (v *newest) definitions() []*apiextensionsv1.CustomResourceDefinition {
	all := make([]*apiextensionsv1.CustomResourceDefinition, 0, v.Len())
	for e := range v.All("", "") {
		all = append(all, v.definition(e))
	}
	return all
}

// definition returns the newest state of an entry.
func (v *newest) definition(e *cache.Entry) *apiextensionsv1.CustomResourceDefinition {
	crd := definitionOf(e)
	if s, ok := v.pending[crd.Name]; ok {
		return s.settled
	}
	return crd
}
