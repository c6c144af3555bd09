// SPDX-License-Identifier: Apache-2.0

package admission

import corev1 "k8s.io/api/core/v1"

// Referenced is a kind of object that a pod may name.
type Referenced int

// What References looks for.
const (
	Secret Referenced = iota
	ConfigMap
)

// References says whether a pod names any Secret, or any ConfigMap, of its
// namespace: in volumes, environments or as image pull secrets.
func References(pod *corev1.Pod, what Referenced) bool {
	if what == Secret && len(pod.Spec.ImagePullSecrets) > 0 {
		return true
	}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if environment(containers[i].Env, containers[i].EnvFrom, what) {
				return true
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if c := &pod.Spec.EphemeralContainers[i]; environment(c.Env, c.EnvFrom, what) {
			return true
		}
	}
	for i := range pod.Spec.Volumes {
		if volume(&pod.Spec.Volumes[i].VolumeSource, what) {
			return true
		}
	}
	return false
}

func environment(env []corev1.EnvVar, from []corev1.EnvFromSource, what Referenced) bool {
	for i := range env {
		if v := env[i].ValueFrom; v != nil && (what == Secret && v.SecretKeyRef != nil || what == ConfigMap && v.ConfigMapKeyRef != nil) {
			return true
		}
	}
	for i := range from {
		if what == Secret && from[i].SecretRef != nil || what == ConfigMap && from[i].ConfigMapRef != nil {
			return true
		}
	}
	return false
}

func volume(v *corev1.VolumeSource, what Referenced) bool {
	if v.Projected != nil {
		for _, s := range v.Projected.Sources {
			if what == Secret && s.Secret != nil || what == ConfigMap && s.ConfigMap != nil {
				return true
			}
		}
	}
	if what == ConfigMap {
		return v.ConfigMap != nil
	}
	return v.Secret != nil || v.AzureFile != nil ||
		v.CephFS != nil && v.CephFS.SecretRef != nil || v.Cinder != nil && v.Cinder.SecretRef != nil ||
		v.FlexVolume != nil && v.FlexVolume.SecretRef != nil || v.RBD != nil && v.RBD.SecretRef != nil ||
		v.ScaleIO != nil && v.ScaleIO.SecretRef != nil || v.ISCSI != nil && v.ISCSI.SecretRef != nil ||
		v.StorageOS != nil && v.StorageOS.SecretRef != nil || v.CSI != nil && v.CSI.NodePublishSecretRef != nil
}
