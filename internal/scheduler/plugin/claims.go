// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/storage/ephemeral"
)

// ClaimName returns the name of the claim that a volume of the pod uses, and
// whether it is made for the pod; "" when the volume uses none.
func ClaimName(pod *corev1.Pod, v *corev1.Volume) (name string, made bool) {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName, false
	case v.Ephemeral != nil:
		return ephemeral.VolumeClaimName(pod, v), true
	}
	return "", false
}

// UsesClaim says whether the pod uses the claim.
func UsesClaim(pod *corev1.Pod, pvc *corev1.PersistentVolumeClaim) bool {
	if pod.Namespace != pvc.Namespace {
		return false
	}
	for i := range pod.Spec.Volumes {
		if name, _ := ClaimName(pod, &pod.Spec.Volumes[i]); name == pvc.Name {
			return true
		}
	}
	return false
}

// NotFound is the text for a missing object, the kind in the singular and with
// its group, as listers have it.
func NotFound(kind, name string) string { return fmt.Sprintf("%s %q not found", kind, name) }
