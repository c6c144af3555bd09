// SPDX-License-Identifier: Apache-2.0

// Package claimresize is the admission plug-in PersistentVolumeClaimResize: a
// claim grows only once it is bound and where its class allows that.
//
// The API server's admission chain calls it.
package claimresize

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"kaji/internal/apiserver/admission"
)

// Name is what the plug-in is enabled by.
const Name = "PersistentVolumeClaimResize"

// Plugin is the admission plug-in. It is safe for concurrent use.
type Plugin struct{ read admission.Reader }

var _ admission.Validator = (*Plugin)(nil)

// New returns the plug-in; it reads classes from read.
func New(read admission.Reader) *Plugin { return &Plugin{read: read} }

// Name implements admission.Plugin.
func (p *Plugin) Name() string { return Name }

// Handles implements admission.Plugin.
func (p *Plugin) Handles(op admission.Operation) bool { return op == admission.Update }

// Validate implements admission.Validator.
func (p *Plugin) Validate(ctx context.Context, a *admission.Attributes) error {
	if !a.Is("", "persistentvolumeclaims", "") {
		return nil
	}
	claim, ok := a.Object.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil
	}
	old, ok := a.Old.(*corev1.PersistentVolumeClaim)
	if !ok {
		return nil
	}
	was, now := old.Spec.Resources.Requests[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if now.Cmp(was) <= 0 {
		return nil
	}
	if old.Status.Phase != corev1.ClaimBound {
		return a.Forbidden(errors.New("Only bound persistent volume claims can be expanded"))
	}
	grows, err := p.grows(ctx, claim, old)
	if err != nil {
		return a.Forbidden(err)
	}
	if !grows {
		return a.Forbidden(errors.New("only dynamically provisioned pvc can be resized and " +
			"the storageclass that provisions the pvc must support resize"))
	}
	return nil
}

// grows says whether the claim's class lets it grow.
func (p *Plugin) grows(ctx context.Context, claim, old *corev1.PersistentVolumeClaim) (bool, error) {
	name := classOf(claim)
	if name == "" || name != classOf(old) {
		return false, nil
	}
	class, found, err := admission.Find[*storagev1.StorageClass](ctx, p.read, storagev1.SchemeGroupVersion.WithKind("StorageClass"), "", name)
	if err != nil || !found {
		return false, err
	}
	return class.AllowVolumeExpansion != nil && *class.AllowVolumeExpansion, nil
}

func classOf(claim *corev1.PersistentVolumeClaim) string {
	if name, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	if claim.Spec.StorageClassName != nil {
		return *claim.Spec.StorageClassName
	}
	return ""
}
