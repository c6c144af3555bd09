// SPDX-License-Identifier: Apache-2.0

package flowcontrol

import (
	"context"
	"fmt"
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

const (
	defaultPrecedence = 1000
	exemptName        = "exempt"
	all               = "*"
)

func flowSchema() *api.Kind {
	spec := flowcontrolv1.FlowSchemaSpec{}.SwaggerDoc()
	return &api.Kind{
		Group: flowcontrolv1.GroupName, Name: "FlowSchema", Resource: "flowschemas", Singular: "flowschema",
		Versions: []api.Version{{
			GroupVersion: flowcontrolv1.SchemeGroupVersion,
			New:          api.New[flowcontrolv1.FlowSchema], NewList: api.NewList[flowcontrolv1.FlowSchemaList],
			Default: api.Default(func(s *flowcontrolv1.FlowSchema) {
				if s.Spec.MatchingPrecedence == 0 {
					s.Spec.MatchingPrecedence = defaultPrecedence
				}
			}),
		}},
		Storage: flowcontrolv1.SchemeGroupVersion,
		Prefix:  "/registry/flowschemas",
		New:     api.New[flowcontrolv1.FlowSchema], NewList: api.NewList[flowcontrolv1.FlowSchemaList],
		Rules: api.For[*flowcontrolv1.FlowSchema]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, s *flowcontrolv1.FlowSchema) {
				s.Status = flowcontrolv1.FlowSchemaStatus{}
				s.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, s, old *flowcontrolv1.FlowSchema) {
				if !apiequality.Semantic.DeepEqual(s.Spec, old.Spec) {
					s.Generation = old.Generation + 1
				}
				s.Status = old.Status
			},
			Validate:       validateFlowSchema,
			ValidateUpdate: func(s, _ *flowcontrolv1.FlowSchema) field.ErrorList { return validateFlowSchema(s) },
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("PriorityLevel", flowcontrolv1.PriorityLevelConfigurationReference{}.SwaggerDoc()["name"]),
				table.String("MatchingPrecedence", spec["matchingPrecedence"]),
				table.String("DistinguisherMethod", spec["distinguisherMethod"]),
				table.Age(),
				table.String("MissingPL", "references a broken or non-existent PriorityLevelConfiguration"),
			},
			Cells: func(s *flowcontrolv1.FlowSchema) []any {
				method, missing := "<none>", "?"
				if m := s.Spec.DistinguisherMethod; m != nil {
					method = string(m.Type)
				}
				if i := slices.IndexFunc(s.Status.Conditions, func(c flowcontrolv1.FlowSchemaCondition) bool {
					return c.Type == flowcontrolv1.FlowSchemaConditionDangling
				}); i >= 0 {
					missing = string(s.Status.Conditions[i].Status)
				}
				return []any{s.Name, s.Spec.PriorityLevelConfiguration.Name, int64(s.Spec.MatchingPrecedence), method,
					table.Since(s.CreationTimestamp), missing}
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
		ResetFields:              []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, s, old *flowcontrolv1.FlowSchema) {
				managed := s.ManagedFields
				s.ObjectMeta, s.Spec = *old.ObjectMeta.DeepCopy(), old.Spec
				s.ManagedFields = managed
			}),
			ValidateUpdate: api.Update(func(s, _ *flowcontrolv1.FlowSchema) field.ErrorList {
				return validateFlowConditions(s.Status.Conditions)
			}),
			ResetFields: []string{"metadata", "spec"},
		},
	}
}

func validateFlowSchema(s *flowcontrolv1.FlowSchema) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateFlowSchemaSpec(s.Name, &s.Spec, path)
	for _, fixed := range bootstrap.MandatoryFlowSchemas {
		if fixed.Name == s.Name && !apiequality.Semantic.DeepEqual(s.Spec, fixed.Spec) {
			errs = append(errs, field.Invalid(path, badvalue.Of(s.Spec), fmt.Sprintf("spec of '%s' must equal the fixed value", s.Name)))
		}
	}
	return append(errs, validateFlowConditions(s.Status.Conditions)...)
}

func validateFlowConditions(conditions []flowcontrolv1.FlowSchemaCondition) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[flowcontrolv1.FlowSchemaConditionType]()
	for i, c := range conditions {
		path := field.NewPath("status", "conditions").Index(i).Child("type")
		if seen.Has(c.Type) {
			errs = append(errs, field.Duplicate(path, c.Type))
		}
		seen.Insert(c.Type)
		if c.Type == "" {
			errs = append(errs, field.Required(path, ""))
		}
	}
	return errs
}

