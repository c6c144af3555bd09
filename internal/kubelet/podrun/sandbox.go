// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
)

// PodLogDir is where a pod's logs are.
func (r *Runner) PodLogDir(pod *corev1.Pod) string {
	return filepath.Join(r.cfg.LogDir, fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID))
}

// sandboxConfig describes the sandbox of a pod.
func (r *Runner) sandboxConfig(pod *corev1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt},
		Labels:       actual.PodLabels(pod),
		Annotations:  maps.Clone(pod.Annotations),
		LogDirectory: r.PodLogDir(pod),
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			Sysctls: map[string]string{},
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: namespaces(pod),
				Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
	for _, c := range podContainers(pod) {
		for _, p := range c.Ports {
			if p.HostPort == 0 || pod.Spec.HostNetwork {
				continue
			}
			config.PortMappings = append(config.PortMappings, &runtimeapi.PortMapping{
				Protocol: protocol(p.Protocol), ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP})
		}
		if s := c.SecurityContext; s != nil && s.Privileged != nil && *s.Privileged {
			config.Linux.SecurityContext.Privileged = true
		}
	}
	for name, value := range r.cfg.Sysctls {
		name = strings.ReplaceAll(name, "/", ".")
		own := !strings.HasPrefix(name, "net.") // of the pod's other namespaces, which is IPC
		if own && !pod.Spec.HostIPC || !own && !pod.Spec.HostNetwork {
			config.Linux.Sysctls[name] = value
		}
	}
	if s := pod.Spec.SecurityContext; s != nil {
		security := config.Linux.SecurityContext
		for _, sysctl := range s.Sysctls {
			config.Linux.Sysctls[sysctl.Name] = sysctl.Value
		}
		if s.RunAsUser != nil {
			security.RunAsUser = &runtimeapi.Int64Value{Value: *s.RunAsUser}
		}
		if s.RunAsGroup != nil {
			security.RunAsGroup = &runtimeapi.Int64Value{Value: *s.RunAsGroup}
		}
		if s.FSGroup != nil {
			security.SupplementalGroups = append(security.SupplementalGroups, *s.FSGroup)
		}
		security.SupplementalGroups = append(security.SupplementalGroups, s.SupplementalGroups...)
		if s.SupplementalGroupsPolicy != nil && *s.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
			security.SupplementalGroupsPolicy = runtimeapi.SupplementalGroupsPolicy_Strict
		}
		security.SelinuxOptions = selinux(s.SELinuxOptions)
	}
	if len(pod.Spec.Overhead) > 0 {
		config.Linux.Overhead = &runtimeapi.LinuxContainerResources{
			CpuShares: Shares(pod.Spec.Overhead.Cpu().MilliValue()), MemoryLimitInBytes: pod.Spec.Overhead.Memory().Value()}
	}
	if err := r.cfg.Host.Sandbox(pod, config); err != nil {
		return nil, err
	}
	return config, nil
}

func podContainers(pod *corev1.Pod) []*corev1.Container {
	var all []*corev1.Container
	for i := range pod.Spec.InitContainers {
		all = append(all, &pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		all = append(all, &pod.Spec.Containers[i])
	}
	return all
}

func protocol(p corev1.Protocol) runtimeapi.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case corev1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	}
	return runtimeapi.Protocol_TCP
}

// runSandbox makes the sandbox; the error is the text for its event.
func (r *Runner) runSandbox(ctx context.Context, pod *corev1.Pod, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	if err := os.MkdirAll(config.LogDirectory, 0o755); err != nil {
		return "", fmt.Errorf("failed to create log directory %q: %w", config.LogDirectory, err)
	}
	answer, err := r.cfg.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	r.counted("podsandbox", err)
	if err != nil {
		return "", fmt.Errorf("Failed to create pod sandbox: %s", rpcMessage(err)) //nolint:staticcheck // the text of the event
	}
	return answer.PodSandboxId, nil
}

// rpcMessage writes an error of the runtime as upstream shows it.
func rpcMessage(err error) string {
	if s, ok := status.FromError(err); ok {
		return fmt.Sprintf("rpc error: code = %s desc = %s", s.Code(), s.Message())
	}
	return err.Error()
}

// plainMessage is an error of the runtime without its code.
func plainMessage(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}
