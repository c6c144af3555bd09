// SPDX-License-Identifier: Apache-2.0

package volumebinder

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"

	"kaji/internal/controller/meter"
)

// inTree begins the names of provisioners that upstream once had inside; of
// directories of the machine it still has one, for tests, which is off.
const (
	inTree   = "kubernetes.io/"
	hostPath = inTree + "host-path"
)

// driverOf returns the CSI driver that took a former plug-in's place.
func driverOf(plugin string) string {
	switch plugin {
	case "kubernetes.io/aws-ebs":
		return "ebs.csi.aws.com"
	case "kubernetes.io/gce-pd":
		return "pd.csi.storage.gke.io"
	case "kubernetes.io/cinder":
		return "cinder.csi.openstack.org"
	case "kubernetes.io/azure-disk":
		return "disk.csi.azure.com"
	case "kubernetes.io/azure-file":
		return "file.csi.azure.com"
	case "kubernetes.io/vsphere-volume":
		return "csi.vsphere.vmware.com"
	case "kubernetes.io/portworx-volume":
		return "pxd.portworx.com"
	}
	return ""
}

// provision asks an outside provisioner for a volume.
func (c *Controller) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim, name string, class *storagev1.StorageClass) error {
	if c.noProvisioning {
		return nil
	}
	failed := func(message string) error {
		c.events.Record(ctx, claim, claimKind, corev1.EventTypeWarning, "ProvisioningFailed", "%s", message)
		return nil // a new class or volume brings the claim back
	}
	if class == nil {
		return failed(apierrors.NewNotFound(storagev1.Resource("storageclass"), name).Error())
	}
	provisioner := class.Provisioner
	switch {
	case provisioner == hostPath:
		if _, err := c.noteProvisioner(ctx, claim, provisioner); err != nil {
			return err
		}
		return failed(fmt.Sprintf("Failed to create provisioner: provisioning in volume plugin %q is disabled", provisioner))
	case strings.HasPrefix(provisioner, inTree):
		if provisioner = driverOf(class.Provisioner); provisioner == "" {
			return failed("no volume plugin matched name: " + class.Provisioner)
		}
	}
	claim, err := c.noteProvisioner(ctx, claim, provisioner)
	if err != nil {
		return err
	}
	c.events.Record(ctx, claim, claimKind, corev1.EventTypeNormal, "ExternalProvisioning",
		"Waiting for a volume to be created either by the external provisioner '%s' or manually by the system administrator. "+
			"If volume creation is delayed, please verify that the provisioner is running and correctly registered.", provisioner)
	return nil
}

// noteProvisioner tells who is to make a claim's volume.
func (c *Controller) noteProvisioner(ctx context.Context, claim *corev1.PersistentVolumeClaim, provisioner string) (*corev1.PersistentVolumeClaim, error) {
	if claim.Annotations[storagehelpers.AnnStorageProvisioner] == provisioner {
		return claim, nil
	}
	next := claim.DeepCopy()
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, storagehelpers.AnnBetaStorageProvisioner, provisioner)
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, storagehelpers.AnnStorageProvisioner, provisioner)
	return c.claims.Update(ctx, next)
}

// noteOrigin tells the CSI driver of a former plug-in's volume that it is the
// driver's now, and has a volume whose plug-in has no driver kept until this
// controller has deleted what is behind it.
func (c *Controller) noteOrigin(ctx context.Context, v *corev1.PersistentVolume) (*corev1.PersistentVolume, error) {
	by := v.Annotations[storagehelpers.AnnDynamicallyProvisioned]
	if !strings.HasPrefix(by, inTree) {
		return v, nil
	}
	next := v.DeepCopy()
	driver, own := driverOf(by), storagehelpers.PVDeletionInTreeProtectionFinalizer
	has := slices.Contains(v.Finalizers, own)
	keep := driver == "" && v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
	switch {
	case has && !keep:
		next.Finalizers = without(next.Finalizers, own)
	case keep && !has && v.DeletionTimestamp == nil: // a finalizer comes too late for what is being deleted
		next.Finalizers = append(next.Finalizers, own)
	}
	if driver == "" {
		next.Finalizers = without(next.Finalizers, storagehelpers.PVDeletionProtectionFinalizer)
		delete(next.Annotations, storagehelpers.AnnMigratedTo)
	} else {
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, storagehelpers.AnnMigratedTo, driver)
	}
	if slices.Equal(next.Finalizers, v.Finalizers) && maps.Equal(next.Annotations, v.Annotations) {
		return v, nil
	}
	return c.volumes.Update(ctx, next)
}

// without returns the finalizers but one.
func without(finalizers []string, one string) []string {
	return slices.DeleteFunc(finalizers, func(f string) bool { return f == one })
}

// giveDefaultClass gives the default class to a claim that was made before
// there was one.
func (c *Controller) giveDefaultClass(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	if storagehelpers.PersistentVolumeClaimHasClass(claim) {
		return false, nil
	}
	var chosen *storagev1.StorageClass
	for _, class := range c.classes.CachedList("", nil) {
		if class.Annotations["storageclass.kubernetes.io/is-default-class"] != "true" && class.Annotations["storageclass.beta.kubernetes.io/is-default-class"] != "true" {
			continue
		}
		// The newest counts, of equals the first name.
		if chosen == nil || chosen.CreationTimestamp.Before(&class.CreationTimestamp) ||
			chosen.CreationTimestamp.Equal(&class.CreationTimestamp) && class.Name < chosen.Name {
			chosen = class
		}
	}
	if chosen == nil {
		return false, nil
	}
	next := claim.DeepCopy()
	next.Spec.StorageClassName = &chosen.Name
	_, err := c.claims.Update(ctx, next)
	meter.From(ctx).ClassGiven(err)
	return true, err
}
