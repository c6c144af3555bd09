// SPDX-License-Identifier: Apache-2.0

package core

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"

	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
)

// The annotations in which taints and avoided pods were kept before they were
// fields.
const (
	taintsAnnotation    = "scheduler.alpha.kubernetes.io/taints"
	avoidPodsAnnotation = "scheduler.alpha.kubernetes.io/preferAvoidPods"
)

func validateNode(n *corev1.Node) field.ErrorList {
	meta := field.NewPath("metadata")
	errs := validateNodeAnnotations(n.Annotations, meta.Child("annotations"))
	errs = append(errs, validateTaints(n.Spec.Taints, meta.Child("taints"))...)
	errs = append(errs, validateNodeResources(n)...)
	if swap := n.Status.NodeInfo.Swap; swap != nil && swap.Capacity != nil && *swap.Capacity <= 0 {
		errs = append(errs, field.Invalid(meta.Child("nodeSwapStatus", "capacity"), *swap.Capacity, rule.NotPositive))
	}
	errs = append(errs, validateDeclaredFeatures(n.Status.DeclaredFeatures, field.NewPath("status", "declaredFeatures"))...)
	p := field.NewPath("spec", "podCIDRs")
	for i, cidr := range n.Spec.PodCIDRs {
		errs = append(errs, legacyCIDR(p.Index(i), cidr)...)
	}
	if len(n.Spec.PodCIDRs) > 1 {
		dual, err := netutils.IsDualStackCIDRStrings(n.Spec.PodCIDRs)
		if err != nil {
			errs = append(errs, field.InternalError(p, fmt.Errorf("invalid PodCIDRs. failed to check with dual stack with error:%w", err)))
		}
		if !dual || len(n.Spec.PodCIDRs) > 2 {
			errs = append(errs, field.Invalid(p, n.Spec.PodCIDRs, "may specify no more than one CIDR for each IP family"))
		}
	}
	return errs
}

func validateNodeResources(n *corev1.Node) field.ErrorList {
	var errs field.ErrorList
	for list, resources := range map[string]corev1.ResourceList{"capacity": n.Status.Capacity, "allocatable": n.Status.Allocatable} {
		for _, name := range rule.SortedKeys(resources) {
			errs = append(errs, rule.Quantity(name, resources[name], field.NewPath("status", list, string(name)))...)
		}
	}
	return errs
}

func validateNodeAnnotations(annotations map[string]string, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if value := annotations[taintsAnnotation]; value != "" {
		var taints []corev1.Taint
		if err := json.Unmarshal([]byte(value), &taints); err != nil {
			errs = append(errs, field.Invalid(p, taintsAnnotation, err.Error()))
		}
		errs = append(errs, validateTaints(taints, p.Child(taintsAnnotation))...)
	}
	if value := annotations[avoidPodsAnnotation]; value != "" {
		var avoided corev1.AvoidPods
		if err := json.Unmarshal([]byte(value), &avoided); err != nil {
			return append(errs, field.Invalid(p.Child("AvoidPods"), avoidPodsAnnotation, err.Error()))
		}
		for i := range avoided.PreferAvoidPods {
			errs = append(errs, validateAvoidedPod(&avoided.PreferAvoidPods[i], p.Child(avoidPodsAnnotation).Index(i))...)
		}
	}
	return errs
}

func validateAvoidedPod(entry *corev1.PreferAvoidPodsEntry, p *field.Path) field.ErrorList {
	p = p.Child("PodSignature")
	controller := entry.PodSignature.PodController
	if controller == nil {
		return field.ErrorList{field.Required(p, "")}
	}
	if controller.Controller == nil || !*controller.Controller {
		return field.ErrorList{field.Invalid(p.Child("PodController").Child("Controller"), controller.Controller, "must point to a controller")}
	}
	return nil
}

func validateTaints(taints []corev1.Taint, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[corev1.Taint]()
	for i, taint := range taints {
		p := p.Index(i)
		errs = append(errs, metav1validation.ValidateLabelName(taint.Key, p.Child("key"))...)
		if messages := validation.IsValidLabelValue(taint.Value); len(messages) > 0 {
			errs = append(errs, field.Invalid(p.Child("value"), taint.Value, strings.Join(messages, ";")))
		}
		errs = append(errs, rule.TaintEffect(taint.Effect, p.Child("effect"))...)
		key := corev1.Taint{Key: taint.Key, Effect: taint.Effect}
		if seen.Has(key) {
			duplicate := field.Duplicate(p, badvalue.Of(taint))
			duplicate.Detail = "taints must be unique by key and effect pair"
			errs = append(errs, duplicate)
		}
		seen.Insert(key)
	}
	return errs
}

var featureName = regexp.MustCompile(`^[A-Z][a-zA-Z0-9]*(/[a-zA-Z0-9]+)*$`)

