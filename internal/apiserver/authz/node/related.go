// SPDX-License-Identifier: Apache-2.0

package node

import (
	"iter"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// pods yields the pods of the node. Mirror pods are left out: an agent makes
// them itself and could name anything in them.
func (r *judge) pods(namespace string) (iter.Seq[*corev1.Pod], error) {
	snapshot, err := r.cache.Snapshot(r.ctx, r.kinds.Pod)
	if err != nil {
		return nil, err
	}
	return func(yield func(*corev1.Pod) bool) {
		for entry := range snapshot.Select(namespace, "", nodeNameField, r.node) {
			pod := entry.Object.(*corev1.Pod)
			if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; !mirror && !yield(pod) {
				return
			}
		}
	}, nil
}

// any says whether a pod of the node in a namespace satisfies f.
func (r *judge) any(namespace string, f func(*corev1.Pod) bool) (bool, error) {
	pods, err := r.pods(namespace)
	if err != nil {
		return false, err
	}
	for pod := range pods {
		if f(pod) {
			return true, nil
		}
	}
	return false, nil
}

func (r *judge) own(namespace, name string) (bool, error) {
	entry, ok, err := r.cache.Get(r.ctx, r.kinds.Pod, namespace, name)
	return ok && entry.Object.(*corev1.Pod).Spec.NodeName == r.node, err
}

func (r *judge) account(namespace, name string) (bool, error) {
	return r.any(namespace, func(p *corev1.Pod) bool { return p.Spec.ServiceAccountName == name })
}

func (r *judge) configMap(namespace, name string) (bool, error) {
	return r.any(namespace, func(p *corev1.Pod) bool { return references(p, "configmap", name) })
}

func (r *judge) secret(namespace, name string) (bool, error) {
	if ok, err := r.any(namespace, func(p *corev1.Pod) bool { return references(p, "secret", name) }); ok || err != nil {
		return ok, err
	}
	return r.volumeSecret(namespace, name)
}

func (r *judge) claim(namespace, name string) (bool, error) {
	return r.any(namespace, func(p *corev1.Pod) bool { return claims(p, name) })
}

func (r *judge) volume(_, name string) (bool, error) {
	entry, ok, err := r.cache.Get(r.ctx, r.kinds.PersistentVolume, "", name)
	if err != nil || !ok {
		return false, err
	}
	ref := entry.Object.(*corev1.PersistentVolume).Spec.ClaimRef
	if ref == nil {
		return false, nil
	}
	return r.claim(ref.Namespace, ref.Name)
}

// volumeSecret looks for a volume of the node's pods that names the Secret.
func (r *judge) volumeSecret(namespace, name string) (bool, error) {
	pods, err := r.pods("")
	if err != nil {
		return false, err
	}
	for pod := range pods {
		for i := range pod.Spec.Volumes {
			claim := claimName(pod, &pod.Spec.Volumes[i])
			if claim == "" {
				continue
			}
			volume, err := r.boundVolume(pod.Namespace, claim)
			if err != nil {
				return false, err
			}
			if volume != nil && volumeReferences(volume, pod.Namespace, namespace, name) {
				return true, nil
			}
		}
	}
	return false, nil
}

// boundVolume returns the volume of a claim, nil if it has none.
func (r *judge) boundVolume(namespace, claim string) (*corev1.PersistentVolume, error) {
	entry, ok, err := r.cache.Get(r.ctx, r.kinds.PersistentVolumeClaim, namespace, claim)
	if err != nil || !ok {
		return nil, err
	}
	name := entry.Object.(*corev1.PersistentVolumeClaim).Spec.VolumeName
	if name == "" {
		return nil, nil
	}
	entry, ok, err = r.cache.Get(r.ctx, r.kinds.PersistentVolume, "", name)
	if err != nil || !ok {
		return nil, err
	}
	return entry.Object.(*corev1.PersistentVolume), nil
}

func (r *judge) attachment(_, name string) (bool, error) {
	entry, ok, err := r.cache.Get(r.ctx, r.kinds.VolumeAttachment, "", name)
	return ok && entry.Object.(*storagev1.VolumeAttachment).Spec.NodeName == r.node, err
}

func (r *judge) podCertificateRequest(namespace, name string) (bool, error) {
	entry, ok, err := r.cache.Get(r.ctx, r.kinds.PodCertificateRequest, namespace, name)
	return ok && string(entry.Object.(*certificatesv1.PodCertificateRequest).Spec.NodeName) == r.node, err
}

func (r *judge) resourceClaim(namespace, name string) (bool, error) {
	return r.any(namespace, func(p *corev1.Pod) bool {
		for _, c := range p.Spec.ResourceClaims {
			if c.ResourceClaimName != nil && *c.ResourceClaimName == name {
				return true
			}
		}
		for _, s := range p.Status.ResourceClaimStatuses {
			if s.ResourceClaimName != nil && *s.ResourceClaimName == name {
				return true
			}
		}
		return p.Status.ExtendedResourceClaimStatus != nil && p.Status.ExtendedResourceClaimStatus.ResourceClaimName == name
	})
}

// claimName is the claim behind a pod's volume; empty for other volumes.
func claimName(pod *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		return pod.Name + "-" + v.Name
	}
	return ""
}

func claims(pod *corev1.Pod, name string) bool {
	for i := range pod.Spec.Volumes {
		if claimName(pod, &pod.Spec.Volumes[i]) == name {
			return true
		}
	}
	return false
}
