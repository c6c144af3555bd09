// SPDX-License-Identifier: Apache-2.0

package admissionregistration

import (
	"context"
	"fmt"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/client-go/util/jsonpath"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

const (
	maxAuditAnnotations = 20
	maxValueExpression  = 5 * 1024
	staticSuffix        = ".static.k8s.io"
)

// staticWarnings warns of names that belong to configurations from files.
func staticWarnings(name string) []string {
	if !strings.HasSuffix(name, staticSuffix) {
		return nil
	}
	return []string{fmt.Sprintf("metadata.name: names ending with %q are reserved for static manifest-based configurations and cannot be managed via the API", staticSuffix)}
}

func validatingAdmissionPolicy() *api.Kind {
	c := newCompilers()
	return &api.Kind{
		Group: admissionregistrationv1.GroupName, Name: "ValidatingAdmissionPolicy", Resource: "validatingadmissionpolicies", Singular: "validatingadmissionpolicy",
		Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: admissionregistrationv1.SchemeGroupVersion,
			New:          api.New[admissionregistrationv1.ValidatingAdmissionPolicy], NewList: api.NewList[admissionregistrationv1.ValidatingAdmissionPolicyList],
			Default: api.Default(func(p *admissionregistrationv1.ValidatingAdmissionPolicy) {
				setDefault(&p.Spec.FailurePolicy, admissionregistrationv1.Fail)
				defaultMatch(p.Spec.MatchConstraints)
			}),
		}},
		Storage: admissionregistrationv1.SchemeGroupVersion,
		Prefix:  "/registry/validatingadmissionpolicies",
		New:     api.New[admissionregistrationv1.ValidatingAdmissionPolicy], NewList: api.NewList[admissionregistrationv1.ValidatingAdmissionPolicyList],
		PlainFinalizers: true,
		Rules: api.For[*admissionregistrationv1.ValidatingAdmissionPolicy]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, p *admissionregistrationv1.ValidatingAdmissionPolicy) {
				p.Status = admissionregistrationv1.ValidatingAdmissionPolicyStatus{}
				p.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, p, old *admissionregistrationv1.ValidatingAdmissionPolicy) {
				p.Status = old.Status
				if !apiequality.Semantic.DeepEqual(p.Spec, old.Spec) {
					p.Generation = old.Generation + 1
				}
			},
			Validate: func(p *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
				return c.validatePolicy(p, nil)
			},
			ValidateUpdate: func(p, old *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
				return c.validatePolicy(p, &old.Spec)
			},
			Warnings: func(p, _ *admissionregistrationv1.ValidatingAdmissionPolicy) []string { return staticWarnings(p.Name) },
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.Integer("Validations", "Validations indicates the number of validation rules defined in this configuration"),
				table.String("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"),
				table.Age(),
			},
			Cells: func(p *admissionregistrationv1.ValidatingAdmissionPolicy) []any {
				return []any{p.Name, int64(len(p.Spec.Validations)), paramKindCell(p.Spec.ParamKind), table.Since(p.CreationTimestamp)}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, p, old *admissionregistrationv1.ValidatingAdmissionPolicy) {
				p.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.ObjectMeta)
			}),
			ValidateUpdate: api.Update(func(p, _ *admissionregistrationv1.ValidatingAdmissionPolicy) field.ErrorList {
				return validatePolicyStatus(&p.Status, field.NewPath("status"))
			}),
			ResetFields: []string{"metadata", "spec"},
		},
	}
}

// storedExpressions are the expressions of a policy, by their place.
type storedExpressions struct {
	conditions, validations, messages, annotations sets.Set[string]
}

func expressionsOf(spec *admissionregistrationv1.ValidatingAdmissionPolicySpec) storedExpressions {
	e := storedExpressions{sets.New[string](), sets.New[string](), sets.New[string](), sets.New[string]()}
	if spec == nil {
		return e
	}
	for _, c := range spec.MatchConditions {
		e.conditions.Insert(c.Expression)
	}
	for _, v := range spec.Validations {
		e.validations.Insert(v.Expression)
		e.messages.Insert(v.MessageExpression)
	}
	for _, a := range spec.AuditAnnotations {
		e.annotations.Insert(a.ValueExpression)
	}
	return e
}

