// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
)

// Annotations of pods that later became fields.
const (
	tolerationsAnnotation = "scheduler.alpha.kubernetes.io/tolerations"
	seccompLocalhost      = "localhost/"
	seccompDockerDefault  = "docker/default"
	seccompRuntimeDefault = "runtime/default"
	seccompUnconfined     = "unconfined"
)

// ValidateTemplate checks a pod template at p. old is the template before an
// update, or nil: what it already had may stay.
func ValidateTemplate(template, old *corev1.PodTemplateSpec, p *field.Path) field.ErrorList {
	var options Options
	if old != nil {
		options = OptionsFor(&old.Spec)
	}
	spec := p.Child("spec")
	errs := metav1validation.ValidateLabels(template.Labels, p.Child("labels"))
	errs = append(errs, apivalidation.ValidateAnnotations(template.Annotations, p.Child("annotations"))...)
	errs = append(errs, ValidateAnnotations(template.Annotations, &template.Spec, p.Child("annotations"))...)
	errs = append(errs, Validate(&template.Spec, nil, spec, options)...)
	errs = append(errs, ValidateProfiles(template.Annotations, &template.Spec, spec)...)
	if len(template.Spec.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("ephemeralContainers"), "ephemeral containers not allowed in pod template"))
	}
	return errs
}

// ValidateForPod checks what pods, but not templates, must have besides Validate.
func ValidateForPod(spec *corev1.PodSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if spec.ServiceAccountName == "" {
		for i, v := range spec.Volumes {
			if v.Projected == nil {
				continue
			}
			for j, source := range v.Projected.Sources {
				if source.ServiceAccountToken != nil {
					errs = append(errs, field.Forbidden(p.Child("volumes").Index(i).Child("projected", "sources").Index(j).Child("serviceAccountToken"),
						"must not be specified when serviceAccountName is not set"))
				}
			}
		}
	}
	for i := range spec.Containers {
		errs = append(errs, validateImageSpace(&spec.Containers[i], p.Child("containers").Index(i))...)
	}
	for i := range spec.InitContainers {
		errs = append(errs, validateImageSpace(&spec.InitContainers[i], p.Child("initContainers").Index(i))...)
	}
	return errs
}

// ValidateAnnotations checks the annotations of a pod that mean something to
// the cluster.
func ValidateAnnotations(annotations map[string]string, spec *corev1.PodSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if value, mirror := annotations[corev1.MirrorPodAnnotationKey]; mirror && spec.NodeName == "" {
		errs = append(errs, field.Invalid(p.Key(corev1.MirrorPodAnnotationKey), value, "must set spec.nodeName if mirror pod annotation is set"))
	}
	if value := annotations[tolerationsAnnotation]; value != "" {
		var tolerations []corev1.Toleration
		if err := json.Unmarshal([]byte(value), &tolerations); err != nil {
			errs = append(errs, field.Invalid(p, tolerationsAnnotation, err.Error()))
		} else {
			errs = append(errs, ValidateTolerations(tolerations, p.Child(tolerationsAnnotation))...)
		}
	}
	if value, ok := annotations[corev1.PodDeletionCost]; ok && !isDeletionCost(value) {
		errs = append(errs, field.Invalid(p.Key(corev1.PodDeletionCost), value, "must be a 32bit integer"))
	}
	for _, key := range rule.SortedKeys(annotations) {
		value := annotations[key]
		if key == corev1.SeccompPodAnnotationKey || strings.HasPrefix(key, corev1.SeccompContainerAnnotationKeyPrefix) {
			errs = append(errs, validateSeccompAnnotation(value, p.Child(key))...)
		}
		if name, ok := strings.CutPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix); ok {
			if !hasContainer(spec, name) {
				errs = append(errs, field.Invalid(p.Key(key), name, "container not found"))
			}
			switch {
			case value == "", value == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault, value == corev1.DeprecatedAppArmorBetaProfileNameUnconfined,
				strings.HasPrefix(value, corev1.DeprecatedAppArmorBetaProfileNamePrefix):
			default:
				errs = append(errs, field.Invalid(p.Key(key), value, fmt.Sprintf("invalid AppArmor profile name: %q", value)))
			}
		}
	}
	return errs
}

// isDeletionCost says whether s is a 32-bit number without a plus or leading zeros.
func isDeletionCost(s string) bool {
	if s == "" || strings.HasPrefix(s, "+") || len(s) > 1 && s[0] == '0' {
		return false
	}
	_, err := strconv.ParseInt(s, 10, 32)
	return err == nil
}

func hasContainer(spec *corev1.PodSpec, name string) bool {
	found := false
	visit(spec, nil, func(c *corev1.Container, _ *field.Path) { found = found || c.Name == name })
	return found
}

