// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"sync"

	"kaji/internal/policy/plan"
)

// kind is what an object is.
type kind int

const (
	policyKind kind = iota
	podKind
	namespaceKind
	nodeKind
)

// change names an object that changed.
type change struct {
	kind kind
	key  plan.Key
}

// changes gathers what happened between two writes.
type changes struct {
	wake chan struct{}

	mu  sync.Mutex
	all map[change]struct{}
}

func newChanges() *changes {
	return &changes{wake: make(chan struct{}, 1), all: map[change]struct{}{}}
}

func (c *changes) add(what change) {
	c.mu.Lock()
	c.all[what] = struct{}{}
	c.mu.Unlock()
	c.notify()
}

func (c *changes) notify() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *changes) take() []change {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]change, 0, len(c.all))
	for what := range c.all {
		out = append(out, what)
	}
	clear(c.all)
	return out
}