func (c *compilers) validatePolicy(p *admissionregistrationv1.ValidatingAdmissionPolicy, old *admissionregistrationv1.ValidatingAdmissionPolicySpec) field.ErrorList {
	spec, path, stored := &p.Spec, field.NewPath("spec"), expressionsOf(old)
	params := spec.ParamKind != nil
	errs := validatePolicyHead(spec.FailurePolicy, spec.ParamKind, spec.MatchConstraints, path)
	if old == nil || !apiequality.Semantic.DeepEqual(spec.ParamKind, old.ParamKind) || !apiequality.Semantic.DeepEqual(spec.MatchConditions, old.MatchConditions) {
		errs = append(errs, c.validateConditions(spec.MatchConditions, params, stored.conditions, path.Child("matchConditions"))...)
	}
	var compiler plugincel.Compiler
	if len(spec.Variables) > 0 {
		composited, err := c.composited()
		if err != nil {
			return append(errs, field.InternalError(path.Child("variables"), err))
		}
		compiler = composited
		errs = append(errs, validateVariables(compiler, spec.Variables, params, stored.validations, path.Child("variables"))...)
	}
	if len(spec.Validations) == 0 && len(spec.AuditAnnotations) == 0 {
		const detail = "validations or auditAnnotations must contain at least one item"
		return append(errs, field.Required(path.Child("validations"), detail), field.Required(path.Child("auditAnnotations"), detail))
	}
	if compiler == nil {
		compiler = c.strict()
	}
	for i := range spec.Validations {
		errs = append(errs, validateValidation(compiler, &spec.Validations[i], params, stored, path.Child("validations").Index(i))...)
	}
	return append(errs, validateAnnotations(compiler, p.Name, spec.AuditAnnotations, params, stored.annotations, path.Child("auditAnnotations"))...)
}

// validatePolicyHead checks what the two kinds of policies have in common.
func validatePolicyHead(failure *admissionregistrationv1.FailurePolicyType, params *admissionregistrationv1.ParamKind, match *admissionregistrationv1.MatchResources, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if failure == nil {
		errs = append(errs, field.Required(path.Child("failurePolicy"), ""))
	} else {
		errs = append(errs, rule.OneOf(*failure, path.Child("failurePolicy"), admissionregistrationv1.Fail, admissionregistrationv1.Ignore)...)
	}
	if params != nil {
		errs = append(errs, validateParamKind(params, path.Child("paramKind"))...)
	}
	if match == nil {
		return append(errs, field.Required(path.Child("matchConstraints"), ""))
	}
	errs = append(errs, validateMatch(match, path.Child("matchConstraints"))...)
	if len(match.ResourceRules) == 0 {
		errs = append(errs, field.Required(path.Child("matchConstraints", "resourceRules"), ""))
	}
	return errs
}

func validateParamKind(kind *admissionregistrationv1.ParamKind, path *field.Path) field.ErrorList {
	errs := validateAPIVersion(kind.APIVersion, path.Child("apiVersion"))
	where := path.Child("kind")
	if kind.Kind == "" {
		return append(errs, field.Required(where, ""))
	}
	if messages := validation.IsDNS1035Label(strings.ToLower(kind.Kind)); len(messages) > 0 {
		errs = append(errs, field.Invalid(where, kind.Kind, "may have mixed case, but should otherwise match: "+strings.Join(messages, ",")))
	}
	return errs
}

func validateAPIVersion(text string, path *field.Path) field.ErrorList {
	if text == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	group, version, grouped := strings.Cut(text, "/")
	if !grouped {
		group, version = "", group
	}
	if strings.Contains(version, "/") {
		return field.ErrorList{field.Invalid(path, text, "unexpected GroupVersion string: "+text)}
	}
	var errs field.ErrorList
	if messages := validation.IsDNS1123Subdomain(group); group != "" && len(messages) > 0 {
		errs = append(errs, field.Invalid(path, group, strings.Join(messages, ",")))
	}
	if version == "" {
		errs = append(errs, field.Invalid(path, text, "version must be specified"))
	} else if messages := validation.IsDNS1035Label(version); len(messages) > 0 {
		errs = append(errs, field.Invalid(path, version, strings.Join(messages, ",")))
	}
	return errs
}