func validateFlowSchemaSpec(name string, spec *flowcontrolv1.FlowSchemaSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	precedence, where := spec.MatchingPrecedence, path.Child("matchingPrecedence")
	if precedence <= 0 {
		errs = append(errs, field.Invalid(where, precedence, "must be a positive value"))
	}
	if precedence > flowcontrolv1.FlowSchemaMaxMatchingPrecedence {
		errs = append(errs, field.Invalid(where, precedence, fmt.Sprintf("must not be greater than %v", flowcontrolv1.FlowSchemaMaxMatchingPrecedence)))
	}
	if precedence == 1 && name != exemptName {
		errs = append(errs, field.Invalid(where, precedence, "only the schema named 'exempt' may have matchingPrecedence 1"))
	}
	if m := spec.DistinguisherMethod; m != nil {
		methods := []flowcontrolv1.FlowDistinguisherMethodType{flowcontrolv1.FlowDistinguisherMethodByNamespaceType, flowcontrolv1.FlowDistinguisherMethodByUserType}
		if !slices.Contains(methods, m.Type) {
			err := field.NotSupported(path.Child("distinguisherMethod", "type"), "", methods)
			err.BadValue = badvalue.Of(m)
			errs = append(errs, err)
		}
	}
	level := path.Child("priorityLevelConfiguration", "name")
	if ref := spec.PriorityLevelConfiguration.Name; ref == "" {
		errs = append(errs, field.Required(level, "must reference a priority level"))
	} else {
		errs = append(errs, rule.Subdomain(ref, level)...)
	}
	for i := range spec.Rules {
		errs = append(errs, validateFlowRule(&spec.Rules[i], path.Child("rules").Index(i))...)
	}
	return errs
}

func validateFlowRule(r *flowcontrolv1.PolicyRulesWithSubjects, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Subjects) == 0 {
		errs = append(errs, field.Required(path.Child("subjects"), "subjects must contain at least one value"))
	}
	for i := range r.Subjects {
		errs = append(errs, validateFlowSubject(&r.Subjects[i], path.Child("subjects").Index(i))...)
	}
	if len(r.ResourceRules) == 0 && len(r.NonResourceRules) == 0 {
		errs = append(errs, field.Required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	for i := range r.ResourceRules {
		errs = append(errs, validateResourceRule(&r.ResourceRules[i], path.Child("resourceRules").Index(i))...)
	}
	for i := range r.NonResourceRules {
		errs = append(errs, validateNonResourceRule(&r.NonResourceRules[i], path.Child("nonResourceRules").Index(i))...)
	}
	return errs
}

func validateFlowSubject(s *flowcontrolv1.Subject, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch s.Kind {
	case flowcontrolv1.SubjectKindServiceAccount:
		errs = validateAccount(s.ServiceAccount, path.Child("serviceAccount"))
	case flowcontrolv1.SubjectKindUser:
		if s.User == nil {
			errs = append(errs, field.Required(path.Child("user"), "user is required when subject kind is 'User'"))
		} else if s.User.Name == "" {
			errs = append(errs, field.Required(path.Child("user", "name"), ""))
		}
	case flowcontrolv1.SubjectKindGroup:
		if s.Group == nil {
			errs = append(errs, field.Required(path.Child("group"), "group is required when subject kind is 'Group'"))
		} else if s.Group.Name == "" {
			errs = append(errs, field.Required(path.Child("group", "name"), ""))
		}
	default:
		return field.ErrorList{field.NotSupported(path.Child("kind"), s.Kind, []flowcontrolv1.SubjectKind{
			flowcontrolv1.SubjectKindGroup, flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser})}
	}
	for _, f := range []struct {
		name    string
		kind    flowcontrolv1.SubjectKind
		present bool
	}{
		{"serviceAccount", flowcontrolv1.SubjectKindServiceAccount, s.ServiceAccount != nil},
		{"user", flowcontrolv1.SubjectKindUser, s.User != nil},
		{"group", flowcontrolv1.SubjectKindGroup, s.Group != nil},
	} {
		if f.present && f.kind != s.Kind {
			errs = append(errs, field.Forbidden(path.Child(f.name), fmt.Sprintf("%s is forbidden when subject kind is not '%s'", f.name, f.kind)))
		}
	}
	return errs
}

func validateAccount(s *flowcontrolv1.ServiceAccountSubject, path *field.Path) field.ErrorList {
	if s == nil {
		return field.ErrorList{field.Required(path, "serviceAccount is required when subject kind is 'ServiceAccount'")}
	}
	var errs field.ErrorList
	if s.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	} else if s.Name != all {
		errs = append(errs, rule.Messages(path.Child("name"), s.Name, apivalidation.ValidateServiceAccountName(s.Name, false))...)
	}
	if s.Namespace == "" {
		return append(errs, field.Required(path.Child("namespace"), "must specify namespace for service account"))
	}
	return append(errs, rule.Messages(path.Child("namespace"), s.Namespace, apivalidation.ValidateNamespaceName(s.Namespace, false))...)
}

