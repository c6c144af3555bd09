// SPDX-License-Identifier: Apache-2.0

// Package defaultstorageclass is the admission plug-in DefaultStorageClass: a
// new claim that names no class gets the one that is marked as the default.
//
// The API server's admission chain calls it.
package defaultstorageclass

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "DefaultStorageClass"

const (
	isDefault     = "storageclass.kubernetes.io/is-default-class"
	isDefaultBeta = "storageclass.beta.kubernetes.io/is-default-class"
)

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{ read admission.Reader }

var _ admission.Mutator = (*Plugin)(nil)

// New returns the plug-in; it reads classes from read.
func New(read admission.Reader) *Plugin { return &Plugin{read: read} }

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool { return op == admission.Create }

// Mutate implements admission.Mutator.
func (p *Plugin) Mutate(ctx context.Context, a *admission.Attributes) error {
	if !a.Is("", "persistentvolumeclaims", "") {
		return nil
	}
	claim, ok := a.Object.(*corev1.PersistentVolumeClaim)
	if !ok || claim.Spec.StorageClassName != nil {
		return nil
	}
	if _, named := claim.Annotations[corev1.BetaStorageClassAnnotation]; named {
		return nil
	}
	class, err := p.standard(ctx)
	if err != nil {
		return a.Forbidden(err)
	}
	if class != "" {
		claim.Spec.StorageClassName = &class
	}
	return nil
}

// standard returns the default class, "" when there is none: of several the
// youngest, and among those the first by name.
func (p *Plugin) standard(ctx context.Context) (string, error) {
	var best *storagev1.StorageClass
	err := admission.Each(ctx, p.read, storagev1.SchemeGroupVersion.WithKind("StorageClass"), "", func(c *storagev1.StorageClass) bool {
		if c.Annotations[isDefault] != "true" && c.Annotations[isDefaultBeta] != "true" {
			return true
		}
		if best == nil || best.CreationTimestamp.Before(&c.CreationTimestamp) {
			best = c
		}
		return true
	})
	if err != nil || best == nil {
		return "", err
	}
	return best.Name, nil
}
