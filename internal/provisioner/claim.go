// SPDX-License-Identifier: Apache-2.0

package provisioner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"

	"kaji/internal/client"
)

// claim makes the volume of a claim, or lets it grow, where that is this node's
// business.
func (p *Provisioner) claim(ctx context.Context, k key) error {
	claim, err := p.claims.Cached(k.namespace, k.name)
	if apierrors.IsNotFound(err) || err == nil && claim.DeletionTimestamp != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if claim.Spec.VolumeName != "" {
		return p.grow(ctx, claim)
	}
	class := p.class(claim)
	if class == nil || !p.chosen(claim, class) {
		return nil
	}
	if _, err := p.volumes.Cached("", volumeName(claim)); err == nil {
		return nil // it waits for the binder
	}
	if err := refuse(claim, class); err != nil {
		p.tell(ctx, claim, corev1.EventTypeWarning, "ProvisioningFailed", failure(class, err))
		return nil // asking again would not help
	}
	if err := p.provision(ctx, claim, class); err != nil {
		p.tell(ctx, claim, corev1.EventTypeWarning, "ProvisioningFailed", failure(class, err))
		return err
	}
	return nil
}

func failure(class *storagev1.StorageClass, err error) string {
	return fmt.Sprintf("failed to provision volume with StorageClass %q: %v", class.Name, err)
}

// volumeName is what upstream's provisioners call the volume of a claim.
func volumeName(claim *corev1.PersistentVolumeClaim) string { return "pvc-" + string(claim.UID) }

// class returns the claim's class where a volume was asked of this provisioner
// for it.
func (p *Provisioner) class(claim *corev1.PersistentVolumeClaim) *storagev1.StorageClass {
	asked := claim.Annotations[storagehelpers.AnnStorageProvisioner]
	if asked == "" {
		asked = claim.Annotations[storagehelpers.AnnBetaStorageProvisioner]
	}
	if asked != Name {
		return nil
	}
	class, err := p.classes.Cached("", storagehelpers.GetPersistentVolumeClaimClass(claim))
	if err != nil || class.Provisioner != Name {
		return nil
	}
	return class
}

// chosen says whether the volume should be on this node.
func (p *Provisioner) chosen(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) bool {
	if node, ok := claim.Annotations[storagehelpers.AnnSelectedNode]; ok {
		return node == p.cfg.NodeName
	}
	if class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer {
		return false
	}
	node, err := p.nodes.Cached("", p.cfg.NodeName)
	if err != nil || node.Spec.Unschedulable || node.DeletionTimestamp != nil {
		return false
	}
	for _, term := range class.AllowedTopologies {
		fits := true
		for _, e := range term.MatchLabelExpressions {
			fits = fits && slices.Contains(e.Values, node.Labels[e.Key])
		}
		if fits {
			return true
		}
	}
	return len(class.AllowedTopologies) == 0
}

// refuse says why a claim can never be served.
func refuse(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) error {
	switch {
	case claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock:
		return errors.New("block volumes are not supported by " + Name)
	case claim.Spec.Selector != nil:
		return errors.New("claim Selector is not supported")
	case claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil:
		return errors.New("data sources are not supported by " + Name)
	}
	for name := range class.Parameters {
		return fmt.Errorf("invalid option %q for volume plugin %s", name, Name)
	}
	return nil
}

func (p *Provisioner) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) error {
	p.tell(ctx, claim, corev1.EventTypeNormal, "Provisioning",
		fmt.Sprintf("External provisioner is provisioning volume for claim %q", claim.Namespace+"/"+claim.Name))
	name := volumeName(claim)
	dir := filepath.Join(p.cfg.Root, name+"_"+claim.Namespace+"_"+claim.Name)
	if len(filepath.Base(dir)) > 255 { // no file system takes longer names
		dir = filepath.Join(p.cfg.Root, name)
	}
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	// Whatever user the pod runs as writes here, whatever this process's umask;
	// the root keeps the machine's other users out.
	if err := os.Chmod(dir, 0o777); err != nil {
		return err
	}
	_, err := p.volumes.Create(ctx, p.volume(claim, class, name, dir))
	if apierrors.IsAlreadyExists(err) {
		return p.other(ctx, name, dir)
	}
	if err != nil {
		return err
	}
	p.tell(ctx, claim, corev1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume "+name)
	return nil
}

// other takes the directory away when another node made the volume first.
func (p *Provisioner) other(ctx context.Context, name, dir string) error {
	v, err := p.volumes.Get(ctx, "", name)
	if err != nil || p.here(v) {
		return err
	}
	return os.Remove(dir)
}

func (p *Provisioner) volume(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, name, dir string) *corev1.PersistentVolume {
	policy, mode := corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeFilesystem
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	v := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{storagehelpers.AnnDynamicallyProvisioned: Name}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes: claim.Spec.AccessModes, PersistentVolumeReclaimPolicy: policy, StorageClassName: class.Name,
			MountOptions: class.MountOptions, VolumeMode: &mode,
			ClaimRef: &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: claim.Namespace, Name: claim.Name,
				UID: claim.UID, ResourceVersion: claim.ResourceVersion},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: dir}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{p.hostname()}}},
			}}}},
		},
	}
	if policy == corev1.PersistentVolumeReclaimDelete {
		// The directory must go before the last trace of it does.
		v.Finalizers = []string{storagehelpers.PVDeletionProtectionFinalizer}
	}
	return v
}

// grow gives a bound claim the size that it asks for by now.
func (p *Provisioner) grow(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	wanted, has := claim.Spec.Resources.Requests[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	if claim.Status.Phase != corev1.ClaimBound || wanted.Cmp(has) <= 0 {
		return nil
	}
	v, err := p.volumes.Cached("", claim.Spec.VolumeName)
	if apierrors.IsNotFound(err) || err == nil && (!p.here(v) || v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != claim.UID) {
		return nil
	}
	if err != nil {
		return err
	}
	size := map[string]any{"storage": wanted.String()}
	if capacity := v.Spec.Capacity[corev1.ResourceStorage]; capacity.Cmp(wanted) < 0 {
		p.tell(ctx, claim, corev1.EventTypeNormal, "Resizing", "External resizer is resizing volume "+v.Name)
		if _, err := p.volumes.MergePatch(ctx, "", v.Name, map[string]any{"spec": map[string]any{"capacity": size}}, ""); err != nil {
			return err
		}
	}
	_, err = client.For[*corev1.PersistentVolumeClaim](p.cfg.Client).MergePatch(ctx, claim.Namespace, claim.Name, map[string]any{
		"metadata": map[string]any{"uid": claim.UID},
		"status":   map[string]any{"capacity": size, "allocatedResources": size}}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // another claim has the name by now
	}
	if err == nil {
		p.tell(ctx, claim, corev1.EventTypeNormal, "VolumeResizeSuccessful", "Resize volume succeeded")
	}
	return err
}
