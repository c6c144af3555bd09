// SPDX-License-Identifier: Apache-2.0

// Package controllertest runs controllers under faults: every kind of call to
// the API server times out once without effect, conflicts once, and once has
// its effect while the answer is lost. Tests of the controllers use it; what
// they make must be the same as without faults, nothing doubled, nothing lost.
package controllertest

import (
	"context"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
)

// Faults is what happened to the calls of one or more clients. Its zero value
// is ready; its methods are safe for concurrent use.
type Faults struct {
	mu    sync.Mutex
	calls map[call]int
}

type call struct {
	verb, resource, subresource string
}

// Client returns api with faults in its writes and live reads. Informers have
// none: they reconnect by themselves.
func (f *Faults) Client(api client.Interface) client.Interface { return &faulty{api, f} }

// Again lets every kind of call fail three more times.
func (f *Faults) Again() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.calls)
}

// Met says how many kinds of calls were made to fail.
func (f *Faults) Met() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

// fault is what happens to one call.
type fault int

const (
	none fault = iota
	timeout
	lost
	conflict
)

// next returns what happens to a call: the first time it times out, the second
// time its answer is lost, the third time it conflicts, where it can.
func (f *Faults) next(verb string, r client.Resource) fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = map[call]int{}
	}
	c := call{verb, r.GroupResource().String(), r.Subresource}
	f.calls[c]++
	switch n := f.calls[c]; {
	case n == 1:
		return timeout
	case n == 2:
		return lost
	case n == 3 && verb != "create" && verb != "get" && verb != "list":
		return conflict
	}
	return none
}

func (f *Faults) do(verb string, r client.Resource, name string, act func() error) error {
	gone := apierrors.NewTimeoutError("the test lost the connection", 0)
	switch f.next(verb, r) {
	case timeout:
		return gone
	case lost:
		_ = act() // whatever came of it, the caller does not learn it
		return gone
	case conflict:
		return apierrors.NewConflict(r.GroupResource(), name, gone)
	}
	return act()
}

// faulty is a client of which calls fail.
type faulty struct {
	client.Interface
	faults interface {
		// do lets a call act or fail.
		do(verb string, r client.Resource, name string, act func() error) error
	}
}

func (c *faulty) answer(verb string, r client.Resource, name string, act func() (runtime.Object, error)) (out runtime.Object, err error) {
	err = c.faults.do(verb, r, name, func() error {
		out, err = act()
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Get implements client.Verbs.
func (c *faulty) Get(ctx context.Context, r client.Resource, name string, opts metav1.GetOptions) (runtime.Object, error) {
	return c.answer("get", r, name, func() (runtime.Object, error) { return c.Interface.Get(ctx, r, name, opts) })
}

// List implements client.Verbs.
func (c *faulty) List(ctx context.Context, r client.Resource, opts metav1.ListOptions) (runtime.Object, error) {
	return c.answer("list", r, "", func() (runtime.Object, error) { return c.Interface.List(ctx, r, opts) })
}

// Create implements client.Verbs.
func (c *faulty) Create(ctx context.Context, r client.Resource, name string, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	return c.answer("create", r, name, func() (runtime.Object, error) { return c.Interface.Create(ctx, r, name, obj, opts) })
}

// Update implements client.Verbs.
func (c *faulty) Update(ctx context.Context, r client.Resource, name string, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	return c.answer("update", r, name, func() (runtime.Object, error) { return c.Interface.Update(ctx, r, name, obj, opts) })
}

// Patch implements client.Verbs.
func (c *faulty) Patch(ctx context.Context, r client.Resource, name string, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	return c.answer("patch", r, name, func() (runtime.Object, error) { return c.Interface.Patch(ctx, r, name, pt, data, opts) })
}

// Delete implements client.Verbs.
func (c *faulty) Delete(ctx context.Context, r client.Resource, name string, opts metav1.DeleteOptions) error {
	return c.faults.do("delete", r, name, func() error { return c.Interface.Delete(ctx, r, name, opts) })
}

// DeleteCollection implements client.Verbs.
func (c *faulty) DeleteCollection(ctx context.Context, r client.Resource, opts metav1.DeleteOptions, list metav1.ListOptions) error {
	return c.faults.do("deletecollection", r, "", func() error { return c.Interface.DeleteCollection(ctx, r, opts, list) })
}