func validateDeclaredFeatures(names []string, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range names {
		if len(name) > validation.DNS1123SubdomainMaxLength {
			errs = append(errs, field.Invalid(p.Index(i), name,
				fmt.Sprintf("invalid feature name %q: must be no more than %d characters", name, validation.DNS1123SubdomainMaxLength)))
		} else if !featureName.MatchString(name) {
			errs = append(errs, field.Invalid(p.Index(i), name, fmt.Sprintf("invalid feature name %q: must start with an UpperCamelCase segment, "+
				"with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes", name)))
		}
		if i == 0 {
			continue
		}
		if names[i-1] == name {
			errs = append(errs, field.Duplicate(p.Index(i), name))
		} else if names[i-1] > name {
			errs = append(errs, field.Invalid(p.Index(i), name, "list must be sorted alphabetically"))
		}
	}
	return errs
}

// validateNodeUpdate judges a changed node; each mistake is reported once.
func validateNodeUpdate(n, old *corev1.Node) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for _, err := range append(validateNode(n), validateNodeChange(n, old)...) {
		if message := err.Error(); !seen.Has(message) {
			seen.Insert(message)
			errs = append(errs, err)
		}
	}
	return errs
}

// validateNodeChange judges what a status update may break, too.
func validateNodeChange(n, old *corev1.Node) field.ErrorList {
	spec, meta := field.NewPath("spec"), field.NewPath("metadata")
	errs := validateNodeAnnotations(n.Annotations, meta.Child("annotations"))
	errs = append(errs, validateNodeResources(n)...)
	errs = append(errs, validateDeclaredFeatures(n.Status.DeclaredFeatures, field.NewPath("status", "declaredFeatures"))...)
	seen := sets.New[corev1.NodeAddress]()
	for i, address := range n.Status.Addresses {
		if seen.Has(address) {
			errs = append(errs, field.Duplicate(field.NewPath("status", "addresses").Index(i), badvalue.Of(address)))
		}
		seen.Insert(address)
	}
	if len(old.Spec.PodCIDRs) > 0 && !slices.Equal(n.Spec.PodCIDRs, old.Spec.PodCIDRs) {
		errs = append(errs, field.Forbidden(spec.Child("podCIDRs"), `node updates may not change podCIDR except from "" to valid`))
	}
	if old.Spec.ProviderID != "" && n.Spec.ProviderID == "" {
		errs = append(errs, field.Invalid(spec.Child("providerID"), nil, "field cannot be cleared once set"))
	} else if old.Spec.ProviderID != "" && n.Spec.ProviderID != old.Spec.ProviderID {
		errs = append(errs, field.Invalid(spec.Child("providerID"), nil, "field cannot be modified once set"))
	}
	if n.Spec.ConfigSource != nil {
		errs = append(errs, validateConfigSource(n.Spec.ConfigSource, false, spec.Child("configSource"))...)
	}
	if config := n.Status.Config; config != nil {
		p := field.NewPath("status", "config")
		for _, source := range []struct {
			name string
			*corev1.NodeConfigSource
		}{{"assigned", config.Assigned}, {"active", config.Active}, {"lastKnownGood", config.LastKnownGood}} {
			if source.NodeConfigSource != nil {
				errs = append(errs, validateConfigSource(source.NodeConfigSource, true, p.Child(source.name))...)
			}
		}
	}
	errs = append(errs, validateTaints(n.Spec.Taints, meta.Child("taints"))...)
	if n.Spec.DoNotUseExternalID != old.Spec.DoNotUseExternalID {
		errs = append(errs, field.Forbidden(spec.Child("externalID"), "may not be updated"))
	}
	return errs
}

// validateConfigSource checks where a node has its configuration from; observed
// says that it is what the node reports, not what it was told.
func validateConfigSource(source *corev1.NodeConfigSource, observed bool, p *field.Path) field.ErrorList {
	m := source.ConfigMap
	if m == nil {
		return field.ErrorList{field.Invalid(p, badvalue.Of(source), "exactly one reference subfield must be non-nil")}
	}
	var errs field.ErrorList
	p = p.Child("configMap")
	pinned := func(name, value string) {
		if observed && value == "" {
			errs = append(errs, field.Required(p.Child(name), ""))
		} else if !observed && value != "" {
			errs = append(errs, field.Forbidden(p.Child(name), name+" must not be set in spec"))
		}
	}
	pinned("uid", string(m.UID))
	pinned("resourceVersion", m.ResourceVersion)
	named := func(name, value string, messages []string) {
		if value == "" {
			errs = append(errs, field.Required(p.Child(name), ""))
		} else {
			errs = append(errs, rule.Messages(p.Child(name), value, messages)...)
		}
	}
	named("namespace", m.Namespace, apivalidation.ValidateNamespaceName(m.Namespace, false))
	named("name", m.Name, apivalidation.NameIsDNSSubdomain(m.Name, false))
	named("kubeletConfigKey", m.KubeletConfigKey, validation.IsConfigMapKey(m.KubeletConfigKey))
	return errs
}
