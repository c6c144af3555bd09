// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync"
	"time"
)

// key names a Service.
type key struct{ namespace, name string }

func (k key) String() string { return k.namespace + "/" + k.name }

// changes gathers what happened between two syncs.
type changes struct {
	wake chan struct{}

	mu       sync.Mutex
	services map[key]struct{}
	triggers []time.Time
	node     bool
}

// batch is what one sync works on.
type batch struct {
	services  []key
	triggers  []time.Time
	node, all bool
}

func newChanges() *changes {
	return &changes{wake: make(chan struct{}, 1), services: map[key]struct{}{}, node: true}
}

func (c *changes) add(k key, trigger time.Time) {
	c.mu.Lock()
	c.services[k] = struct{}{}
	if !trigger.IsZero() {
		c.triggers = append(c.triggers, trigger)
	}
	c.mu.Unlock()
	c.notify()
}

func (c *changes) nodeChanged() {
	c.mu.Lock()
	c.node = true
	c.mu.Unlock()
	c.notify()
}

func (c *changes) notify() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *changes) take() batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := batch{triggers: c.triggers, node: c.node}
	for k := range c.services {
		b.services = append(b.services, k)
	}
	clear(c.services)
	c.triggers, c.node = nil, false
	return b
}
