// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// DropDisabled clears the fields behind gates that are off by default in 1.37,
// unless old had them. Templates and pods lose them alike.
func DropDisabled(spec, old *corev1.PodSpec) {
	had := func(has func(*corev1.PodSpec) bool) bool { return old != nil && has(old) }
	if !had(func(s *corev1.PodSpec) bool { return s.SchedulingGroup != nil }) {
		spec.SchedulingGroup = nil
	}
	if !had(func(s *corev1.PodSpec) bool { return len(s.EvictionResponders) > 0 }) {
		spec.EvictionResponders = nil
	}
	for i := range spec.Volumes {
		if s := spec.Volumes[i].EmptyDir; s != nil && !had(hasEmptyDirMode) {
			s.Mode = nil
		}
	}
	if !had(hasFileOwners) {
		fileOwners(spec, func(owner **int64) { *owner = nil })
	}
	if !had(hasProbeModes) {
		handlers(spec, func(get *corev1.HTTPGetAction, call *corev1.GRPCAction) {
			if get != nil {
				get.Protocol = nil
			}
			if call != nil {
				call.Mode = nil
			}
		})
	}
	if !had(hasBindMountOptions) {
		visit(spec, nil, func(c *corev1.Container, _ *field.Path) {
			for i := range c.VolumeMounts {
				c.VolumeMounts[i].BindMountOptions = nil
			}
		})
	}
	if !had(hasStopSignal) {
		visit(spec, nil, func(c *corev1.Container, _ *field.Path) {
			if c.Lifecycle == nil || c.Lifecycle.StopSignal == nil {
				return
			}
			c.Lifecycle.StopSignal = nil
			if *c.Lifecycle == (corev1.Lifecycle{}) {
				c.Lifecycle = nil
			}
		})
	}
}

func hasEmptyDirMode(spec *corev1.PodSpec) bool {
	for _, v := range spec.Volumes {
		if v.EmptyDir != nil && v.EmptyDir.Mode != nil {
			return true
		}
	}
	return false
}

func hasBindMountOptions(spec *corev1.PodSpec) bool {
	found := false
	visit(spec, nil, func(c *corev1.Container, _ *field.Path) {
		for _, m := range c.VolumeMounts {
			found = found || len(m.BindMountOptions) > 0
		}
	})
	return found
}

func hasStopSignal(spec *corev1.PodSpec) bool {
	found := false
	visit(spec, nil, func(c *corev1.Container, _ *field.Path) {
		found = found || c.Lifecycle != nil && c.Lifecycle.StopSignal != nil
	})
	return found
}

// fileOwners hands over every field that says whose the files of a volume are
// (AtomicWriteVolumeUserFields).
func fileOwners(spec *corev1.PodSpec, f func(owner **int64)) {
	keys := func(items []corev1.KeyToPath) {
		for i := range items {
			f(&items[i].User)
		}
	}
	files := func(items []corev1.DownwardAPIVolumeFile) {
		for i := range items {
			f(&items[i].User)
		}
	}
	for i := range spec.Volumes {
		v := &spec.Volumes[i]
		if s := v.Secret; s != nil {
			f(&s.DefaultUser)
			keys(s.Items)
		}
		if s := v.ConfigMap; s != nil {
			f(&s.DefaultUser)
			keys(s.Items)
		}
		if s := v.DownwardAPI; s != nil {
			f(&s.DefaultUser)
			files(s.Items)
		}
		if s := v.Projected; s != nil {
			f(&s.DefaultUser)
			for j := range s.Sources {
				projectedOwners(&s.Sources[j], f, keys, files)
			}
		}
	}
}

func projectedOwners(s *corev1.VolumeProjection, f func(**int64), keys func([]corev1.KeyToPath), files func([]corev1.DownwardAPIVolumeFile)) {
	if s.Secret != nil {
		keys(s.Secret.Items)
	}
	if s.ConfigMap != nil {
		keys(s.ConfigMap.Items)
	}
	if s.DownwardAPI != nil {
		files(s.DownwardAPI.Items)
	}
	if s.ServiceAccountToken != nil {
		f(&s.ServiceAccountToken.User)
	}
	if s.ClusterTrustBundle != nil {
		f(&s.ClusterTrustBundle.User)
	}
	if s.PodCertificate != nil {
		f(&s.PodCertificate.User)
	}
}

func hasFileOwners(spec *corev1.PodSpec) bool {
	found := false
	fileOwners(spec, func(owner **int64) { found = found || *owner != nil })
	return found
}

// handlers hands over every HTTP request and gRPC call that probes and hooks of
// the containers make.
func handlers(spec *corev1.PodSpec, f func(*corev1.HTTPGetAction, *corev1.GRPCAction)) {
	visit(spec, nil, func(c *corev1.Container, _ *field.Path) {
		for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			if probe != nil {
				f(probe.HTTPGet, probe.GRPC)
			}
		}
		if c.Lifecycle == nil {
			return
		}
		for _, hook := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if hook != nil {
				f(hook.HTTPGet, nil)
			}
		}
	})
}

// hasProbeModes says whether a probe asks for HTTP/2 (H2CContainerProbe) or a
// mode of gRPC (GRPCContainerProbeTLS).
func hasProbeModes(spec *corev1.PodSpec) bool {
	found := false
	handlers(spec, func(get *corev1.HTTPGetAction, call *corev1.GRPCAction) {
		found = found || get != nil && get.Protocol != nil || call != nil && call.Mode != nil
	})
	return found
}

// DropDisabledStatus is DropDisabled for what is told of a pod.
func DropDisabledStatus(status, old *corev1.PodStatus) {
	if len(old.NodeAllocatableResourceClaimStatuses) == 0 {
		status.NodeAllocatableResourceClaimStatuses = nil
	}
	if hasVolumeStatus(old) {
		return
	}
	for _, statuses := range containerStatuses(status) {
		for i := range statuses {
			for j := range statuses[i].VolumeMounts {
				statuses[i].VolumeMounts[j].VolumeStatus = nil
			}
		}
	}
}

func hasVolumeStatus(status *corev1.PodStatus) bool {
	for _, statuses := range containerStatuses(status) {
		for i := range statuses {
			for _, m := range statuses[i].VolumeMounts {
				if m.VolumeStatus != nil {
					return true
				}
			}
		}
	}
	return false
}

func containerStatuses(status *corev1.PodStatus) [][]corev1.ContainerStatus {
	return [][]corev1.ContainerStatus{status.InitContainerStatuses, status.ContainerStatuses, status.EphemeralContainerStatuses}
}
