// SPDX-License-Identifier: Apache-2.0

// Package storageobjectinuseprotection is the admission plug-in
// StorageObjectInUseProtection: new claims, volumes and classes of volume
// attributes get a finalizer, so that they stay while they are in use.
// Controllers take it away when nothing uses them any more.
//
// The API server's admission chain calls it.
package storageobjectinuseprotection

import (
	"context"
	"slices"

	storagev1 "k8s.io/api/storage/v1"

	"kaji/internal/api"
	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "StorageObjectInUseProtection"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{}

var _ admission.Mutator = Plugin{}

// Name implements admission.Plugin.
func (Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (Plugin) Handles(op admission.Operation) bool { return op == admission.Create }

// Mutate implements admission.Mutator.
func (Plugin) Mutate(_ context.Context, a *admission.Attributes) error {
	finalizer := finalizerOf(a)
	if finalizer == "" {
		return nil
	}
	obj, ok := a.Object.(api.Object)
	if !ok {
		return nil
	}
	if had := obj.GetFinalizers(); !slices.Contains(had, finalizer) {
		obj.SetFinalizers(append(had, finalizer))
	}
	return nil
}

func finalizerOf(a *admission.Attributes) string {
	switch {
	case a.Is("", "persistentvolumeclaims", ""):
		return "kubernetes.io/pvc-protection"
	case a.Is("", "persistentvolumes", ""):
		return "kubernetes.io/pv-protection"
	case a.Is(storagev1.GroupName, "volumeattributesclasses", ""):
		return "kubernetes.io/vac-protection"
	}
	return ""
}
