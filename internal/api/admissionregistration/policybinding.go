// SPDX-License-Identifier: Apache-2.0

package admissionregistration

import (
	"context"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func bindingColumns() []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		table.Name(),
		table.String("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
		table.String("ParamRef", "ParamRef indicates the param resource which sets the configuration param"),
		table.Age(),
	}
}

// validateBound checks what the two kinds of bindings have in common.
func validateBound(policy string, params *admissionregistrationv1.ParamRef, match *admissionregistrationv1.MatchResources, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if policy == "" {
		errs = append(errs, field.Required(path.Child("policyName"), ""))
	} else {
		errs = append(errs, rule.Subdomain(policy, path.Child("policyName"))...)
	}
	errs = append(errs, validateParamRef(params, path.Child("paramRef"))...)
	return append(errs, validateMatch(match, path.Child("matchResources"))...)
}

func validatingAdmissionPolicyBinding() *api.Kind {
	validate := func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
		path := field.NewPath("spec")
		errs := validateBound(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources, path)
		return append(errs, validateActions(b.Spec.ValidationActions, path.Child("validationActions"))...)
	}
	return &api.Kind{
		Group: admissionregistrationv1.GroupName, Name: "ValidatingAdmissionPolicyBinding", Resource: "validatingadmissionpolicybindings", Singular: "validatingadmissionpolicybinding",
		Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: admissionregistrationv1.SchemeGroupVersion,
			New:          api.New[admissionregistrationv1.ValidatingAdmissionPolicyBinding], NewList: api.NewList[admissionregistrationv1.ValidatingAdmissionPolicyBindingList],
			Default: api.Default(func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) { defaultMatch(b.Spec.MatchResources) }),
		}},
		Storage: admissionregistrationv1.SchemeGroupVersion,
		Prefix:  "/registry/validatingadmissionpolicybindings",
		New:     api.New[admissionregistrationv1.ValidatingAdmissionPolicyBinding], NewList: api.NewList[admissionregistrationv1.ValidatingAdmissionPolicyBindingList],
		PlainFinalizers: true,
		Rules: api.For[*admissionregistrationv1.ValidatingAdmissionPolicyBinding]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) {
				b.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, b, old *admissionregistrationv1.ValidatingAdmissionPolicyBinding) {
				if !apiequality.Semantic.DeepEqual(b.Spec, old.Spec) {
					b.Generation = old.Generation + 1
				}
			},
			Validate: validate,
			ValidateUpdate: func(b, _ *admissionregistrationv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
				return validate(b)
			},
			Warnings: func(b, _ *admissionregistrationv1.ValidatingAdmissionPolicyBinding) []string {
				return staticWarnings(b.Name)
			},
			Columns: bindingColumns(),
			Cells: func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) []any {
				return []any{b.Name, b.Spec.PolicyName, paramRefCell(b.Spec.ParamRef), table.Since(b.CreationTimestamp)}
			},
		}.Rules(),
	}
}

func validateActions(actions []admissionregistrationv1.ValidationAction, path *field.Path) field.ErrorList {
	const deny, warn, audit = admissionregistrationv1.Deny, admissionregistrationv1.Warn, admissionregistrationv1.Audit
	if len(actions) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	seen := sets.New[admissionregistrationv1.ValidationAction]()
	for i, a := range actions {
		errs = append(errs, rule.OneOf(a, path.Index(i), audit, deny, warn)...)
		if seen.Has(a) {
			errs = append(errs, field.Duplicate(path.Index(i), a))
		}
		seen.Insert(a)
	}
	if seen.HasAll(deny, warn) {
		errs = append(errs, field.Invalid(path, actions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"))
	}
	return errs
}

func mutatingAdmissionPolicyBinding() *api.Kind {
	validate := func(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) field.ErrorList {
		path := field.NewPath("spec")
		errs := validateBound(b.Spec.PolicyName, b.Spec.ParamRef, b.Spec.MatchResources, path)
		return append(errs, validateMutatingOperations(b.Spec.MatchResources, path.Child("matchResources"))...)
	}
	return &api.Kind{
		Group: admissionregistrationv1.GroupName, Name: "MutatingAdmissionPolicyBinding", Resource: "mutatingadmissionpolicybindings", Singular: "mutatingadmissionpolicybinding",
		Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: admissionregistrationv1.SchemeGroupVersion,
			New:          api.New[admissionregistrationv1.MutatingAdmissionPolicyBinding], NewList: api.NewList[admissionregistrationv1.MutatingAdmissionPolicyBindingList],
			Default: api.Default(func(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) { defaultMatch(b.Spec.MatchResources) }),
		}},
		Storage: admissionregistrationv1.SchemeGroupVersion,
		Prefix:  "/registry/mutatingadmissionpolicybindings",
		New:     api.New[admissionregistrationv1.MutatingAdmissionPolicyBinding], NewList: api.NewList[admissionregistrationv1.MutatingAdmissionPolicyBindingList],
		PlainFinalizers: true,
		Rules: api.For[*admissionregistrationv1.MutatingAdmissionPolicyBinding]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, b *admissionregistrationv1.MutatingAdmissionPolicyBinding) {
				b.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, b, old *admissionregistrationv1.MutatingAdmissionPolicyBinding) {
				if !apiequality.Semantic.DeepEqual(b.Spec, old.Spec) {
					b.Generation = old.Generation + 1
				}
			},
			Validate: validate,
			ValidateUpdate: func(b, _ *admissionregistrationv1.MutatingAdmissionPolicyBinding) field.ErrorList {
				return validate(b)
			},
			Warnings: func(b, _ *admissionregistrationv1.MutatingAdmissionPolicyBinding) []string {
				return staticWarnings(b.Name)
			},
			Columns: bindingColumns(),
			Cells: func(b *admissionregistrationv1.MutatingAdmissionPolicyBinding) []any {
				return []any{b.Name, b.Spec.PolicyName, paramRefCell(b.Spec.ParamRef), table.Since(b.CreationTimestamp)}
			},
		}.Rules(),
	}
}
