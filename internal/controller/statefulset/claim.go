// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"errors"
	"fmt"
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var podKind = corev1.SchemeGroupVersion.WithKind("Pod")

func claimName(set *appsv1.StatefulSet, template *corev1.PersistentVolumeClaim, n int) string {
	return template.Name + "-" + set.Name + "-" + strconv.Itoa(n)
}

// policy says what owns the claims: a claim that goes with the set is the
// set's, one that goes with its pod when the set shrinks becomes the pod's then.
func policy(set *appsv1.StatefulSet) (whenDeleted, whenScaled bool) {
	p := set.Spec.PersistentVolumeClaimRetentionPolicy
	if p == nil {
		return false, false
	}
	return p.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType, p.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
}

// claim returns the claim of a template for a pod's number.
func (u *update) claim(template *corev1.PersistentVolumeClaim, p *corev1.Pod, n int) *corev1.PersistentVolumeClaim {
	c := template.DeepCopy()
	c.Namespace, c.Name = u.set.Namespace, claimName(u.set, template, n)
	c.Labels = maps.Clone(c.Labels)
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	maps.Copy(c.Labels, u.set.Spec.Selector.MatchLabels)
	c.OwnerReferences = u.owners(c, p, n)
	c.Status = corev1.PersistentVolumeClaimStatus{}
	return c
}

// owners returns a claim's owners as the retention policy wants them.
func (u *update) owners(c *corev1.PersistentVolumeClaim, p *corev1.Pod, n int) []metav1.OwnerReference {
	var refs []metav1.OwnerReference
	foreign := false
	for _, ref := range c.OwnerReferences {
		switch {
		case names(&ref, u.set, kind):
			foreign = foreign || ref.UID != u.set.UID
		case names(&ref, p, podKind):
			foreign = foreign || p.UID != "" && ref.UID != p.UID
		default:
			refs = append(refs, ref)
			foreign = foreign || ref.Controller != nil && *ref.Controller
		}
	}
	whenDeleted, whenScaled := policy(u.set)
	switch {
	case !whenDeleted && !whenScaled:
	case foreign: // somebody else decides about it
	case whenScaled && !inRange(u.set, n):
		refs = append(refs, *metav1.NewControllerRef(p, podKind))
	case whenDeleted:
		refs = append(refs, *metav1.NewControllerRef(u.set, kind))
	}
	return refs
}

func names(ref *metav1.OwnerReference, o metav1.Object, gvk schema.GroupVersionKind) bool {
	return ref.APIVersion == gvk.GroupVersion().String() && ref.Kind == gvk.Kind && ref.Name == o.GetName()
}

// ensureClaims makes the claims of a pod that are missing.
func (u *update) ensureClaims(p *corev1.Pod, n int) error {
	var errs []error
	for i := range u.set.Spec.VolumeClaimTemplates {
		c := u.claim(&u.set.Spec.VolumeClaimTemplates[i], p, n)
		have, err := u.claims.Cached(c.Namespace, c.Name)
		switch {
		case apierrors.IsNotFound(err):
			_, err := u.claims.Create(u.ctx, c)
			if apierrors.IsAlreadyExists(err) {
				continue // the informer is late
			}
			u.claimEvent(p, c, err)
			if err != nil {
				errs = append(errs, fmt.Errorf("failed to create PVC %s: %w", c.Name, err))
			}
		case err != nil:
			errs = append(errs, fmt.Errorf("failed to retrieve PVC %s: %w", c.Name, err))
		case have.DeletionTimestamp != nil:
			errs = append(errs, fmt.Errorf("pvc %s is being deleted", c.Name))
		}
	}
	return errors.Join(errs...)
}

// fixClaims gives the claims of a pod the owners they should have, and says
// whether any had others.
func (u *update) fixClaims(p *corev1.Pod, n int) (changes bool, err error) {
	for i := range u.set.Spec.VolumeClaimTemplates {
		have, err := u.claims.Cached(u.set.Namespace, claimName(u.set, &u.set.Spec.VolumeClaimTemplates[i], n))
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return changes, err
		}
		owners := u.owners(have, p, n)
		if equality.Semantic.DeepEqual(owners, have.OwnerReferences) {
			continue
		}
		changed := have.DeepCopy()
		changed.OwnerReferences = owners
		if _, err := u.claims.Update(u.ctx, changed); err != nil {
			return changes, fmt.Errorf("could not update claim %s for delete policy ownerRefs: %w", have.Name, err)
		}
		changes = true
	}
	return changes, nil
}

// stale says whether a claim of a pod that is to be made still belongs to an
// earlier pod of the name, and will be deleted with it.
func (u *update) stale(p *corev1.Pod, n int) bool {
	if _, whenScaled := policy(u.set); !whenScaled {
		return false
	}
	for i := range u.set.Spec.VolumeClaimTemplates {
		have, err := u.claims.Cached(u.set.Namespace, claimName(u.set, &u.set.Spec.VolumeClaimTemplates[i], n))
		if err != nil {
			continue
		}
		for j := range have.OwnerReferences {
			if ref := &have.OwnerReferences[j]; names(ref, p, podKind) && ref.UID != p.UID {
				return true
			}
		}
	}
	return false
}
