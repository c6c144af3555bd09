// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/policy/plan"
)

// arrival is a pod that waits until its packets may flow.
type arrival struct {
	key       plan.Key
	uid       types.UID
	addresses []netip.Addr
	done      chan struct{}
}

type arrivals struct {
	mu      sync.Mutex
	waiting []*arrival
}

// all calls f for each that waits; true ends the wait.
func (a *arrivals) all(f func(*arrival) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = slices.DeleteFunc(a.waiting, func(one *arrival) bool {
		over := f(one)
		if over {
			close(one.done)
		}
		return over
	})
}

func (a *arrivals) remove(one *arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = slices.DeleteFunc(a.waiting, func(o *arrival) bool { return o == one })
}

// Admit waits until the policies hold for a pod of the node that just got its
// addresses and sends nothing yet. The enforcer learns them here, long before
// the pod's status tells them, so that not even the first packet is held up.
// It fails when ctx ends before; the pod must not run then. Any goroutine may
// call it while Run runs.
func (e *Enforcer) Admit(ctx context.Context, namespace, name string, uid types.UID, addresses []netip.Addr) error {
	a := &arrival{plan.Key{Namespace: namespace, Name: name}, uid, addresses, make(chan struct{})}
	e.arrivals.mu.Lock()
	e.arrivals.waiting = append(e.arrivals.waiting, a)
	e.arrivals.mu.Unlock()
	e.changes.notify()
	defer e.arrivals.remove(a)
	select {
	case <-a.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the network policies do not hold for pod %s/%s yet: %w", namespace, name, ctx.Err())
	}
}

// learn gives the plan the addresses of those that wait.
func (e *Enforcer) learn() {
	e.arrivals.all(func(a *arrival) bool {
		if a.addresses != nil {
			e.plan.SetAddresses(a.key, a.uid, a.addresses)
			a.addresses = nil
		}
		return false
	})
}

// answer lets those go on for whom the policies hold. A pod that no policy
// isolates need not wait for the kernel.
func (e *Enforcer) answer(written bool) {
	again := false
	e.arrivals.all(func(a *arrival) bool {
		if a.addresses != nil {
			again = true // it came after learn
			return false
		}
		return e.plan.Knows(a.key, a.uid) && (written || !e.plan.Isolates(a.key))
	})
	if again {
		e.changes.notify()
	}
}