func validateValidation(compiler plugincel.Compiler, v *admissionregistrationv1.Validation, params bool, stored storedExpressions, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if strings.TrimSpace(v.Expression) == "" {
		errs = append(errs, field.Required(path.Child("expression"), "expression is not specified"))
	} else {
		errs = append(errs, compile(compiler, &validating.ValidationCondition{Expression: v.Expression}, v.Expression,
			plugincel.OptionalVariableDeclarations{HasParams: params, HasAuthorizer: true}, environmentOf(v.Expression, stored.validations), path.Child("expression"))...)
	}
	if where := path.Child("messageExpression"); v.MessageExpression != "" {
		if strings.TrimSpace(v.MessageExpression) == "" {
			errs = append(errs, field.Invalid(where, v.MessageExpression, "must be non-empty if specified"))
		} else {
			errs = append(errs, compile(compiler, &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression}, v.MessageExpression,
				plugincel.OptionalVariableDeclarations{HasParams: params}, environmentOf(v.MessageExpression, stored.messages), where)...)
		}
	}
	if text := strings.TrimSpace(v.Message); v.Message != "" && text == "" {
		errs = append(errs, field.Invalid(path.Child("message"), v.Message, "must be non-empty if specified"))
	} else if strings.ContainsAny(text, "\n\r") {
		errs = append(errs, field.Invalid(path.Child("message"), v.Message, "must not contain line breaks"))
	}
	if v.Reason != nil {
		errs = append(errs, rule.OneOf(*v.Reason, path.Child("reason"), metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge)...)
	}
	return errs
}

func validateAnnotations(compiler plugincel.Compiler, policy string, annotations []admissionregistrationv1.AuditAnnotation, params bool, stored sets.Set[string], path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(annotations) > maxAuditAnnotations {
		errs = append(errs, field.Invalid(path, badvalue.Of(annotations), fmt.Sprintf("must not have more than %d auditAnnotations", maxAuditAnnotations)))
	}
	seen := sets.New[string]()
	for i, a := range annotations {
		key, where := path.Index(i).Child("key"), path.Index(i).Child("valueExpression")
		if policy == "" {
			errs = append(errs, field.Invalid(key, a.Key, "requires metadata.name be non-empty"))
		} else {
			errs = append(errs, rule.QualifiedName(policy+"/"+a.Key, key)...)
		}
		switch text := strings.TrimSpace(a.ValueExpression); {
		case text == "":
			errs = append(errs, field.Required(where, "valueExpression is not specified"))
		case len(text) > maxValueExpression:
			errs = append(errs, field.Required(where, fmt.Sprintf("must not exceed %d bytes in length", maxValueExpression)))
		default:
			errs = append(errs, compile(compiler, &validating.AuditAnnotationCondition{ValueExpression: text}, a.ValueExpression,
				plugincel.OptionalVariableDeclarations{HasParams: params, HasAuthorizer: true}, environmentOf(a.ValueExpression, stored), where)...)
		}
		if seen.Has(a.Key) {
			errs = append(errs, field.Duplicate(key, a.Key))
		}
		seen.Insert(a.Key)
	}
	return errs
}

func validatePolicyStatus(status *admissionregistrationv1.ValidatingAdmissionPolicyStatus, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if status.TypeChecking != nil {
		for i, w := range status.TypeChecking.ExpressionWarnings {
			where := path.Child("typeChecking", "expressionWarnings").Index(i)
			if w.Warning == "" {
				errs = append(errs, field.Required(where.Child("warning"), ""))
			}
			ref := strings.TrimSpace(w.FieldRef)
			if ref == "" {
				errs = append(errs, field.Required(where.Child("fieldRef"), ""))
			} else if err := jsonpath.New("spec").Parse("{" + ref + "}"); err != nil {
				errs = append(errs, field.Invalid(where.Child("fieldRef"), ref, fmt.Sprintf("invalid JSONPath: %v", err)))
			}
		}
	}
	return append(errs, metavalidation.ValidateConditions(status.Conditions, path.Child("conditions"))...)
}
