// SPDX-License-Identifier: Apache-2.0

// Package adopt says which objects belong to a controller's object: its own,
// without those that no longer match its selector, and orphans that do. The
// workload controllers share it.
package adopt

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/controller/podstate"
)

// index is the informers' index by controller.
const index = "controller.owner"

// Index lets Claim and Owned look up a kind of object by its controller; call
// it before the informer starts.
func Index[T client.Object](objects client.Typed[T]) {
	objects.AddIndex(index, func(o T) []string {
		if owner := podstate.OwnerUID(o); owner != nil {
			return owner
		}
		return []string{orphans(o.GetNamespace())}
	})
}

// orphans is the key in the index of a namespace's objects without a controller.
// No UID has a slash.
func orphans(namespace string) string { return "orphans/" + namespace }

// Owned returns the objects whose controller has the UID.
func Owned[T client.Object](objects client.Typed[T], owner types.UID) []T {
	return objects.ByIndex(index, string(owner))
}

// Claim asks for the objects of an owner.
type Claim[T client.Object] struct {
	Owner    metav1.Object
	Kind     schema.GroupVersionKind
	Selector labels.Selector
	Objects  client.Typed[T]
	// Counts leaves out objects; nil counts all.
	Counts func(T) bool
	// Member says which objects beyond the selector can be the owner's; nil is all.
	Member func(T) bool
	// Finalizer, unless empty, is put on what is adopted and taken off what is
	// released.
	Finalizer string
	// Fresh reads the owner from the server. Orphans are adopted only if it is
	// not being deleted, whatever the informer says.
	Fresh func() (metav1.Object, error)
}

// Objects returns what belongs to the owner, adopting and releasing.
func (c Claim[T]) Claimed(ctx context.Context) ([]T, error) {
	var out []T
	for _, o := range Owned(c.Objects, c.Owner.GetUID()) {
		if c.Counts != nil && !c.Counts(o) {
			continue
		}
		if c.matches(o) {
			out = append(out, o)
			continue
		}
		if c.Owner.GetDeletionTimestamp() == nil {
			if err := c.release(ctx, o); err != nil {
				return nil, err
			}
		}
	}
	if c.Owner.GetDeletionTimestamp() != nil {
		return out, nil
	}
	checked := false
	for _, o := range c.Objects.ByIndex(index, orphans(c.Owner.GetNamespace())) {
		if o.GetDeletionTimestamp() != nil || !c.matches(o) || c.Counts != nil && !c.Counts(o) {
			continue
		}
		if !checked {
			if err := c.mayAdopt(); err != nil {
				return nil, err
			}
			checked = true
		}
		adopted, err := c.adopt(ctx, o)
		if err != nil {
			return nil, err
		}
		if adopted {
			out = append(out, o)
		}
	}
	return out, nil
}

func (c Claim[T]) matches(o T) bool {
	return c.Selector.Matches(labels.Set(o.GetLabels())) && (c.Member == nil || c.Member(o))
}

func (c Claim[T]) mayAdopt() error {
	if c.Fresh == nil {
		return nil
	}
	fresh, err := c.Fresh()
	if err != nil {
		return fmt.Errorf("can't adopt: %w", err)
	}
	if fresh.GetUID() != c.Owner.GetUID() {
		return fmt.Errorf("original %v %v/%v is gone: got uid %v, wanted %v", c.Kind.Kind, c.Owner.GetNamespace(), c.Owner.GetName(), fresh.GetUID(), c.Owner.GetUID())
	}
	if fresh.GetDeletionTimestamp() != nil {
		return fmt.Errorf("%v/%v has just been deleted at %v", c.Owner.GetNamespace(), c.Owner.GetName(), fresh.GetDeletionTimestamp())
	}
	return nil
}

func (c Claim[T]) adopt(ctx context.Context, o T) (bool, error) {
	err := c.patch(ctx, o, metav1.NewControllerRef(c.Owner, c.Kind), "finalizers")
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) { // gone, or another of the name by now
		return false, nil
	}
	return err == nil, err
}

func (c Claim[T]) release(ctx context.Context, o T) error {
	err := c.patch(ctx, o, map[string]any{"$patch": "delete", "uid": c.Owner.GetUID()}, "$deleteFromPrimitiveList/finalizers")
	if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return nil
	}
	return err
}

func (c Claim[T]) patch(ctx context.Context, o T, reference any, finalizers string) error {
	metadata := map[string]any{"uid": o.GetUID(), "ownerReferences": []any{reference}}
	if c.Finalizer != "" {
		metadata[finalizers] = []string{c.Finalizer}
	}
	data, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return err
	}
	_, err = c.Objects.Patch(ctx, o.GetNamespace(), o.GetName(), types.StrategicMergePatchType, data, "")
	return err
}
