// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"context"

	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func resourceClaimTemplate() *api.Kind {
	return &api.Kind{
		Group: resourcev1.GroupName, Name: "ResourceClaimTemplate", Resource: "resourceclaimtemplates", Singular: "resourceclaimtemplate",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: resourcev1.SchemeGroupVersion,
			New:          api.New[resourcev1.ResourceClaimTemplate], NewList: api.NewList[resourcev1.ResourceClaimTemplateList],
			Default: api.Default(func(t *resourcev1.ResourceClaimTemplate) { defaultClaim(&t.Spec.Spec) }),
		}},
		Storage: resourcev1.SchemeGroupVersion,
		Prefix:  "/registry/resourceclaimtemplates",
		New:     api.New[resourcev1.ResourceClaimTemplate], NewList: api.NewList[resourcev1.ResourceClaimTemplateList],
		Rules: api.For[*resourcev1.ResourceClaimTemplate]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, t *resourcev1.ResourceClaimTemplate) {
				dropDerived(&t.Spec.Spec, nil)
			},
			PrepareForUpdate: func(_ context.Context, t, old *resourcev1.ResourceClaimTemplate) {
				dropDerived(&t.Spec.Spec, &old.Spec.Spec)
			},
			Validate: validateClaimTemplate,
			ValidateUpdate: func(t, old *resourcev1.ResourceClaimTemplate) field.ErrorList {
				if apiequality.Semantic.DeepEqual(t.Spec, old.Spec) {
					return nil
				}
				return append(validateClaimTemplate(t), field.Invalid(field.NewPath("spec"), badvalue.Of(t.Spec), apivalidation.FieldImmutableErrorMsg))
			},
			Columns: []metav1.TableColumnDefinition{table.Name(), table.Age()},
			Cells: func(t *resourcev1.ResourceClaimTemplate) []any {
				return []any{t.Name, table.Since(t.CreationTimestamp)}
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
	}
}

func validateClaimTemplate(t *resourcev1.ResourceClaimTemplate) field.ErrorList {
	path := field.NewPath("spec")
	errs := rule.TemplateMeta(t.Spec.ObjectMeta, path.Child("metadata"))
	return append(errs, validateClaim(&t.Spec.Spec, path.Child("spec"))...)
}
