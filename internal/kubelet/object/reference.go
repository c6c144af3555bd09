// SPDX-License-Identifier: Apache-2.0

package object

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/kubelet/podspec"
)

// References are the ConfigMaps and Secrets that a pod names.
func References(pod *corev1.Pod) map[key]bool {
	refs := map[key]bool{}
	configMap := func(name string) { refs[key{"configmaps", pod.Namespace, name}] = name != "" }
	secret := func(name string) { refs[key{"secrets", pod.Namespace, name}] = name != "" }
	for _, s := range pod.Spec.ImagePullSecrets {
		secret(s.Name)
	}
	for _, c := range podspec.Containers(pod) {
		for _, from := range c.EnvFrom {
			if from.ConfigMapRef != nil {
				configMap(from.ConfigMapRef.Name)
			}
			if from.SecretRef != nil {
				secret(from.SecretRef.Name)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom == nil {
				continue
			}
			if ref := e.ValueFrom.ConfigMapKeyRef; ref != nil {
				configMap(ref.Name)
			}
			if ref := e.ValueFrom.SecretKeyRef; ref != nil {
				secret(ref.Name)
			}
		}
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		switch {
		case v.ConfigMap != nil:
			configMap(v.ConfigMap.Name)
		case v.Secret != nil:
			secret(v.Secret.SecretName)
		case v.CSI != nil && v.CSI.NodePublishSecretRef != nil:
			secret(v.CSI.NodePublishSecretRef.Name)
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					configMap(s.ConfigMap.Name)
				}
				if s.Secret != nil {
					secret(s.Secret.Name)
				}
			}
		}
	}
	for k, named := range refs {
		if !named {
			delete(refs, k)
		}
	}
	return refs
}
