// SPDX-License-Identifier: Apache-2.0

package node

import corev1 "k8s.io/api/core/v1"

// references says whether a pod names a Secret ("secret") or a ConfigMap
// ("configmap") of its namespace anywhere.
func references(pod *corev1.Pod, what, name string) bool {
	found := false
	see := func(kind, n string) { found = found || kind == what && n == name }
	for _, s := range pod.Spec.ImagePullSecrets {
		see("secret", s.Name)
	}
	for i := range pod.Spec.InitContainers {
		environment(pod.Spec.InitContainers[i].Env, pod.Spec.InitContainers[i].EnvFrom, see)
	}
	for i := range pod.Spec.Containers {
		environment(pod.Spec.Containers[i].Env, pod.Spec.Containers[i].EnvFrom, see)
	}
	for i := range pod.Spec.EphemeralContainers {
		environment(pod.Spec.EphemeralContainers[i].Env, pod.Spec.EphemeralContainers[i].EnvFrom, see)
	}
	for i := range pod.Spec.Volumes {
		volume(&pod.Spec.Volumes[i].VolumeSource, see)
	}
	return found
}

func environment(env []corev1.EnvVar, from []corev1.EnvFromSource, see func(kind, name string)) {
	for i := range env {
		if v := env[i].ValueFrom; v != nil {
			if v.SecretKeyRef != nil {
				see("secret", v.SecretKeyRef.Name)
			}
			if v.ConfigMapKeyRef != nil {
				see("configmap", v.ConfigMapKeyRef.Name)
			}
		}
	}
	for i := range from {
		if from[i].SecretRef != nil {
			see("secret", from[i].SecretRef.Name)
		}
		if from[i].ConfigMapRef != nil {
			see("configmap", from[i].ConfigMapRef.Name)
		}
	}
}

func volume(v *corev1.VolumeSource, see func(kind, name string)) {
	local := func(ref *corev1.LocalObjectReference) {
		if ref != nil {
			see("secret", ref.Name)
		}
	}
	switch {
	case v.Secret != nil:
		see("secret", v.Secret.SecretName)
	case v.ConfigMap != nil:
		see("configmap", v.ConfigMap.Name)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.Secret != nil {
				see("secret", s.Secret.Name)
			}
			if s.ConfigMap != nil {
				see("configmap", s.ConfigMap.Name)
			}
		}
	case v.AzureFile != nil:
		see("secret", v.AzureFile.SecretName)
	case v.CephFS != nil:
		local(v.CephFS.SecretRef)
	case v.Cinder != nil:
		local(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		local(v.FlexVolume.SecretRef)
	case v.RBD != nil:
		local(v.RBD.SecretRef)
	case v.ScaleIO != nil:
		local(v.ScaleIO.SecretRef)
	case v.ISCSI != nil:
		local(v.ISCSI.SecretRef)
	case v.StorageOS != nil:
		local(v.StorageOS.SecretRef)
	case v.CSI != nil:
		local(v.CSI.NodePublishSecretRef)
	}
}

// volumeReferences says whether a PersistentVolume, claimed in a namespace,
// names a Secret; references without a namespace mean the claim's.
func volumeReferences(v *corev1.PersistentVolume, claimed, namespace, name string) bool {
	found := false
	see := func(ref *corev1.SecretReference) {
		if ref == nil {
			return
		}
		in := ref.Namespace
		if in == "" {
			in = claimed
		}
		found = found || ref.Name == name && in == namespace
	}
	s := &v.Spec.PersistentVolumeSource
	switch {
	case s.AzureFile != nil:
		ref := &corev1.SecretReference{Name: s.AzureFile.SecretName}
		if s.AzureFile.SecretNamespace != nil {
			ref.Namespace = *s.AzureFile.SecretNamespace
		}
		see(ref)
	case s.CephFS != nil:
		see(s.CephFS.SecretRef)
	case s.Cinder != nil:
		see(s.Cinder.SecretRef)
	case s.FlexVolume != nil:
		see(s.FlexVolume.SecretRef)
	case s.RBD != nil:
		see(s.RBD.SecretRef)
	case s.ScaleIO != nil:
		see(s.ScaleIO.SecretRef)
	case s.ISCSI != nil:
		see(s.ISCSI.SecretRef)
	case s.StorageOS != nil && s.StorageOS.SecretRef != nil:
		see(&corev1.SecretReference{Namespace: s.StorageOS.SecretRef.Namespace, Name: s.StorageOS.SecretRef.Name})
	case s.CSI != nil:
		// What only the control plane publishes with is not the node's business.
		see(s.CSI.NodeStageSecretRef)
		see(s.CSI.NodePublishSecretRef)
		see(s.CSI.NodeExpandSecretRef)
	}
	return found
}
