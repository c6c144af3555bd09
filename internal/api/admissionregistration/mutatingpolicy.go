// SPDX-License-Identifier: Apache-2.0

package admissionregistration

import (
	"context"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func mutatingAdmissionPolicy() *api.Kind {
	c := newCompilers()
	return &api.Kind{
		Group: admissionregistrationv1.GroupName, Name: "MutatingAdmissionPolicy", Resource: "mutatingadmissionpolicies", Singular: "mutatingadmissionpolicy",
		Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: admissionregistrationv1.SchemeGroupVersion,
			New:          api.New[admissionregistrationv1.MutatingAdmissionPolicy], NewList: api.NewList[admissionregistrationv1.MutatingAdmissionPolicyList],
			Default: api.Default(func(p *admissionregistrationv1.MutatingAdmissionPolicy) {
				setDefault(&p.Spec.FailurePolicy, admissionregistrationv1.Fail)
				defaultMatch(p.Spec.MatchConstraints)
			}),
		}},
		Storage: admissionregistrationv1.SchemeGroupVersion,
		Prefix:  "/registry/mutatingadmissionpolicies",
		New:     api.New[admissionregistrationv1.MutatingAdmissionPolicy], NewList: api.NewList[admissionregistrationv1.MutatingAdmissionPolicyList],
		PlainFinalizers: true,
		Rules: api.For[*admissionregistrationv1.MutatingAdmissionPolicy]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, p *admissionregistrationv1.MutatingAdmissionPolicy) {
				p.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, p, old *admissionregistrationv1.MutatingAdmissionPolicy) {
				if !apiequality.Semantic.DeepEqual(p.Spec, old.Spec) {
					p.Generation = old.Generation + 1
				}
			},
			Validate: func(p *admissionregistrationv1.MutatingAdmissionPolicy) field.ErrorList {
				return c.validateMutatingPolicy(&p.Spec, nil)
			},
			ValidateUpdate: func(p, old *admissionregistrationv1.MutatingAdmissionPolicy) field.ErrorList {
				return c.validateMutatingPolicy(&p.Spec, &old.Spec)
			},
			Warnings: func(p, _ *admissionregistrationv1.MutatingAdmissionPolicy) []string { return staticWarnings(p.Name) },
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.Integer("Mutations", "Mutation indicates the number of mutations rules defined in this configuration"),
				table.String("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"),
				table.Age(),
			},
			Cells: func(p *admissionregistrationv1.MutatingAdmissionPolicy) []any {
				return []any{p.Name, int64(len(p.Spec.Mutations)), paramKindCell(p.Spec.ParamKind), table.Since(p.CreationTimestamp)}
			},
		}.Rules(),
	}
}

func (c *compilers) validateMutatingPolicy(spec, old *admissionregistrationv1.MutatingAdmissionPolicySpec) field.ErrorList {
	path := field.NewPath("spec")
	params := spec.ParamKind != nil
	conditions, mutations := sets.New[string](), sets.New[string]()
	if old != nil {
		for _, m := range old.MatchConditions {
			conditions.Insert(m.Expression)
		}
		for _, m := range old.Mutations {
			if m.ApplyConfiguration != nil {
				mutations.Insert(m.ApplyConfiguration.Expression)
			}
		}
	}
	errs := validatePolicyHead(spec.FailurePolicy, spec.ParamKind, spec.MatchConstraints, path)
	errs = append(errs, validateMutatingOperations(spec.MatchConstraints, path.Child("matchConstraints"))...)
	if old == nil || !apiequality.Semantic.DeepEqual(spec.ParamKind, old.ParamKind) || !apiequality.Semantic.DeepEqual(spec.MatchConditions, old.MatchConditions) {
		errs = append(errs, c.validateConditions(spec.MatchConditions, params, conditions, path.Child("matchConditions"))...)
	}
	compiler, err := c.composited()
	if err != nil {
		return append(errs, field.InternalError(path, err))
	}
	errs = append(errs, validateVariables(compiler, spec.Variables, params, sets.New[string](), path.Child("variables"))...)
	if len(spec.Mutations) == 0 {
		errs = append(errs, field.Required(path.Child("mutations"), "mutations must contain at least one item"))
	}
	for i := range spec.Mutations {
		errs = append(errs, validateMutation(compiler, &spec.Mutations[i], params, mutations, path.Child("mutations").Index(i))...)
	}
	if spec.ReinvocationPolicy == "" {
		return append(errs, field.Required(path.Child("reinvocationPolicy"), ""))
	}
	return append(errs, rule.OneOf(spec.ReinvocationPolicy, path.Child("reinvocationPolicy"),
		admissionregistrationv1.IfNeededReinvocationPolicy, admissionregistrationv1.NeverReinvocationPolicy)...)
}

func validateMutation(compiler plugincel.Compiler, m *admissionregistrationv1.Mutation, params bool, stored sets.Set[string], path *field.Path) field.ErrorList {
	vars := plugincel.OptionalVariableDeclarations{HasParams: params, HasAuthorizer: true, HasPatchTypes: true}
	jsonPatch, apply := path.Child("jsonPatch"), path.Child("applyConfiguration")
	var errs field.ErrorList
	check := func(text string, accessor func(string) plugincel.ExpressionAccessor, where *field.Path) {
		trimmed := strings.TrimSpace(text)
		if trimmed == "" {
			errs = append(errs, field.Required(where, ""))
			return
		}
		errs = append(errs, compile(compiler, accessor(trimmed), trimmed, vars, environmentOf(text, stored), where)...)
	}
	switch m.PatchType {
	case "":
		errs = append(errs, field.Required(path.Child("patchType"), ""))
	case admissionregistrationv1.PatchTypeJSONPatch:
		if m.JSONPatch == nil {
			errs = append(errs, field.Required(jsonPatch, "must be specified when patchType is JSONPatch"))
		} else {
			check(m.JSONPatch.Expression, func(e string) plugincel.ExpressionAccessor { return &patch.JSONPatchCondition{Expression: e} }, jsonPatch.Child("expression"))
		}
		if m.ApplyConfiguration != nil {
			errs = append(errs, field.Invalid(apply, "{applyConfiguration}", "must not be specified when patchType is JSONPatch"))
		}
	case admissionregistrationv1.PatchTypeApplyConfiguration:
		if m.ApplyConfiguration == nil {
			errs = append(errs, field.Required(apply, "must be specified when patchType is ApplyConfiguration"))
		} else {
			check(m.ApplyConfiguration.Expression, func(e string) plugincel.ExpressionAccessor {
				return &patch.ApplyConfigurationCondition{Expression: e}
			}, apply.Child("expression"))
		}
		if m.JSONPatch != nil {
			errs = append(errs, field.Invalid(jsonPatch, "{jsonPatch}", "must not be specified when patchType is ApplyConfiguration"))
		}
	default:
		errs = append(errs, rule.OneOf(m.PatchType, path.Child("patchType"), admissionregistrationv1.PatchTypeApplyConfiguration, admissionregistrationv1.PatchTypeJSONPatch)...)
	}
	return errs
}
