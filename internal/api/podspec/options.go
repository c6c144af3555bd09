// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/node/util/sysctl"

	"kaji/internal/api/rule"
)

// Options say where a pod spec stands and what its older form may keep: each
// one but Pod lets through what an object stored before the check existed has.
type Options struct {
	// Pod is set for the spec of a pod, clear for one in a template.
	Pod bool

	InvalidSelectorValues     bool // label values in the selectors of pod affinity
	InvalidSpreadSelectors    bool // selectors of topology spread constraints
	InvalidNodeValues         bool // label values in required node affinity
	IndivisibleHugePages      bool // huge pages that are no whole number of pages
	NonLocalTokenPaths        bool // projected tokens outside their volume
	HostSysctls               bool // namespaced sysctls in the host's namespaces
	LegacySpreadKeys          bool // spread keys that the selector holds too
	RestartOnResizeInit       bool // init containers restarted by a resize
	UserVolumeDevices         bool // block devices in pods with users of their own
	EmptyImageVolumeReference bool // image volumes without an image

}

// OptionsFor are the options for a spec that was old before; old is nil on create.
func OptionsFor(old *corev1.PodSpec) Options {
	if old == nil {
		return Options{}
	}
	o := Options{InvalidNodeValues: hasInvalidNodeValues(old)}
	for _, term := range affinityTerms(old.Affinity) {
		if invalidSelector(term.LabelSelector) || invalidSelector(term.NamespaceSelector) {
			o.InvalidSelectorValues = true
		}
	}
	for i := range old.TopologySpreadConstraints {
		c := &old.TopologySpreadConstraints[i]
		if c.LabelSelector != nil && invalidSelector(c.LabelSelector) {
			o.InvalidSpreadSelectors = true
		}
		if len(validateMatchLabelKeys(c.MatchLabelKeys, nil, c.LabelSelector, nil)) > 0 {
			o.LegacySpreadKeys = true
		}
	}
	for i := range old.Volumes {
		v := &old.Volumes[i]
		if v.Projected != nil {
			for _, s := range v.Projected.Sources {
				if s.ServiceAccountToken != nil && len(rule.NonReserved(s.ServiceAccountToken.Path, nil)) > 0 {
					o.NonLocalTokenPaths = true
				}
			}
		}
		if v.Image != nil && v.Image.Reference == "" {
			o.EmptyImageVolumeReference = true
		}
	}
	if sc := old.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			if hostSysctl(old, s.Name) != "" {
				o.HostSysctls = true
			}
		}
	}
	visit(old, nil, func(c *corev1.Container, _ *field.Path) {
		for _, list := range []corev1.ResourceList{c.Resources.Limits, c.Resources.Requests} {
			for name, q := range list {
				if rule.IsHugePages(name) && !rule.HugePagesDivide(name, q) {
					o.IndivisibleHugePages = true
				}
			}
		}
		if len(c.VolumeDevices) > 0 && !usesHostUsers(old) {
			o.UserVolumeDevices = true
		}
	})
	for i := range old.InitContainers {
		for _, policy := range old.InitContainers[i].ResizePolicy {
			if !IsSidecar(&old.InitContainers[i]) && policy.RestartPolicy == corev1.RestartContainer {
				o.RestartOnResizeInit = true
			}
		}
	}
	return o
}

func invalidSelector(s *metav1.LabelSelector) bool {
	return len(metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, nil)) > 0
}

func hasInvalidNodeValues(spec *corev1.PodSpec) bool {
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil {
		return false
	}
	required := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	return required != nil && rule.HasInvalidLabelValue(required.NodeSelectorTerms)
}

// affinityTerms are all terms of pod affinity and anti-affinity.
func affinityTerms(affinity *corev1.Affinity) []*corev1.PodAffinityTerm {
	var terms []*corev1.PodAffinityTerm
	add := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range required {
			terms = append(terms, &required[i])
		}
		for i := range preferred {
			terms = append(terms, &preferred[i].PodAffinityTerm)
		}
	}
	if affinity == nil {
		return nil
	}
	if a := affinity.PodAffinity; a != nil {
		add(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := affinity.PodAntiAffinity; a != nil {
		add(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	return terms
}

// hostSysctl is why a sysctl may not be set on this pod, empty when it may: the
// namespace it belongs to is the host's.
func hostSysctl(spec *corev1.PodSpec, name string) string {
	switch namespace, _, _ := sysctl.GetNamespace(name); {
	case spec.HostNetwork && namespace == sysctl.NetNamespace:
		return "may not be specified when 'hostNetwork' is true"
	case spec.HostIPC && namespace == sysctl.IPCNamespace:
		return "may not be specified when 'hostIPC' is true"
	}
	return ""
}
