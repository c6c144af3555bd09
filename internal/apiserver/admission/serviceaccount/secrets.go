// SPDX-License-Identifier: Apache-2.0

package serviceaccount

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"kaji/internal/apiserver/admission"
)

// judge refuses pods that name Secrets their account does not let them have.
func (p *Plugin) judge(a *admission.Attributes, pod *corev1.Pod, sa *corev1.ServiceAccount) error {
	if !restricts(sa) {
		return nil
	}
	for i := range pod.Spec.Volumes {
		if s := pod.Spec.Volumes[i].Secret; s != nil && !mountable(sa, s.SecretName) {
			return a.Forbidden(fmt.Errorf("volume with secret.secretName=\"%s\" is not allowed because service account %s does not reference that secret", s.SecretName, sa.Name))
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if err := judgeEnvironment("init container "+c.Name, c.Env, c.EnvFrom, sa); err != nil {
			return a.Forbidden(err)
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if err := judgeEnvironment("container "+c.Name, c.Env, c.EnvFrom, sa); err != nil {
			return a.Forbidden(err)
		}
	}
	for i, ref := range pod.Spec.ImagePullSecrets {
		if !slices.Contains(sa.ImagePullSecrets, ref) {
			return a.Forbidden(fmt.Errorf("imagePullSecrets[%d].name=\"%s\" is not allowed because service account %s does not reference that imagePullSecret", i, ref.Name, sa.Name))
		}
	}
	return nil
}

// judgeEphemeral does so for the containers that are added to a running pod.
func (p *Plugin) judgeEphemeral(a *admission.Attributes, pod *corev1.Pod, sa *corev1.ServiceAccount) error {
	if !restricts(sa) {
		return nil
	}
	for i := range pod.Spec.EphemeralContainers {
		c := &pod.Spec.EphemeralContainers[i]
		if err := judgeEnvironment("ephemeral container "+c.Name, c.Env, c.EnvFrom, sa); err != nil {
			return a.Forbidden(err)
		}
	}
	return nil
}

func judgeEnvironment(where string, env []corev1.EnvVar, from []corev1.EnvFromSource, sa *corev1.ServiceAccount) error {
	const refused = "referencing secret.secretName=\"%s\" is not allowed because service account %s does not reference that secret"
	for i := range env {
		if v := env[i].ValueFrom; v != nil && v.SecretKeyRef != nil && !mountable(sa, v.SecretKeyRef.Name) {
			return fmt.Errorf("%s with envVar %s "+refused, where, env[i].Name, v.SecretKeyRef.Name, sa.Name)
		}
	}
	for i := range from {
		if s := from[i].SecretRef; s != nil && !mountable(sa, s.Name) {
			return fmt.Errorf("%s with envFrom "+refused, where, s.Name, sa.Name)
		}
	}
	return nil
}

func mountable(sa *corev1.ServiceAccount, name string) bool {
	return slices.ContainsFunc(sa.Secrets, func(s corev1.ObjectReference) bool { return s.Name == name })
}
