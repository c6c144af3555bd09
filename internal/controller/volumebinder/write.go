// SPDX-License-Identifier: Apache-2.0

package volumebinder

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"
)

// bind makes the four writes of a binding, as far as they are missing.
func (c *Controller) bind(ctx context.Context, v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) error {
	next, changed, err := storagehelpers.GetBindVolumeToClaim(v, claim)
	if err == nil && changed {
		v, err = c.volumes.Update(ctx, next)
	}
	if err != nil {
		return err
	}
	if v, err = c.setVolumePhase(ctx, v, corev1.VolumeBound, ""); err != nil {
		return err
	}
	if claim, err = c.pointAt(ctx, claim, v); err != nil {
		return err
	}
	_, err = c.setClaimPhase(ctx, claim, corev1.ClaimBound, v)
	return err
}

// pointAt writes a claim's side of the binding.
func (c *Controller) pointAt(ctx context.Context, claim *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, error) {
	next, changed := claim.DeepCopy(), false
	if next.Spec.VolumeName != v.Name {
		next.Spec.VolumeName, changed = v.Name, true
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, storagehelpers.AnnBoundByController, "yes")
	}
	if !metav1.HasAnnotation(next.ObjectMeta, storagehelpers.AnnBindCompleted) {
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, storagehelpers.AnnBindCompleted, "yes")
		changed = true
	}
	if !changed {
		return claim, nil
	}
	return c.claims.Update(ctx, next)
}

// unbind takes a volume back from a claim that has another: wholly if we gave
// it, else only the UID of what its maker reserved it for.
func (c *Controller) unbind(ctx context.Context, v *corev1.PersistentVolume) error {
	next := v.DeepCopy()
	if metav1.HasAnnotation(v.ObjectMeta, storagehelpers.AnnBoundByController) {
		next.Spec.ClaimRef = nil
		delete(next.Annotations, storagehelpers.AnnBoundByController)
	} else {
		next.Spec.ClaimRef.UID = ""
	}
	next, err := c.volumes.Update(ctx, next)
	if err != nil {
		return err
	}
	_, err = c.setVolumePhase(ctx, next, corev1.VolumeAvailable, "")
	return err
}

func (c *Controller) setVolumePhase(ctx context.Context, v *corev1.PersistentVolume, phase corev1.PersistentVolumePhase, message string) (*corev1.PersistentVolume, error) {
	if v.Status.Phase == phase {
		return v, nil
	}
	next := v.DeepCopy()
	next.Status.Phase, next.Status.Message = phase, message
	return c.volumes.UpdateStatus(ctx, next)
}

// setClaimPhase writes a claim's phase and what it has of a volume, nothing if
// that is nil. The size is written when the phase changes: later it is the
// file system's, which may differ from the volume's.
func (c *Controller) setClaimPhase(ctx context.Context, claim *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumeClaimPhase, v *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, error) {
	next := claim.DeepCopy()
	s, turned := &next.Status, claim.Status.Phase != phase
	s.Phase = phase
	changed := turned
	if v == nil {
		changed = changed || s.AccessModes != nil || s.Capacity != nil || s.CurrentVolumeAttributesClassName != nil
		s.AccessModes, s.Capacity, s.CurrentVolumeAttributesClassName = nil, nil, nil
	} else {
		size, ok := v.Spec.Capacity[corev1.ResourceStorage]
		if !ok {
			return nil, fmt.Errorf("PersistentVolume %q is without a storage capacity", v.Name)
		}
		if !slices.Equal(s.AccessModes, v.Spec.AccessModes) {
			s.AccessModes, changed = slices.Clone(v.Spec.AccessModes), true
		}
		if have, ok := s.Capacity[corev1.ResourceStorage]; turned && (!ok || have.Cmp(size) != 0) {
			s.Capacity = v.Spec.Capacity.DeepCopy()
		}
		if turned {
			s.CurrentVolumeAttributesClassName = nil
			if class := value(v.Spec.VolumeAttributesClassName); class != "" {
				s.CurrentVolumeAttributesClassName = &class
			}
		}
	}
	if !changed {
		return claim, nil
	}
	return c.claims.UpdateStatus(ctx, next)
}
