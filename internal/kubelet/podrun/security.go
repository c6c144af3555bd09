// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/compose"
)

// The parts of /proc and /sys that containers do not see or cannot write.
var (
	maskedPaths = []string{"/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/asound", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// namespaces are those that a pod shares with the node or within itself.
func namespaces(pod *corev1.Pod) *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace {
		o.Pid = runtimeapi.NamespaceMode_POD
	}
	if pod.Spec.HostNetwork {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostPID {
		o.Pid = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		o.Ipc = runtimeapi.NamespaceMode_NODE
	}
	return o
}

// effective lays a container's security context over the pod's.
func effective(pod *corev1.Pod, c *corev1.Container) *corev1.SecurityContext {
	s := &corev1.SecurityContext{}
	if own := c.SecurityContext; own != nil {
		s = own.DeepCopy()
	}
	p := pod.Spec.SecurityContext
	if p == nil {
		return s
	}
	if s.RunAsUser == nil {
		s.RunAsUser = p.RunAsUser
	}
	if s.RunAsGroup == nil {
		s.RunAsGroup = p.RunAsGroup
	}
	if s.RunAsNonRoot == nil {
		s.RunAsNonRoot = p.RunAsNonRoot
	}
	if s.SELinuxOptions == nil {
		s.SELinuxOptions = p.SELinuxOptions
	}
	if s.SeccompProfile == nil {
		s.SeccompProfile = p.SeccompProfile
	}
	if s.AppArmorProfile == nil {
		s.AppArmorProfile = p.AppArmorProfile
	}
	return s
}

// ImageUser is the user that an image asks for.
type ImageUser struct {
	UID  *int64
	Name string
}

func (r *Runner) security(pod *corev1.Pod, c *corev1.Container, user ImageUser, options *Options) (*runtimeapi.LinuxContainerSecurityContext, error) {
	s := effective(pod, c)
	if err := verifyNonRoot(pod, c, s, user); err != nil {
		return nil, err
	}
	out := &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions: namespaces(pod),
		Seccomp:          r.seccomp(s.SeccompProfile, s.Privileged != nil && *s.Privileged),
		Apparmor:         apparmor(pod, c, s),
		SelinuxOptions:   selinux(s.SELinuxOptions),
	}
	switch {
	case s.RunAsUser != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: *s.RunAsUser}
	case user.UID != nil:
		out.RunAsUser = &runtimeapi.Int64Value{Value: *user.UID}
	default:
		out.RunAsUsername = user.Name
	}
	if s.RunAsGroup != nil {
		out.RunAsGroup = &runtimeapi.Int64Value{Value: *s.RunAsGroup}
	}
	if s.Privileged != nil {
		out.Privileged = *s.Privileged
	}
	if s.ReadOnlyRootFilesystem != nil {
		out.ReadonlyRootfs = *s.ReadOnlyRootFilesystem
	}
	if s.AllowPrivilegeEscalation != nil {
		out.NoNewPrivs = !*s.AllowPrivilegeEscalation
	}
	if s.Capabilities != nil {
		out.Capabilities = &runtimeapi.Capability{}
		for _, add := range s.Capabilities.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(add))
		}
		for _, drop := range s.Capabilities.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(drop))
		}
	}
	if s.ProcMount == nil || *s.ProcMount != corev1.UnmaskedProcMount {
		out.MaskedPaths, out.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	groups(pod, out, options)
	return out, nil
}

func groups(pod *corev1.Pod, out *runtimeapi.LinuxContainerSecurityContext, options *Options) {
	if p := pod.Spec.SecurityContext; p != nil {
		if p.FSGroup != nil {
			out.SupplementalGroups = append(out.SupplementalGroups, *p.FSGroup)
		}
		out.SupplementalGroups = append(out.SupplementalGroups, p.SupplementalGroups...)
		if p.SupplementalGroupsPolicy != nil && *p.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict {
			out.SupplementalGroupsPolicy = runtimeapi.SupplementalGroupsPolicy_Strict
		}
	}
	if options != nil {
		out.SupplementalGroups = append(out.SupplementalGroups, options.SupplementalGroups...)
	}
}

func (r *Runner) seccomp(p *corev1.SeccompProfile, privileged bool) *runtimeapi.SecurityProfile {
	switch {
	case p == nil && r.cfg.SeccompDefault && !privileged:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	case p == nil, p.Type == corev1.SeccompProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	case p.Type == corev1.SeccompProfileTypeLocalhost && p.LocalhostProfile != nil:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost,
			LocalhostRef: filepath.Join(r.cfg.SeccompRoot, filepath.Clean("/"+*p.LocalhostProfile))}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
}

func apparmor(pod *corev1.Pod, c *corev1.Container, s *corev1.SecurityContext) *runtimeapi.SecurityProfile {
	p := s.AppArmorProfile
	if p == nil {
		switch value := pod.Annotations["container.apparmor.security.beta.kubernetes.io/"+c.Name]; {
		case value == "runtime/default":
			return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
		case value == "unconfined":
			return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
		}
		return nil
	}
	switch p.Type {
	case corev1.AppArmorProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
	case corev1.AppArmorProfileTypeLocalhost:
		if p.LocalhostProfile != nil {
			return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: *p.LocalhostProfile}
		}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
}

func selinux(o *corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func verifyNonRoot(pod *corev1.Pod, c *corev1.Container, s *corev1.SecurityContext, user ImageUser) error {
	if s.RunAsNonRoot == nil || !*s.RunAsNonRoot {
		return nil
	}
	where := fmt.Sprintf("(pod: %q, container: %s)", describe(pod), c.Name)
	switch {
	case s.RunAsUser != nil && *s.RunAsUser == 0:
		return &compose.ConfigError{Message: "container's runAsUser breaks non-root policy " + where}
	case s.RunAsUser != nil:
		return nil
	case user.UID != nil && *user.UID == 0:
		return &compose.ConfigError{Message: "container has runAsNonRoot and image will run as root " + where}
	case user.UID == nil && user.Name != "":
		return &compose.ConfigError{Message: fmt.Sprintf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", user.Name, where)}
	case user.UID == nil:
		return &compose.ConfigError{Message: "container has runAsNonRoot and image will run as root " + where}
	}
	return nil
}
