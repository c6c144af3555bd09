// SPDX-License-Identifier: Apache-2.0

package disruption

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/served"
)

// scale adds up how many pods the controllers of the given ones want. unmanaged
// says that there are pods without one; they do not count.
func (c *Controller) scale(ctx context.Context, pods []*corev1.Pod) (total int32, unmanaged bool, err error) {
	seen, owners := map[types.UID]bool{}, map[types.UID]int32{}
	for _, pod := range pods {
		ref := metav1.GetControllerOf(pod)
		if ref == nil {
			unmanaged = true
			continue
		}
		if seen[ref.UID] {
			continue
		}
		seen[ref.UID] = true
		owner, n, err := c.wanted(ctx, pod, ref)
		if err != nil {
			return 0, false, err
		}
		owners[owner] = n
	}
	for _, n := range owners {
		total += n
	}
	return total, unmanaged, nil
}

// wanted returns the controller that decides about a pod's number and what it
// wants: a ReplicaSet's Deployment in its place.
func (c *Controller) wanted(ctx context.Context, pod *corev1.Pod, ref *metav1.OwnerReference) (types.UID, int32, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return "", 0, err
	}
	switch gk := (schema.GroupKind{Group: gv.Group, Kind: ref.Kind}); gk {
	case schema.GroupKind{Group: "apps", Kind: "ReplicaSet"}:
		rs, err := c.sets.Cached(pod.Namespace, ref.Name)
		if err == nil && rs.UID == ref.UID {
			if above := metav1.GetControllerOf(rs); above != nil && above.Kind == "Deployment" {
				d, err := c.deployments.Cached(pod.Namespace, above.Name)
				if err != nil || d.UID != above.UID {
					break
				}
				return d.UID, ptr.Deref(d.Spec.Replicas, 1), nil
			}
			return rs.UID, ptr.Deref(rs.Spec.Replicas, 1), nil
		}
	case schema.GroupKind{Group: "apps", Kind: "StatefulSet"}:
		if s, err := c.stateful.Cached(pod.Namespace, ref.Name); err == nil && s.UID == ref.UID {
			return s.UID, ptr.Deref(s.Spec.Replicas, 1), nil
		}
	case schema.GroupKind{Kind: "ReplicationController"}:
		if rc, err := c.replication.Cached(pod.Namespace, ref.Name); err == nil && rc.UID == ref.UID {
			return rc.UID, ptr.Deref(rc.Spec.Replicas, 1), nil
		}
	default:
		return c.byScale(ctx, pod, ref, gk)
	}
	return "", 0, fmt.Errorf("found no controllers for pod %q", pod.Name)
}

// byScale asks the scale sub-resource of any other owner.
func (c *Controller) byScale(ctx context.Context, pod *corev1.Pod, ref *metav1.OwnerReference, gk schema.GroupKind) (types.UID, int32, error) {
	gvr, err := c.resource(ctx, gk)
	if err != nil {
		return "", 0, err
	}
	obj, err := c.api.Get(ctx, client.Resource{GroupVersionResource: gvr, Namespace: pod.Namespace, Subresource: "scale"}, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		// Either the owner is not there, or it has no scale.
		if scales, err := served.Has(ctx, c.api, gvr, "scale"); err == nil && !scales {
			return "", 0, fmt.Errorf("%s does not implement the scale subresource", gvr.GroupResource())
		}
		return "", 0, fmt.Errorf("found no controllers for pod %q", pod.Name)
	}
	if err != nil {
		return "", 0, err
	}
	scale, err := client.Scale(obj)
	if err != nil { // in one process the object itself is the answer
		return "", 0, fmt.Errorf("%s does not implement the scale subresource", gvr.GroupResource())
	}
	if scale.UID != ref.UID {
		return "", 0, fmt.Errorf("found no controllers for pod %q", pod.Name)
	}
	return scale.UID, scale.Spec.Replicas, nil
}

// resource finds the resource of a kind.
func (c *Controller) resource(ctx context.Context, gk schema.GroupKind) (schema.GroupVersionResource, error) {
	c.mu.Lock()
	gvr, known := c.resources[gk]
	c.mu.Unlock()
	if known {
		return gvr, nil
	}
	all, err := c.served(ctx)
	for _, r := range all {
		if r.GroupKind() == gk {
			c.mu.Lock()
			c.resources[gk] = r.GroupVersionResource
			c.mu.Unlock()
			return r.GroupVersionResource, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("no matches for kind %q in group %q", gk.Kind, gk.Group)
	}
	return schema.GroupVersionResource{}, err
}
