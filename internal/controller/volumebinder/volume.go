// SPDX-License-Identifier: Apache-2.0

package volumebinder

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"
)

func (c *Controller) syncVolume(ctx context.Context, v *corev1.PersistentVolume) error {
	v, err := c.noteOrigin(ctx, v)
	if err != nil {
		return err
	}
	ref := v.Spec.ClaimRef
	if ref == nil || ref.UID == "" {
		_, err := c.setVolumePhase(ctx, v, corev1.VolumeAvailable, "")
		return err
	}
	claim, err := c.claimOf(ctx, ref)
	switch {
	case err != nil:
		return err
	case claim == nil:
		return c.release(ctx, v)
	case claim.Spec.VolumeName == "":
		if storagehelpers.CheckVolumeModeMismatches(&claim.Spec, &v.Spec) {
			c.events.Record(ctx, v, volumeKind, corev1.EventTypeWarning, "VolumeMismatch",
				"Cannot bind PersistentVolume to requested PersistentVolumeClaim %q due to incompatible volumeMode.", claim.Name)
			c.events.Record(ctx, claim, claimKind, corev1.EventTypeWarning, "VolumeMismatch",
				"Cannot bind PersistentVolume %q to requested PersistentVolumeClaim due to incompatible volumeMode.", v.Name)
		}
		return nil // the claim's own turn binds it
	case claim.Spec.VolumeName == v.Name:
		_, err := c.setVolumePhase(ctx, v, corev1.VolumeBound, "")
		return err
	case metav1.HasAnnotation(v.ObjectMeta, storagehelpers.AnnDynamicallyProvisioned) && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete:
		return c.release(ctx, v) // made for a claim that took another one
	}
	return c.unbind(ctx, v)
}

// claimOf returns the claim a volume is bound to, nil if that one is gone. What
// the informer says of the absent is checked with the server: data is at stake.
func (c *Controller) claimOf(ctx context.Context, ref *corev1.ObjectReference) (*corev1.PersistentVolumeClaim, error) {
	claim, err := c.claims.Cached(ref.Namespace, ref.Name)
	if apierrors.IsNotFound(err) || err == nil && claim.UID != ref.UID {
		claim, err = c.claims.Get(ctx, ref.Namespace, ref.Name)
	}
	if apierrors.IsNotFound(err) || err == nil && claim.UID != ref.UID {
		return nil, nil
	}
	return claim, err
}

// release marks a volume whose claim is gone, and reclaims it.
func (c *Controller) release(ctx context.Context, v *corev1.PersistentVolume) error {
	if v.Status.Phase != corev1.VolumeReleased && v.Status.Phase != corev1.VolumeFailed {
		var err error
		if v, err = c.setVolumePhase(ctx, v, corev1.VolumeReleased, ""); err != nil {
			return err
		}
	}
	if v.Annotations[storagehelpers.AnnMigratedTo] != "" {
		return nil // the CSI driver's provisioner does it
	}
	switch v.Spec.PersistentVolumeReclaimPolicy {
	case corev1.PersistentVolumeReclaimRetain:
		return nil
	case corev1.PersistentVolumeReclaimRecycle:
		return c.recycle(ctx, v)
	case corev1.PersistentVolumeReclaimDelete:
		return c.remove(ctx, v)
	}
	return c.fail(ctx, v, "VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy")
}

// remove deletes what is behind a volume, where no outside provisioner does,
// and the volume.
func (c *Controller) remove(ctx context.Context, v *corev1.PersistentVolume) error {
	switch by := v.Annotations[storagehelpers.AnnDynamicallyProvisioned]; {
	case by != "" && !strings.HasPrefix(by, inTree):
		return nil
	case by == "" && v.Spec.CSI != nil:
		return nil // nobody knows whose it is
	case by != "" && by != hostPath:
		return c.fail(ctx, v, "VolumeFailedDelete", "no volume plugin matched name: "+by)
	case v.Spec.HostPath == nil:
		known := ""
		if v.Spec.NFS != nil {
			known = "deletable "
		}
		return c.fail(ctx, v, "VolumeFailedDelete", fmt.Sprintf("error getting deleter volume plugin for volume %q: no %svolume plugin matched", v.Name, known))
	}
	// Directories of the machine the controllers run on: upstream's way for
	// tests, and only below /tmp.
	path := filepath.Clean(v.Spec.HostPath.Path)
	if !strings.HasPrefix(path, "/tmp/") {
		return c.fail(ctx, v, "VolumeFailedDelete", "host_path deleter only supports /tmp/.+ but received provided "+v.Spec.HostPath.Path)
	}
	guarded := slices.Contains(v.Finalizers, storagehelpers.PVDeletionInTreeProtectionFinalizer)
	if v.DeletionTimestamp != nil && !guarded {
		return nil // deleted already, and held by another's finalizer
	}
	if err := os.RemoveAll(path); err != nil {
		if failed := c.fail(ctx, v, "VolumeFailedDelete", err.Error()); failed != nil {
			return failed
		}
		return err
	}
	if guarded {
		next := v.DeepCopy()
		next.Finalizers = without(next.Finalizers, storagehelpers.PVDeletionInTreeProtectionFinalizer)
		if _, err := c.volumes.Update(ctx, next); err != nil {
			return ignoreAbsent(err)
		}
	}
	return ignoreAbsent(c.volumes.Delete(ctx, "", v.Name, metav1.DeleteOptions{}))
}

// fail shows why a volume cannot be reclaimed.
func (c *Controller) fail(ctx context.Context, v *corev1.PersistentVolume, reason, message string) error {
	if v.Status.Phase == corev1.VolumeFailed {
		return nil
	}
	updated, err := c.setVolumePhase(ctx, v, corev1.VolumeFailed, message)
	if err == nil {
		c.events.Record(ctx, updated, volumeKind, corev1.EventTypeWarning, reason, "%s", message)
	}
	return err
}
