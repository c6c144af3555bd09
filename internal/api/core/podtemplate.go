// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/podspec"
	"kaji/internal/api/table"
)

func podTemplate() *api.Kind {
	return &api.Kind{
		Name: "PodTemplate", Resource: "podtemplates", Singular: "podtemplate",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.PodTemplate], NewList: api.NewList[corev1.PodTemplateList],
			Default: api.Default(func(t *corev1.PodTemplate) {
				podspec.DefaultTemplate(&t.Template)
				dropInitContainerAnnotations(&t.Template.ObjectMeta)
			}),
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/podtemplates",
		New:     api.New[corev1.PodTemplate], NewList: api.NewList[corev1.PodTemplateList],
		Rules: api.For[*corev1.PodTemplate]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, t *corev1.PodTemplate) {
				t.Generation = 1
				podspec.DropDisabled(&t.Template.Spec, nil)
			},
			PrepareForUpdate: func(_ context.Context, t, old *corev1.PodTemplate) {
				podspec.DropDisabled(&t.Template.Spec, &old.Template.Spec)
				t.Generation = old.Generation
				if !apiequality.Semantic.DeepEqual(t.Template, old.Template) {
					t.Generation++
				}
			},
			Validate: func(t *corev1.PodTemplate) field.ErrorList {
				return podspec.ValidateTemplate(&t.Template, nil, field.NewPath("template"))
			},
			ValidateUpdate: func(t, old *corev1.PodTemplate) field.ErrorList {
				return podspec.ValidateTemplate(&t.Template, &old.Template, field.NewPath("template"))
			},
			Warnings: func(t, old *corev1.PodTemplate) []string {
				if old != nil && t.Generation == old.Generation {
					return nil
				}
				return podspec.TemplateWarnings(&t.Template, field.NewPath("template"))
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Containers", "Names of each container in the template."),
				table.String("Images", "Images referenced by each container in the template."),
				table.String("Pod Labels", "The labels for the pod template."),
			},
			Cells: func(t *corev1.PodTemplate) []any {
				names, images := table.Containers(t.Template.Spec.Containers)
				return []any{t.Name, names, images, orNone(labels.FormatLabels(t.Template.Labels))}
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
	}
}
