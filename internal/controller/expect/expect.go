// SPDX-License-Identifier: Apache-2.0

// Package expect remembers what a controller made or deleted and its informer
// does not show yet: deciding on an old view would make or delete too much.
// The controllers whose objects have generated names work with it.
package expect

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// patience is after what time a missing event is given up.
const patience = 5 * time.Minute

// Pending is what is on its way, by owner. Its zero value is ready, and its
// methods are safe for concurrent use.
type Pending struct {
	mu     sync.Mutex
	owners map[types.UID]*expected
}

type expected struct {
	created, deleted map[types.UID]bool
	since            time.Time
}

func (p *Pending) of(owner types.UID) *expected {
	e := p.owners[owner]
	if e == nil {
		if p.owners == nil {
			p.owners = map[types.UID]*expected{}
		}
		e = &expected{map[types.UID]bool{}, map[types.UID]bool{}, time.Time{}}
		p.owners[owner] = e
	}
	e.since = time.Now()
	return e
}

// Create notes that an object was made, unless shown says that the informer has
// it already.
func (p *Pending) Create(owner, object types.UID, shown func() bool) {
	if shown() {
		return
	}
	p.mu.Lock()
	p.of(owner).created[object] = true
	p.mu.Unlock()
	if shown() { // it came between the look and the note
		p.Seen(owner, object)
	}
}

// Delete notes that an object is about to be deleted.
func (p *Pending) Delete(owner, object types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(owner).deleted[object] = true
}

// Seen notes that the informer shows an object.
func (p *Pending) Seen(owner, object types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.owners[owner]; e != nil {
		delete(e.created, object)
	}
}

// Gone notes that the informer shows an object's end, or its deletion failed.
func (p *Pending) Gone(owner, object types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.owners[owner]; e != nil {
		delete(e.created, object)
		delete(e.deleted, object)
	}
}

// Forget drops an owner that is gone.
func (p *Pending) Forget(owner types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.owners, owner)
}

// Settled says whether everything that was done shows.
func (p *Pending) Settled(owner types.UID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.owners[owner]
	if e == nil || len(e.created)+len(e.deleted) == 0 || time.Since(e.since) > patience {
		delete(p.owners, owner)
		return true
	}
	return false
}