func validateSeccompAnnotation(value string, p *field.Path) field.ErrorList {
	switch value {
	case seccompRuntimeDefault, seccompDockerDefault, seccompUnconfined:
		return nil
	}
	if local, ok := strings.CutPrefix(value, seccompLocalhost); ok {
		return rule.Descending(local, p)
	}
	return field.ErrorList{field.Invalid(p, value, "must be a valid seccomp profile")}
}

// ValidateProfiles requires seccomp and AppArmor profiles that stand both in
// annotations and in fields to be the same.
func ValidateProfiles(annotations map[string]string, spec *corev1.PodSpec, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if sc := spec.SecurityContext; sc != nil && sc.SeccompProfile != nil {
		if value, ok := annotations[corev1.SeccompPodAnnotationKey]; ok {
			errs = append(errs, matchSeccomp(value, sc.SeccompProfile, p.Child("securityContext", "seccompProfile"))...)
		}
	}
	visit(spec, p, func(c *corev1.Container, p *field.Path) {
		if c.SecurityContext == nil || c.SecurityContext.SeccompProfile == nil {
			return
		}
		if value, ok := annotations[corev1.SeccompContainerAnnotationKeyPrefix+c.Name]; ok {
			errs = append(errs, matchSeccomp(value, c.SecurityContext.SeccompProfile, p.Child("securityContext", "seccompProfile"))...)
		}
	})
	if spec.OS != nil && spec.OS.Name == corev1.Windows {
		return errs
	}
	visit(spec, p, func(c *corev1.Container, p *field.Path) {
		profile := appArmorOf(spec, c)
		value, ok := annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name]
		if profile != nil && ok {
			errs = append(errs, matchAppArmor(value, profile, p.Child("securityContext", "appArmorProfile"))...)
		}
	})
	return errs
}

// appArmorOf is the profile of a container, its own or its pod's.
func appArmorOf(spec *corev1.PodSpec, c *corev1.Container) *corev1.AppArmorProfile {
	if c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
		return c.SecurityContext.AppArmorProfile
	}
	if spec.SecurityContext != nil {
		return spec.SecurityContext.AppArmorProfile
	}
	return nil
}

func matchSeccomp(value string, s *corev1.SeccompProfile, p *field.Path) field.ErrorList {
	mismatch := field.ErrorList{field.Forbidden(p.Child("type"), "seccomp type in annotation and field must match")}
	switch s.Type {
	case corev1.SeccompProfileTypeUnconfined:
		if value != seccompUnconfined {
			return mismatch
		}
	case corev1.SeccompProfileTypeRuntimeDefault:
		if value != seccompRuntimeDefault && value != seccompDockerDefault {
			return mismatch
		}
	case corev1.SeccompProfileTypeLocalhost:
		local, ok := strings.CutPrefix(value, seccompLocalhost)
		if !ok {
			return mismatch
		}
		if s.LocalhostProfile == nil || *s.LocalhostProfile != local {
			return field.ErrorList{field.Forbidden(p.Child("localhostProfile"), "seccomp profile in annotation and field must match")}
		}
	}
	return nil
}

func matchAppArmor(value string, s *corev1.AppArmorProfile, p *field.Path) field.ErrorList {
	mismatch := field.ErrorList{field.Forbidden(p.Child("type"), "apparmor type in annotation and field must match")}
	switch s.Type {
	case corev1.AppArmorProfileTypeUnconfined:
		if value != corev1.DeprecatedAppArmorBetaProfileNameUnconfined {
			return mismatch
		}
	case corev1.AppArmorProfileTypeRuntimeDefault:
		if value != corev1.DeprecatedAppArmorBetaProfileRuntimeDefault {
			return mismatch
		}
	case corev1.AppArmorProfileTypeLocalhost:
		local, ok := strings.CutPrefix(value, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
		if !ok {
			return mismatch
		}
		if s.LocalhostProfile == nil || *s.LocalhostProfile != local {
			return field.ErrorList{field.Forbidden(p.Child("localhostProfile"), "apparmor profile in annotation and field must match")}
		}
	}
	return nil
}

// MergeMatchLabelKeys adds to the selectors of affinity and spread what their
// matchLabelKeys and mismatchLabelKeys mean for a pod with these labels (KEPs
// 3633 and 3243).
func MergeMatchLabelKeys(spec *corev1.PodSpec, labels map[string]string) {
	merge := func(selector *metav1.LabelSelector, keys []string, operator metav1.LabelSelectorOperator) {
		if selector == nil {
			return
		}
		for _, key := range keys {
			if value, ok := labels[key]; ok {
				selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: operator, Values: []string{value}})
			}
		}
	}
	for _, term := range affinityTerms(spec.Affinity) {
		merge(term.LabelSelector, term.MatchLabelKeys, metav1.LabelSelectorOpIn)
		merge(term.LabelSelector, term.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	}
	for i := range spec.TopologySpreadConstraints {
		c := &spec.TopologySpreadConstraints[i]
		merge(c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn)
	}
}
