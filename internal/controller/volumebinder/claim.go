// SPDX-License-Identifier: Apache-2.0

package volumebinder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"
)

func (c *Controller) syncClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	switch {
	case metav1.HasAnnotation(claim.ObjectMeta, storagehelpers.AnnBindCompleted):
		return c.syncBound(ctx, claim)
	case claim.Spec.VolumeName != "":
		return c.syncRequested(ctx, claim)
	}
	return c.syncFree(ctx, claim)
}

// syncBound watches over a claim that was bound once.
func (c *Controller) syncBound(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	lost := func(reason, message string) error {
		if claim.Status.Phase == corev1.ClaimLost {
			return nil
		}
		updated, err := c.setClaimPhase(ctx, claim, corev1.ClaimLost, nil)
		if err == nil {
			c.events.Record(ctx, updated, claimKind, corev1.EventTypeWarning, reason, "%s", message)
		}
		return err
	}
	if claim.Spec.VolumeName == "" {
		return lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
	}
	v, err := c.volumes.Cached("", claim.Spec.VolumeName)
	if apierrors.IsNotFound(err) {
		// The informer may be behind; losing data is not said lightly.
		v, err = c.volumes.Get(ctx, "", claim.Spec.VolumeName)
	}
	switch {
	case apierrors.IsNotFound(err):
		return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	case err != nil:
		return err
	case v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID == claim.UID:
		return c.bind(ctx, v, claim)
	}
	return lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}

// syncRequested binds a claim to the volume it names.
func (c *Controller) syncRequested(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	v, err := c.volumes.Cached("", claim.Spec.VolumeName)
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return err
	case v.Spec.ClaimRef == nil:
		err := satisfies(v, claim)
		if err == nil {
			return c.bind(ctx, v, claim)
		}
		c.events.Record(ctx, claim, claimKind, corev1.EventTypeWarning, "VolumeMismatch", "Cannot bind to requested volume %q: %v", v.Name, err)
	case storagehelpers.IsVolumeBoundToClaim(v, claim):
		return c.bind(ctx, v, claim)
	case metav1.HasAnnotation(claim.ObjectMeta, storagehelpers.AnnBoundByController):
		return fmt.Errorf("invalid binding of claim %s/%s to volume %q: volume already claimed by %s", claim.Namespace, claim.Name, v.Name, refKey(v.Spec.ClaimRef))
	default:
		c.events.Record(ctx, claim, claimKind, corev1.EventTypeWarning, "FailedBinding", "volume %q already bound to a different claim.", v.Name)
	}
	_, err = c.setClaimPhase(ctx, claim, corev1.ClaimPending, nil)
	return err
}

// syncFree finds a volume for a claim that does not care which, or has one made.
func (c *Controller) syncFree(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	class, delayed, err := c.classOf(claim)
	if err != nil {
		return err
	}
	v, err := c.match(claim, delayed)
	if err != nil {
		return fmt.Errorf("error finding PV for claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	if v != nil {
		return c.bind(ctx, v, claim)
	}
	if given, err := c.giveDefaultClass(ctx, claim); given || err != nil {
		return err
	}
	name := storagehelpers.GetPersistentVolumeClaimClass(claim)
	switch {
	case delayed && !storagehelpers.IsDelayBindingProvisioning(claim):
		c.tellDelay(ctx, claim)
	case name != "":
		return c.provision(ctx, claim, name, class)
	default:
		c.events.Record(ctx, claim, claimKind, corev1.EventTypeNormal, "FailedBinding", "no persistent volumes available for this claim and no storage class is set")
	}
	_, err = c.setClaimPhase(ctx, claim, corev1.ClaimPending, nil)
	return err
}

// classOf returns a claim's class, nil if there is none, and whether binding
// waits for the scheduler.
func (c *Controller) classOf(claim *corev1.PersistentVolumeClaim) (class *storagev1.StorageClass, delayed bool, err error) {
	name := storagehelpers.GetPersistentVolumeClaimClass(claim)
	if name == "" {
		return nil, false, nil
	}
	class, err = c.classes.Cached("", name)
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return class, class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer, nil
}

// match returns the volume that fits best: of those with the fewest access
// modes the smallest.
func (c *Controller) match(claim *corev1.PersistentVolumeClaim, delayed bool) (*corev1.PersistentVolume, error) {
	groups := map[string][]*corev1.PersistentVolume{}
	for _, v := range c.volumes.CachedList("", nil) {
		if !storagehelpers.CheckAccessModes(claim, v) {
			continue
		}
		modes := make([]string, 0, len(v.Spec.AccessModes))
		for _, m := range v.Spec.AccessModes {
			modes = append(modes, string(m))
		}
		slices.Sort(modes)
		id := strings.Join(slices.Compact(modes), ",")
		groups[id] = append(groups[id], v)
	}
	var ids []string
	for id := range groups {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(a, ","), strings.Count(b, ",")), strings.Compare(a, b))
	})
	for _, id := range ids {
		group := groups[id]
		slices.SortFunc(group, func(a, b *corev1.PersistentVolume) int { return strings.Compare(a.Name, b.Name) })
		if v, err := storagehelpers.FindMatchingVolume(claim, group, nil, nil, delayed, true); v != nil || err != nil {
			return v, err
		}
	}
	return nil, nil
}

// satisfies says why a volume that a claim names cannot be its.
func satisfies(v *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) error {
	wanted, size := claim.Spec.Resources.Requests[corev1.ResourceStorage], v.Spec.Capacity[corev1.ResourceStorage]
	switch {
	case v.DeletionTimestamp != nil:
		return fmt.Errorf("the volume is marked for deletion %q", v.Name)
	case size.Cmp(wanted) < 0:
		return errors.New("requested PV is too small")
	case storagehelpers.GetPersistentVolumeClass(v) != storagehelpers.GetPersistentVolumeClaimClass(claim):
		return errors.New("storageClassName does not match")
	case storagehelpers.CheckVolumeModeMismatches(&claim.Spec, &v.Spec):
		return errors.New("incompatible volumeMode")
	case !storagehelpers.CheckAccessModes(claim, v):
		return errors.New("incompatible accessMode")
	case value(claim.Spec.VolumeAttributesClassName) != value(v.Spec.VolumeAttributesClassName):
		return errors.New("volumeAttributesClassName does not match")
	}
	return nil
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// tellDelay says what a claim waits for.
func (c *Controller) tellDelay(ctx context.Context, claim *corev1.PersistentVolumeClaim) {
	var names []string
	for _, pod := range c.pods.ByIndex(waiting, key{Namespace: claim.Namespace, Name: claim.Name}.String()) {
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			names = append(names, pod.Name)
		}
	}
	slices.Sort(names)
	reason, message := "WaitForPodScheduled", "waiting for pods "+strings.Join(names, ",")+" to be scheduled"
	switch len(names) {
	case 0:
		reason, message = "WaitForFirstConsumer", "waiting for first consumer to be created before binding"
	case 1:
		message = "waiting for pod " + names[0] + " to be scheduled"
	}
	c.events.Record(ctx, claim, claimKind, corev1.EventTypeNormal, reason, "%s", message)
}
