// SPDX-License-Identifier: Apache-2.0

package object

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/store"
)

// Fetch returns the newest state of an object of a kind that is named by any
// of its versions. The object is shared and must not be changed.
func (o *Objects) Fetch(ctx context.Context, gvk schema.GroupVersionKind, namespace, name string) (api.Object, error) {
	served := o.Kinds.Kind(gvk)
	if served == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, name)
	}
	entry, err := o.Get(ctx, served, namespace, name, "")
	if err != nil {
		return nil, err
	}
	return entry.Whole(), nil
}

// CommitSide writes a side alone; when one of its guards fails it writes
// nothing, which is no error.
func (o *Objects) CommitSide(ctx context.Context, side Side) error {
	_, err := o.commit(ctx, store.Txn{}, side)
	return err
}

// Each visits the objects of a namespace, or of all when it is empty, until
// visit returns false. The objects are shared and must not be changed.
func (o *Objects) Each(ctx context.Context, gvk schema.GroupVersionKind, namespace string, visit func(api.Object) bool) error {
	served := o.Kinds.Kind(gvk)
	if served == nil {
		return nil
	}
	snapshot, err := o.Cache.Snapshot(ctx, served.Kind)
	if err != nil {
		return o.fault(err)
	}
	for e := range snapshot.All(namespace, "") {
		if !visit(e.Whole()) {
			return nil
		}
	}
	return nil
}
