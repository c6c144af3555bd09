// SPDX-License-Identifier: Apache-2.0

package apps

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/podspec"
)

// setDefault gives a field that is absent its default.
func setDefault[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

// count is a field that must not be negative.
type count struct {
	name  string
	value int64
}

// optional is the count of a field that may be absent.
func optional[T int32 | int64](name string, value *T) count {
	if value == nil {
		return count{name, 0}
	}
	return count{name, int64(*value)}
}

func validateCounts(path *field.Path, counts ...count) field.ErrorList {
	var errs field.ErrorList
	for _, c := range counts {
		errs = append(errs, apivalidation.ValidateNonnegativeField(c.value, path.Child(c.name))...)
	}
	return errs
}

// validateAtMost reports the counts above limit.
func validateAtMost(path *field.Path, limit int32, detail string, counts ...count) field.ErrorList {
	var errs field.ErrorList
	for _, c := range counts {
		if c.value > int64(limit) {
			errs = append(errs, field.Invalid(path.Child(c.name), int32(c.value), detail))
		}
	}
	return errs
}

// validateCollisionCount holds a collision count to never going down.
func validateCollisionCount(count, old *int32) field.ErrorList {
	path := field.NewPath("status", "collisionCount")
	switch {
	case old == nil:
		return nil
	case count == nil:
		return field.ErrorList{field.Invalid(path, int32(0), "cannot be decremented")}
	case *count < *old:
		return field.ErrorList{field.Invalid(path, *count, "cannot be decremented")}
	}
	return nil
}

// validateSelector checks the selector of a workload; kind names it in errors.
func validateSelector(selector *metav1.LabelSelector, kind string, path *field.Path) field.ErrorList {
	if selector == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	errs := metavalidation.ValidateLabelSelector(selector, metavalidation.LabelSelectorValidationOptions{}, path)
	return append(errs, validateSelectorNotEmpty(selector, kind, path)...)
}

func validateSelectorNotEmpty(selector *metav1.LabelSelector, kind string, path *field.Path) field.ErrorList {
	if selector != nil && len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		return field.ErrorList{field.Invalid(path, selector, "empty selector is invalid for "+kind)}
	}
	return nil
}

// validateSelected reports a template that selector does not select.
func validateSelected(template *corev1.PodTemplateSpec, selector labels.Selector, path *field.Path) field.ErrorList {
	if selector.Empty() || selector.Matches(labels.Set(template.Labels)) {
		return nil
	}
	return field.ErrorList{field.Invalid(path.Child("metadata", "labels"), template.Labels, "`selector` does not match template `labels`")}
}

// validateEndless reports templates of pods that would end by themselves; kind
// names the workload in errors.
func validateEndless(template *corev1.PodTemplateSpec, kind string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if policy := template.Spec.RestartPolicy; policy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(path.Child("spec", "restartPolicy"), policy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if template.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(path.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in "+kind+" is not Supported"))
	}
	return errs
}

// validateReplicated checks the template of a Deployment or ReplicaSet.
func validateReplicated(template, old *corev1.PodTemplateSpec, selector *metav1.LabelSelector, path *field.Path) field.ErrorList {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return field.ErrorList{field.Invalid(path.Child("selector"), selector, "invalid label selector")}
	}
	templatePath := path.Child("template")
	errs := validateSelected(template, parsed, templatePath)
	errs = append(errs, podspec.ValidateTemplate(template, old, templatePath)...)
	return append(errs, validateEndless(template, "ReplicaSet", templatePath)...)
}

// validateIntOrPercent accepts a number that is not negative, or a percentage.
func validateIntOrPercent(value intstr.IntOrString, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch value.Type {
	case intstr.String:
		for _, msg := range validation.IsValidPercent(value.StrVal) {
			errs = append(errs, field.Invalid(path, value, msg))
		}
	case intstr.Int:
		errs = apivalidation.ValidateNonnegativeField(int64(value.IntValue()), path)
	default:
		errs = append(errs, field.Invalid(path, value, "must be an integer or percentage (e.g '5%%')"))
	}
	return errs
}

// validateAtMostAll refuses more than 100%.
func validateAtMostAll(value intstr.IntOrString, path *field.Path) field.ErrorList {
	if p, ok := percent(value); ok && p > 100 {
		return field.ErrorList{field.Invalid(path, value, "must not be greater than 100%")}
	}
	return nil
}

func percent(value intstr.IntOrString) (int, bool) {
	if value.Type != intstr.String || len(validation.IsValidPercent(value.StrVal)) > 0 {
		return 0, false
	}
	p, _ := strconv.Atoi(value.StrVal[:len(value.StrVal)-1]) // the largest int when it is too large
	return p, true
}

// amount is the bare number of a count or percentage, zero when absent.
func amount(value *intstr.IntOrString) int {
	if value == nil {
		return 0
	}
	if p, ok := percent(*value); ok {
		return p
	}
	return value.IntValue()
}

// orZero is the value that an absent count or percentage stands for.
func orZero(value *intstr.IntOrString) intstr.IntOrString {
	if value == nil {
		return intstr.IntOrString{}
	}
	return *value
}

// podNameWarnings warns of workload names that do not suit the pods.
func podNameWarnings(name string) []string {
	if msgs := validation.IsDNS1123Label(name); len(msgs) != 0 {
		return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", msgs)}
	}
	return nil
}
