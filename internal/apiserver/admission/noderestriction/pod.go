// SPDX-License-Identifier: Apache-2.0

package noderestriction

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kaji/internal/apiserver/admission"
)

func unexpected(obj any) error { return fmt.Errorf("unexpected type %T", obj) }

func (p *Plugin) judgePod(ctx context.Context, a *admission.Attributes, node string) error {
	switch a.Operation {
	case admission.Create:
		return p.judgeMirror(ctx, a, node)
	case admission.Delete:
		pod, ok := a.Old.(*corev1.Pod)
		if !ok {
			var err error
			if pod, err = p.pod(ctx, a.Namespace, a.Name); err != nil {
				return err
			}
		}
		if pod.Spec.NodeName != node {
			return fmt.Errorf("node %q can only delete pods with spec.nodeName set to itself", node)
		}
		return nil
	}
	return fmt.Errorf("unexpected operation %q, node %q can only create and delete mirror pods", a.Operation, node)
}

// judgeMirror judges the pods that a node makes: what it runs of its own
// accord, shown to the cluster.
func (p *Plugin) judgeMirror(ctx context.Context, a *admission.Attributes, node string) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return unexpected(a.Object)
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
		return fmt.Errorf("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if pod.Spec.NodeName != node {
		return fmt.Errorf("node %q can only create pods with spec.nodeName set to itself", node)
	}
	if err := p.judgeOwner(ctx, pod, node); err != nil {
		return err
	}
	if what := reaches(pod); what != "" {
		return fmt.Errorf("node %q can not create pods that reference %s", node, what)
	}
	return nil
}

func (p *Plugin) judgeOwner(ctx context.Context, pod *corev1.Pod, node string) error {
	switch len(pod.OwnerReferences) {
	case 0:
		return fmt.Errorf("node %q can only create pods with an owner reference set to itself", node)
	case 1:
	default:
		return fmt.Errorf("node %q can only create pods with a single owner reference set to itself", node)
	}
	owner := &pod.OwnerReferences[0]
	switch {
	case owner.APIVersion != "v1" || owner.Kind != "Node" || owner.Name != node:
		return fmt.Errorf("node %q can only create pods with an owner reference set to itself", node)
	case owner.Controller == nil || !*owner.Controller:
		return fmt.Errorf("node %q can only create pods with a controller owner reference set to itself", node)
	case owner.BlockOwnerDeletion != nil && *owner.BlockOwnerDeletion:
		return fmt.Errorf("node %q must not set blockOwnerDeletion on an owner reference", node)
	}
	self, found, err := admission.Find[*corev1.Node](ctx, p.read, corev1.SchemeGroupVersion.WithKind("Node"), "", node)
	switch {
	case err != nil:
		return fmt.Errorf("error looking up node %s to verify uid: %w", node, err)
	case !found:
		return apierrors.NewNotFound(corev1.Resource("node"), node)
	case owner.UID != self.UID:
		return fmt.Errorf("node %s UID mismatch: expected %s got %s", node, owner.UID, self.UID)
	}
	return nil
}

// reaches names the first kind of object that a pod would open to its node.
func reaches(pod *corev1.Pod) string {
	switch {
	case pod.Spec.ServiceAccountName != "":
		return "serviceaccounts"
	case admission.References(pod, admission.Secret):
		return "secrets"
	case admission.References(pod, admission.ConfigMap):
		return "configmaps"
	case len(pod.Spec.ResourceClaims) > 0:
		return "resourceclaims"
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		switch {
		case v.CSI != nil:
			return "csidrivers (via CSI volumes)"
		case v.Glusterfs != nil:
			return "endpoints (via glusterFS volumes)"
		case v.PersistentVolumeClaim != nil:
			return "persistentvolumeclaims"
		case v.Ephemeral != nil:
			return "persistentvolumeclaims (via ephemeral volumes)"
		case v.Projected != nil:
			if what := projects(v.Projected.Sources); what != "" {
				return what
			}
		}
	}
	return ""
}

// projects does so for what is not named by a Secret or ConfigMap.
func projects(sources []corev1.VolumeProjection) string {
	for i := range sources {
		switch s := &sources[i]; {
		case s.ServiceAccountToken != nil:
			return "serviceaccounts (via projected volumes)"
		case s.ClusterTrustBundle != nil:
			return "clustertrustbundles"
		case s.PodCertificate != nil:
			return "podcertificates"
		}
	}
	return ""
}

func judgePodStatus(a *admission.Attributes, node string) error {
	if a.Operation != admission.Update {
		return fmt.Errorf("unexpected operation %q", a.Operation)
	}
	old, ok := a.Old.(*corev1.Pod)
	if !ok {
		return unexpected(a.Old)
	}
	if old.Spec.NodeName != node {
		return fmt.Errorf("node %q can only update pod status for pods with spec.nodeName set to itself", node)
	}
	pod, ok := a.Object.(*corev1.Pod)
	if !ok {
		return unexpected(a.Object)
	}
	if !maps.Equal(old.Labels, pod.Labels) {
		return fmt.Errorf("node %q cannot update labels through pod status", node)
	}
	if !slices.EqualFunc(old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses, sameClaim) {
		return fmt.Errorf("node %q cannot update resource claim statues", node)
	}
	if !sameExtended(old.Status.ExtendedResourceClaimStatus, pod.Status.ExtendedResourceClaimStatus) {
		return fmt.Errorf("node %q cannot update extended resource claim status", node)
	}
	if !equality.Semantic.DeepEqual(old.Status.NodeAllocatableResourceClaimStatuses, pod.Status.NodeAllocatableResourceClaimStatuses) {
		return fmt.Errorf("node %q cannot update node allocatable resource claim statuses", node)
	}
	return nil
}

func sameClaim(x, y corev1.PodResourceClaimStatus) bool {
	if x.Name != y.Name || (x.ResourceClaimName == nil) != (y.ResourceClaimName == nil) {
		return false
	}
	return x.ResourceClaimName == nil || *x.ResourceClaimName == *y.ResourceClaimName
}

func sameExtended(x, y *corev1.PodExtendedResourceClaimStatus) bool {
	if x == nil || y == nil {
		return x == y
	}
	return x.ResourceClaimName == y.ResourceClaimName && slices.Equal(x.RequestMappings, y.RequestMappings)
}

func (p *Plugin) judgeEviction(ctx context.Context, a *admission.Attributes, node string) error {
	if a.Operation != admission.Create {
		return fmt.Errorf("unexpected operation %s", a.Operation)
	}
	eviction, ok := a.Object.(*policyv1.Eviction)
	if !ok {
		return unexpected(a.Object)
	}
	name := a.Name
	if name == "" {
		name = eviction.Name
	}
	if name == "" {
		return errors.New("could not determine pod from request data")
	}
	pod, err := p.pod(ctx, a.Namespace, name)
	if err != nil {
		return err
	}
	if pod.Spec.NodeName != node {
		return fmt.Errorf("node %s can only evict pods with spec.nodeName set to itself", node)
	}
	return nil
}
