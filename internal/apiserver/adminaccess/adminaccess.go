// SPDX-License-Identifier: Apache-2.0

// Package adminaccess lets claims ask for administrative access to devices only
// in namespaces that are labelled for it (KEP-5018).
//
// The object layer calls it as the hook of resourceclaims and
// resourceclaimtemplates. It reads namespaces from the cache and writes
// nothing.
package adminaccess

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/apiserver/cache"
	"kaji/internal/apiserver/object"
)

// Hook is the object.Hook of both resources. It is safe for concurrent use.
type Hook struct {
	// Cache and Namespaces are where namespaces are read.
	Cache      *cache.Cache
	Namespaces *api.Kind
}

var _ object.Hook = (*Hook)(nil)

// BeforeWrite implements object.Hook. A spec does not change once it is there:
// only a new object is judged.
func (h *Hook) BeforeWrite(ctx context.Context, obj, old api.Object, _ bool) (object.Side, error) {
	if old != nil {
		return object.Side{}, nil
	}
	kind, requests := "ResourceClaimTemplate", []resourcev1.DeviceRequest(nil)
	switch o := obj.(type) {
	case *resourcev1.ResourceClaim:
		kind, requests = "ResourceClaim", o.Spec.Devices.Requests
	case *resourcev1.ResourceClaimTemplate:
		requests = o.Spec.Spec.Devices.Requests
	}
	path := field.NewPath("spec", "devices", "requests")
	for i := range requests {
		exactly := requests[i].Exactly
		if exactly == nil || exactly.AdminAccess == nil || !*exactly.AdminAccess {
			continue
		}
		err := h.allowed(ctx, obj.GetNamespace(), path.Index(i).Child("adminAccess"))
		if err == nil {
			break
		}
		return object.Side{}, apierrors.NewInvalid(resourcev1.SchemeGroupVersion.WithKind(kind).GroupKind(), obj.GetName(), field.ErrorList{err})
	}
	return object.Side{}, nil
}

func (h *Hook) allowed(ctx context.Context, namespace string, path *field.Path) *field.Error {
	entry, found, err := h.Cache.Get(ctx, h.Namespaces, "", namespace)
	switch {
	case err != nil:
		return field.InternalError(path, fmt.Errorf("could not retrieve namespace: %w", err))
	case found && entry.Object.(*corev1.Namespace).Labels[resourcev1.DRAAdminNamespaceLabelKey] == "true":
		return nil
	}
	return field.Forbidden(path, fmt.Sprintf("admin access to devices requires the `%s: true` label on the containing namespace", resourcev1.DRAAdminNamespaceLabelKey))
}

// BeforeRemove implements object.Hook.
func (h *Hook) BeforeRemove(context.Context, api.Object) (object.Side, error) {
	return object.Side{}, nil
}
