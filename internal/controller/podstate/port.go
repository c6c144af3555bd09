// SPDX-License-Identifier: Apache-2.0

package podstate

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TargetPort returns the number a pod listens at for a port of a Service; false
// says that the pod has no port of the name the Service asks for.
func TargetPort(pod *corev1.Pod, port *corev1.ServicePort) (int32, bool) {
	if port.TargetPort.Type == intstr.Int {
		if n := port.TargetPort.IntVal; n != 0 {
			return n, true
		}
		return port.Port, true
	}
	named := func(containers []corev1.Container, wanted func(*corev1.Container) bool) (int32, bool) {
		for i := range containers {
			if !wanted(&containers[i]) {
				continue
			}
			for _, p := range containers[i].Ports {
				if p.Name == port.TargetPort.StrVal && p.Protocol == port.Protocol {
					return p.ContainerPort, true
				}
			}
		}
		return 0, false
	}
	if n, ok := named(pod.Spec.Containers, func(*corev1.Container) bool { return true }); ok {
		return n, true
	}
	// Init containers that go on running beside the others serve as they do.
	return named(pod.Spec.InitContainers, func(c *corev1.Container) bool {
		return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	})
}

// Addresses returns all addresses of a pod.
func Addresses(pod *corev1.Pod) []string {
	var out []string
	for _, ip := range pod.Status.PodIPs {
		if ip.IP != "" {
			out = append(out, ip.IP)
		}
	}
	if len(out) == 0 && pod.Status.PodIP != "" {
		out = append(out, pod.Status.PodIP)
	}
	return out
}
