// SPDX-License-Identifier: Apache-2.0

package rule

import (
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// NodeSelector checks a required choice of nodes. With invalidValues, label
// values that no node can have are let through, as they are in objects that
// were stored before the check existed.
func NodeSelector(selector *corev1.NodeSelector, invalidValues bool, p *field.Path) field.ErrorList {
	terms := p.Child("nodeSelectorTerms")
	if len(selector.NodeSelectorTerms) == 0 {
		return field.ErrorList{field.Required(terms, "must have at least one node selector term")}
	}
	var errs field.ErrorList
	for i := range selector.NodeSelectorTerms {
		errs = append(errs, NodeSelectorTerm(&selector.NodeSelectorTerms[i], invalidValues, terms.Index(i))...)
	}
	return errs
}

// NodeSelectorTerm checks one term of a NodeSelector.
func NodeSelectorTerm(term *corev1.NodeSelectorTerm, invalidValues bool, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, req := range term.MatchExpressions {
		errs = append(errs, nodeSelectorRequirement(req, invalidValues, p.Child("matchExpressions").Index(i))...)
	}
	for i, req := range term.MatchFields {
		errs = append(errs, nodeFieldRequirement(req, p.Child("matchFields").Index(i))...)
	}
	return errs
}

// HasInvalidLabelValue says whether a term holds a value no label can have.
func HasInvalidLabelValue(terms []corev1.NodeSelectorTerm) bool {
	for _, term := range terms {
		for _, req := range term.MatchExpressions {
			for _, value := range req.Values {
				if len(validation.IsValidLabelValue(value)) > 0 {
					return true
				}
			}
		}
	}
	return false
}

func nodeSelectorRequirement(req corev1.NodeSelectorRequirement, invalidValues bool, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	values := p.Child("values")
	switch req.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(req.Values) == 0 {
			errs = append(errs, field.Required(values, "must be specified when `operator` is 'In' or 'NotIn'"))
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(req.Values) > 0 {
			errs = append(errs, field.Forbidden(values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(req.Values) != 1 {
			errs = append(errs, field.Required(values, "must be specified single value when `operator` is 'Lt' or 'Gt'"))
		}
	default:
		errs = append(errs, field.Invalid(p.Child("operator"), req.Operator, "not a valid selector operator"))
	}
	errs = append(errs, metav1validation.ValidateLabelName(req.Key, p.Child("key"))...)
	if !invalidValues {
		for i, value := range req.Values {
			errs = append(errs, Messages(values.Index(i), value, validation.IsValidLabelValue(value))...)
		}
	}
	return errs
}

func nodeFieldRequirement(req corev1.NodeSelectorRequirement, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch req.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(req.Values) != 1 {
			errs = append(errs, field.Required(p.Child("values"),
				"must be only one value when `operator` is 'In' or 'NotIn' for node field selector"))
		}
	default:
		errs = append(errs, field.Invalid(p.Child("operator"), req.Operator, "not a valid selector operator"))
	}
	if req.Key != metav1.ObjectNameField {
		return append(errs, field.Invalid(p.Child("key"), req.Key, "not a valid field selector key"))
	}
	for i, value := range req.Values {
		errs = append(errs, Messages(p.Child("values").Index(i), value, apivalidation.NameIsDNSSubdomain(value, false))...)
	}
	return errs
}

// TaintEffect checks the effect of a taint or, where it may be empty, of a toleration.
func TaintEffect(effect corev1.TaintEffect, p *field.Path) field.ErrorList {
	return OneOfRequired(effect, p, corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)
}
