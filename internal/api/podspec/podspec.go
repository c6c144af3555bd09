// SPDX-License-Identifier: Apache-2.0

// Package podspec has the rules of pod specs, wherever they stand: in a Pod, in
// the template of a workload or in a PodTemplate. It fills in defaults, checks
// values with the reference implementation's paths and messages, and finds what
// deserves a warning, with the feature gates at their 1.37 defaults.
//
// Packages of kinds call it: core for pods, the workloads' groups for their
// templates. It is pure: it knows no cluster, and what needs one (priority
// classes, service accounts, quotas) is admission's.
package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// visit calls f with every container, the init containers first, and its path.
// Ephemeral containers are visited as containers; the pointer then is to a copy
// of the shape, not of the values.
func visit(spec *corev1.PodSpec, p *field.Path, f func(c *corev1.Container, p *field.Path)) {
	for i := range spec.InitContainers {
		f(&spec.InitContainers[i], p.Child("initContainers").Index(i))
	}
	for i := range spec.Containers {
		f(&spec.Containers[i], p.Child("containers").Index(i))
	}
	for i := range spec.EphemeralContainers {
		f((*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon), p.Child("ephemeralContainers").Index(i))
	}
}

// IsSidecar says whether an init container keeps running beside the others.
func IsSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// usesHostUsers says whether the pod's users are those of the host.
func usesHostUsers(spec *corev1.PodSpec) bool { return spec.HostUsers == nil || *spec.HostUsers }

func isTrue(b *bool) bool { return b != nil && *b }
