// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"fmt"

	authorizationv1 "k8s.io/api/authorization/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/badvalue"
)

func validateReview(r *authorizationv1.SubjectAccessReview) field.ErrorList {
	return append(validateSubjectSpec(&r.Spec), validateNoMetadata(r.ObjectMeta, false)...)
}

func validateSelfReview(r *authorizationv1.SelfSubjectAccessReview) field.ErrorList {
	errs := validateAttributes(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
	errs = append(errs, validateSelectors(r.Spec.ResourceAttributes)...)
	return append(errs, validateNoMetadata(r.ObjectMeta, false)...)
}

func validateLocalReview(r *authorizationv1.LocalSubjectAccessReview) field.ErrorList {
	errs := validateSubjectSpec(&r.Spec)
	errs = append(errs, validateNoMetadata(r.ObjectMeta, true)...)
	if a := r.Spec.ResourceAttributes; a != nil && a.Namespace != r.Namespace {
		errs = append(errs, field.Invalid(field.NewPath("spec.resourceAttributes.namespace"), a.Namespace, "must match metadata.namespace"))
	}
	if a := r.Spec.NonResourceAttributes; a != nil {
		errs = append(errs, field.Invalid(field.NewPath("spec.nonResourceAttributes"), badvalue.Of(a), "disallowed on this kind of request"))
	}
	return errs
}

// validateNoMetadata refuses metadata: a review is answered, not kept. A local
// one has its namespace.
func validateNoMetadata(meta metav1.ObjectMeta, local bool) field.ErrorList {
	detail := "must be empty"
	bare := meta
	bare.ManagedFields = nil
	if local {
		bare.Namespace = ""
		detail = "must be empty except for namespace"
	}
	if apiequality.Semantic.DeepEqual(metav1.ObjectMeta{}, bare) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), meta, detail)}
}

func validateSubjectSpec(spec *authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	errs := validateAttributes(spec.ResourceAttributes, spec.NonResourceAttributes)
	if spec.User == "" && len(spec.Groups) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec", "user"), spec.User, "at least one of user or group must be specified"))
	}
	return append(errs, validateSelectors(spec.ResourceAttributes)...)
}

func validateAttributes(resource *authorizationv1.ResourceAttributes, url *authorizationv1.NonResourceAttributes) field.ErrorList {
	switch path := field.NewPath("spec"); {
	case (resource == nil) == (url == nil):
		return field.ErrorList{field.Invalid(path, badvalue.Of(url), "exactly one of nonResourceAttributes or resourceAttributes must be specified")}
	}
	return nil
}

func validateSelectors(resource *authorizationv1.ResourceAttributes) field.ErrorList {
	if resource == nil {
		return nil
	}
	path := field.NewPath("spec.resourceAttributes")
	var errs field.ErrorList
	if s := resource.FieldSelector; s != nil {
		where := path.Child("fieldSelector")
		errs = append(errs, validateOneForm(s.RawSelector, len(s.Requirements), where)...)
		opts := metavalidation.FieldSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}
		for i, r := range s.Requirements {
			errs = append(errs, metavalidation.ValidateFieldSelectorRequirement(r, opts, where.Child("requirements").Index(i))...)
		}
	}
	if s := resource.LabelSelector; s != nil {
		where := path.Child("labelSelector")
		errs = append(errs, validateOneForm(s.RawSelector, len(s.Requirements), where)...)
		opts := metavalidation.LabelSelectorValidationOptions{AllowUnknownOperatorInRequirement: true}
		for i, r := range s.Requirements {
			errs = append(errs, metavalidation.ValidateLabelSelectorRequirement(r, opts, where.Child("requirements").Index(i))...)
		}
	}
	return errs
}

func validateOneForm(raw string, requirements int, path *field.Path) field.ErrorList {
	switch {
	case raw != "" && requirements > 0:
		return field.ErrorList{field.Invalid(path.Child("rawSelector"), raw, "may not specified at the same time as requirements")}
	case raw == "" && requirements == 0:
		return field.ErrorList{field.Required(path.Child("requirements"), fmt.Sprintf("when %s is specified, requirements or rawSelector is required", path))}
	}
	return nil
}