func validateVerbs(verbs []string, path *field.Path) field.ErrorList {
	if len(verbs) == 0 {
		return field.ErrorList{field.Required(path, "verbs must contain at least one value")}
	}
	if slices.Contains(verbs, all) {
		return validateAlone(verbs, "verbs", path)
	}
	known := []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}
	if !sets.New(known...).HasAll(verbs...) {
		err := field.NotSupported(path, "", known)
		err.BadValue = verbs
		return field.ErrorList{err}
	}
	return nil
}

// validateAlone refuses other members beside "*"; what names them.
func validateAlone(list []string, what string, path *field.Path) field.ErrorList {
	if len(list) > 1 && slices.Contains(list, all) {
		return field.ErrorList{field.Invalid(path, list, "if '*' is present, must not specify other "+what)}
	}
	return nil
}

func validateResourceRule(r *flowcontrolv1.ResourcePolicyRule, path *field.Path) field.ErrorList {
	errs := validateVerbs(r.Verbs, path.Child("verbs"))
	if len(r.APIGroups) == 0 {
		errs = append(errs, field.Required(path.Child("apiGroups"), "resource rules must supply at least one api group"))
	}
	errs = append(errs, validateAlone(r.APIGroups, "api groups", path.Child("apiGroups"))...)
	if len(r.Resources) == 0 {
		errs = append(errs, field.Required(path.Child("resources"), "resource rules must supply at least one resource"))
	}
	errs = append(errs, validateAlone(r.Resources, "resources", path.Child("resources"))...)
	namespaces := path.Child("namespaces")
	switch {
	case len(r.Namespaces) == 0 && !r.ClusterScope:
		errs = append(errs, field.Required(namespaces, "resource rules that are not cluster scoped must supply at least one namespace"))
	case slices.Contains(r.Namespaces, all):
		errs = append(errs, validateAlone(r.Namespaces, "namespaces", namespaces)...)
	default:
		for i, name := range r.Namespaces {
			for _, message := range apivalidation.ValidateNamespaceName(name, false) {
				errs = append(errs, field.Invalid(namespaces.Index(i), name, "each member of this list must be '*' or a DNS-1123 label; "+message))
			}
		}
	}
	return errs
}

func validateNonResourceRule(r *flowcontrolv1.NonResourcePolicyRule, path *field.Path) field.ErrorList {
	errs := validateVerbs(r.Verbs, path.Child("verbs"))
	urls := path.Child("nonResourceURLs")
	switch {
	case len(r.NonResourceURLs) == 0:
		errs = append(errs, field.Required(urls, "nonResourceURLs must contain at least one value"))
	case slices.Contains(r.NonResourceURLs, all):
		errs = append(errs, validateAlone(r.NonResourceURLs, "non-resource URLs", urls)...)
	default:
		for i, url := range r.NonResourceURLs {
			if detail := urlError(url); detail != "" {
				errs = append(errs, field.Invalid(urls.Index(i), url, detail))
			}
		}
	}
	return errs
}

func urlError(url string) string {
	switch stars := strings.Count(url, all); {
	case url == "":
		return "must not be empty"
	case url == "/":
		return ""
	case !strings.HasPrefix(url, "/"):
		return "must start with slash"
	case strings.Contains(url, " "):
		return "must not contain white-space"
	case strings.Contains(url, "//"):
		return "must not contain double slash"
	case stars > 1 || stars == 1 && !strings.HasSuffix(url, "/*"):
		return "wildcard can only do suffix matching"
	}
	return ""
}
