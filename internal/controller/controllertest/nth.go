// SPDX-License-Identifier: Apache-2.0

package controllertest

import (
	"fmt"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kaji/internal/client"
)

// Ways are the ways in which a call can fail.
var Ways = []Way{Timeout, Lost, Conflict}

// Ends are the ways in which the process of the controllers can end at a call.
var Ends = []Way{EndBefore, EndAfter}

// Way is how a call fails.
type Way string

const (
	// Timeout is a call without effect.
	Timeout Way = "timeout"
	// Lost is a call that has its effect, whose answer is lost.
	Lost Way = "lost answer"
	// Conflict is an update or patch that comes too late. Other calls are done:
	// a deletion conflicts only where another object has the name now.
	Conflict Way = "conflict"
	// EndBefore is a call that is never sent: the process ends, and with it all
	// that its clients would have called.
	EndBefore Way = "end of the process before it"
	// EndAfter is a call that has its effect, and is the last of the process.
	EndAfter Way = "end of the process after it"
)

// Nth lets one call of one or more clients fail, the N-th, counted from one;
// none when N is zero. Events are not counted: they are best effort. Its methods
// are safe for concurrent use.
type Nth struct {
	N   int
	Way Way
	// End is called when the process ends at the N-th call; nil when it is not to.
	End func()

	mu    sync.Mutex
	calls []string
	met   string
	ended bool
}

// Client returns api with the failing call among its writes and live reads.
func (f *Nth) Client(api client.Interface) client.Interface { return &faulty{api, f} }

// Calls tells the calls there were: their verbs and resources.
func (f *Nth) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Met says which call failed, and how.
func (f *Nth) Met() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.met
}

// meets says whether this is the call that fails, and whether the process has
// ended before it.
func (f *Nth) meets(verb string, r client.Resource, name string) (fails, ended bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended || r.GroupVersionResource.Resource == "events" {
		return false, f.ended
	}
	f.calls = append(f.calls, verb+" "+r.GroupResource().String()+" "+r.Subresource)
	if len(f.calls) != f.N {
		return false, false
	}
	f.ended = f.Way == EndBefore || f.Way == EndAfter
	f.met = fmt.Sprintf("call %d, %s of %s/%s: %s", f.N, f.calls[f.N-1], r.Namespace, name, f.Way)
	return true, false
}

func (f *Nth) do(verb string, r client.Resource, name string, act func() error) error {
	gone := apierrors.NewTimeoutError("the test lost the connection", 0)
	fails, ended := f.meets(verb, r, name)
	switch {
	case ended:
		return gone
	case !fails:
		return act()
	case f.Way == Timeout:
		return gone
	case f.Way == EndBefore:
		f.End()
		return gone
	case f.Way == Lost, f.Way == EndAfter:
		_ = act() // whatever came of it, the caller does not learn it
		if f.Way == EndAfter {
			f.End()
		}
		return gone
	case verb == "update" || verb == "patch":
		return apierrors.NewConflict(r.GroupResource(), name, gone)
	}
	return act()
}
