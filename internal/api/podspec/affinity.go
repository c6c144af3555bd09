// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
)

const (
	requiredTerms  = "requiredDuringSchedulingIgnoredDuringExecution"
	preferredTerms = "preferredDuringSchedulingIgnoredDuringExecution"
)

func validateAffinity(affinity *corev1.Affinity, options Options, p *field.Path) field.ErrorList {
	if affinity == nil {
		return nil
	}
	var errs field.ErrorList
	if a := affinity.NodeAffinity; a != nil {
		p := p.Child("nodeAffinity")
		if a.RequiredDuringSchedulingIgnoredDuringExecution != nil {
			errs = append(errs, rule.NodeSelector(a.RequiredDuringSchedulingIgnoredDuringExecution, options.InvalidNodeValues, p.Child(requiredTerms))...)
		}
		for i := range a.PreferredDuringSchedulingIgnoredDuringExecution {
			term, p := &a.PreferredDuringSchedulingIgnoredDuringExecution[i], p.Child(preferredTerms).Index(i)
			errs = append(errs, validateWeight(term.Weight, p.Child("weight"))...)
			// A preference that no node can meet harms nobody.
			errs = append(errs, rule.NodeSelectorTerm(&term.Preference, true, p.Child("preference"))...)
		}
	}
	if a := affinity.PodAffinity; a != nil {
		errs = append(errs, validatePodAffinity(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution, options, p.Child("podAffinity"))...)
	}
	if a := affinity.PodAntiAffinity; a != nil {
		errs = append(errs, validatePodAffinity(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution, options, p.Child("podAntiAffinity"))...)
	}
	return errs
}

func validateWeight(weight int32, p *field.Path) field.ErrorList {
	if weight <= 0 || weight > 100 {
		return field.ErrorList{field.Invalid(p, weight, "must be in the range 1-100")}
	}
	return nil
}

func validatePodAffinity(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, options Options, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range required {
		errs = append(errs, validateAffinityTerm(&required[i], options, p.Child(requiredTerms).Index(i))...)
	}
	for i := range preferred {
		p := p.Child(preferredTerms).Index(i)
		errs = append(errs, validateWeight(preferred[i].Weight, p.Child("weight"))...)
		errs = append(errs, validateAffinityTerm(&preferred[i].PodAffinityTerm, options, p.Child("podAffinityTerm"))...)
	}
	return errs
}

func validateAffinityTerm(term *corev1.PodAffinityTerm, options Options, p *field.Path) field.ErrorList {
	loose := metav1validation.LabelSelectorValidationOptions{AllowInvalidLabelValueInSelector: options.InvalidSelectorValues}
	errs := metav1validation.ValidateLabelSelector(term.LabelSelector, loose, p.Child("labelSelector"))
	errs = append(errs, metav1validation.ValidateLabelSelector(term.NamespaceSelector, loose, p.Child("namespaceSelector"))...)
	for _, name := range term.Namespaces {
		errs = append(errs, rule.Messages(p.Child("namespace"), name, apivalidation.ValidateNamespaceName(name, false))...)
	}
	errs = append(errs, validateMatchLabelKeys(term.MatchLabelKeys, term.MismatchLabelKeys, term.LabelSelector, p)...)
	if term.TopologyKey == "" {
		errs = append(errs, field.Required(p.Child("topologyKey"), "can not be empty"))
	}
	return append(errs, metav1validation.ValidateLabelName(term.TopologyKey, p.Child("topologyKey"))...)
}

