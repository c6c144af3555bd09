// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"sync"
)

// progress is the newest revision applied, and a way to wait for the next.
type progress struct {
	mu       sync.Mutex
	revision int64
	running  bool
	changed  chan struct{} // closed and replaced at each change
	waiting  bool          // somebody holds changed
}

func (p *progress) get() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.revision
}

func (p *progress) set(revision int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revision = max(p.revision, revision)
	p.running = true
	p.wake()
}

func (p *progress) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = false
	p.wake()
}

func (p *progress) wake() {
	if p.waiting {
		close(p.changed)
		p.changed, p.waiting = make(chan struct{}), false
	}
}

// wait returns a channel that is closed at the next change.
func (p *progress) wait() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = true
	return p.changed
}

// started returns when the cache follows the store.
func (p *progress) started(ctx context.Context) error {
	for {
		p.mu.Lock()
		running := p.running
		p.waiting = true
		changed := p.changed
		p.mu.Unlock()
		if running {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
