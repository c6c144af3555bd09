// SPDX-License-Identifier: Apache-2.0

package scheduler

import "sync"

// maxBinders bounds the bindings under way. A store that syncs each write takes
// many at once at the price of one.
const maxBinders = 128

// binders bind pods beside the loop. A goroutine of theirs goes on to the next
// pod as long as there is one: under load its stack has grown once for all.
type binders struct {
	mu struct {
		sync.Mutex
		queue   []func()
		running int
	}
}

// do runs f soon, and never blocks. start begins a goroutine.
func (b *binders) do(start func(func()), f func()) {
	b.mu.Lock()
	if b.mu.running == maxBinders {
		b.mu.queue = append(b.mu.queue, f)
		b.mu.Unlock()
		return
	}
	b.mu.running++
	b.mu.Unlock()
	start(func() {
		for f != nil {
			f()
			f = b.next()
		}
	})
}

// next takes the next function; nil ends the goroutine that asks.
func (b *binders) next() func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.mu.queue) == 0 {
		b.mu.running--
		b.mu.queue = nil
		return nil
	}
	f := b.mu.queue[0]
	b.mu.queue[0] = nil
	b.mu.queue = b.mu.queue[1:]
	return f
}

// running is how many goroutines bind pods now.
func (b *binders) running() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.running
}