// validateMatchLabelKeys checks the keys whose values are taken from the pod's
// labels. The server has merged them into the selector before (KEP 3633), so
// that a key the user selects on as well stands there twice.
func validateMatchLabelKeys(match, mismatch []string, selector *metav1.LabelSelector, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, list := range []struct {
		name string
		keys []string
	}{{"matchLabelKeys", match}, {"mismatchLabelKeys", mismatch}} {
		p := p.Child(list.name)
		if len(list.keys) > 0 && selector == nil {
			errs = append(errs, field.Forbidden(p, "must not be specified when labelSelector is not set"))
			continue
		}
		for i, key := range list.keys {
			errs = append(errs, metav1validation.ValidateLabelName(key, p.Index(i))...)
		}
	}
	if selector != nil {
		index := map[string]int{}
		for i, key := range match {
			index[key] = i
		}
		seen := sets.KeySet(selector.MatchLabels)
		for _, expression := range selector.MatchExpressions {
			if i, ok := index[expression.Key]; ok && seen.Has(expression.Key) {
				errs = append(errs, field.Invalid(p.Index(i), expression.Key, "exists in both matchLabelKeys and labelSelector"))
			}
			seen.Insert(expression.Key)
		}
	}
	unwanted := sets.New(mismatch...)
	for i, key := range match {
		if unwanted.Has(key) {
			errs = append(errs, field.Invalid(p.Child("matchLabelKeys").Index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys"))
		}
	}
	return errs
}

// validateUnmergedKeys is validateMatchLabelKeys for constraints stored before
// the server merged the keys.
func validateUnmergedKeys(match []string, selector *metav1.LabelSelector, p *field.Path) field.ErrorList {
	if len(match) == 0 {
		return nil
	}
	var errs field.ErrorList
	selected := sets.New[string]()
	if selector == nil {
		errs = append(errs, field.Forbidden(p, "must not be specified when labelSelector is not set"))
	} else {
		selected = sets.KeySet(selector.MatchLabels)
		for _, expression := range selector.MatchExpressions {
			selected.Insert(expression.Key)
		}
	}
	for i, key := range match {
		errs = append(errs, metav1validation.ValidateLabelName(key, p.Index(i))...)
		if selected.Has(key) {
			errs = append(errs, field.Invalid(p.Index(i), key, "exists in both matchLabelKeys and labelSelector"))
		}
	}
	return errs
}

func validateTopologySpread(constraints []corev1.TopologySpreadConstraint, options Options, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range constraints {
		c, p := &constraints[i], p.Index(i)
		if c.MaxSkew <= 0 {
			errs = append(errs, field.Invalid(p.Child("maxSkew"), c.MaxSkew, rule.NotPositive))
		}
		if c.TopologyKey == "" {
			errs = append(errs, field.Required(p.Child("topologyKey"), "can not be empty"))
		}
		errs = append(errs, rule.OneOf(c.WhenUnsatisfiable, p.Child("whenUnsatisfiable"), corev1.DoNotSchedule, corev1.ScheduleAnyway)...)
		for _, other := range constraints[i+1:] {
			if c.TopologyKey == other.TopologyKey && c.WhenUnsatisfiable == other.WhenUnsatisfiable {
				errs = append(errs, field.Duplicate(p.Child("{topologyKey, whenUnsatisfiable}"), fmt.Sprintf("{%v, %v}", c.TopologyKey, c.WhenUnsatisfiable)))
				break
			}
		}
		if c.MinDomains != nil {
			if *c.MinDomains <= 0 {
				errs = append(errs, field.Invalid(p.Child("minDomains"), *c.MinDomains, rule.NotPositive))
			}
			if c.WhenUnsatisfiable != corev1.DoNotSchedule {
				errs = append(errs, field.Invalid(p.Child("minDomains"), *c.MinDomains,
					fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, c.WhenUnsatisfiable)))
			}
		}
		if c.NodeAffinityPolicy != nil {
			errs = append(errs, rule.OneOf(*c.NodeAffinityPolicy, p.Child("nodeAffinityPolicy"), corev1.NodeInclusionPolicyIgnore, corev1.NodeInclusionPolicyHonor)...)
		}
		if c.NodeTaintsPolicy != nil {
			errs = append(errs, rule.OneOf(*c.NodeTaintsPolicy, p.Child("nodeTaintsPolicy"), corev1.NodeInclusionPolicyIgnore, corev1.NodeInclusionPolicyHonor)...)
		}
		if options.LegacySpreadKeys {
			errs = append(errs, validateUnmergedKeys(c.MatchLabelKeys, c.LabelSelector, p.Child("matchLabelKeys"))...)
		} else {
			errs = append(errs, validateMatchLabelKeys(c.MatchLabelKeys, nil, c.LabelSelector, p)...)
		}
		if !options.InvalidSpreadSelectors {
			errs = append(errs, metav1validation.ValidateLabelSelector(c.LabelSelector, metav1validation.LabelSelectorValidationOptions{}, p.Child("labelSelector"))...)
		}
	}
	return errs
}

// ValidateTolerations checks what taints a pod bears. The comparing operators
// are behind the gate TaintTolerationComparisonOperators.
func ValidateTolerations(tolerations []corev1.Toleration, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range tolerations {
		t, p := &tolerations[i], p.Index(i)
		operator := p.Child("operator")
		if t.Key != "" {
			errs = append(errs, metav1validation.ValidateLabelName(t.Key, p.Child("key"))...)
		} else if t.Operator != corev1.TolerationOpExists {
			errs = append(errs, field.Invalid(operator, t.Operator, "operator must be Exists when `key` is empty, which means \"match all values and all keys\""))
		}
		if t.TolerationSeconds != nil && t.Effect != corev1.TaintEffectNoExecute {
			errs = append(errs, field.Invalid(p.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
		}
		switch t.Operator {
		case corev1.TolerationOpEqual, "":
			if messages := validation.IsValidLabelValue(t.Value); len(messages) > 0 {
				errs = append(errs, field.Invalid(operator, t.Value, strings.Join(messages, ";")))
			}
		case corev1.TolerationOpExists:
			if t.Value != "" {
				errs = append(errs, field.Invalid(operator, t.Value, "value must be empty when `operator` is 'Exists'"))
			}
		case corev1.TolerationOpLt, corev1.TolerationOpGt:
			errs = append(errs, field.NotSupported(operator, t.Operator, []corev1.TolerationOperator{
				corev1.TolerationOpEqual, corev1.TolerationOpExists, corev1.TolerationOpLt, corev1.TolerationOpGt}))
		default:
			errs = append(errs, field.NotSupported(operator, t.Operator, []corev1.TolerationOperator{corev1.TolerationOpEqual, corev1.TolerationOpExists}))
		}
		if t.Effect != "" {
			errs = append(errs, rule.TaintEffect(t.Effect, p.Child("effect"))...)
		}
	}
	return errs
}
