// SPDX-License-Identifier: Apache-2.0

package provisioner

import (
	"context"
	"sync"
	"time"
)

// key names a claim, without a namespace a volume.
type key struct{ namespace, name string }

// The delays of what fails, doubled each time.
const (
	firstDelay = 500 * time.Millisecond
	lastDelay  = 5 * time.Minute
)

// pending holds what has to be looked at. It has no ticker.
type pending struct {
	wake chan struct{}

	mu    sync.Mutex
	due   map[key]time.Time     // guarded by mu
	delay map[key]time.Duration // guarded by mu; of what failed last time
}

func newPending() *pending {
	return &pending{wake: make(chan struct{}, 1), due: map[key]time.Time{}, delay: map[key]time.Duration{}}
}

// add asks for a look soon.
func (p *pending) add(k key) {
	p.mu.Lock()
	p.due[k] = time.Time{}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// next takes what is due, and says when something will be.
func (p *pending) next(now time.Time) (k key, ok bool, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait = -1
	for k, due := range p.due {
		left := due.Sub(now)
		if left <= 0 {
			delete(p.due, k)
			return k, true, 0
		}
		if wait < 0 || left < wait {
			wait = left
		}
	}
	return key{}, false, wait
}

// failed asks for another look after a delay, unless one is due anyway.
func (p *pending) failed(k key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delay := min(max(2*p.delay[k], firstDelay), lastDelay)
	p.delay[k] = delay
	if _, ok := p.due[k]; !ok {
		p.due[k] = time.Now().Add(delay)
	}
}

func (p *pending) done(k key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.delay, k)
}

// run looks at one key after the other until ctx ends.
func (p *pending) run(ctx context.Context, look func(key) error) {
	for ctx.Err() == nil {
		k, ok, wait := p.next(time.Now())
		if ok {
			if look(k) != nil {
				p.failed(k)
			} else {
				p.done(k)
			}
			continue
		}
		var timer <-chan time.Time
		if wait >= 0 {
			timer = time.After(wait)
		}
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-timer:
		}
	}
}
