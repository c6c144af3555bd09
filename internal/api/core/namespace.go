// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func namespace() *api.Kind {
	return &api.Kind{
		Name: "Namespace", Resource: "namespaces", Singular: "namespace",
		ShortNames: []string{"ns"},
		Verbs:      []string{"create", "delete", "get", "list", "patch", "update", "watch"},
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Namespace], NewList: api.NewList[corev1.NamespaceList],
			Default: api.Default(defaultNamespace),
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/namespaces",
		New:     api.New[corev1.Namespace], NewList: api.NewList[corev1.NamespaceList],
		Rules: api.For[*corev1.Namespace]{
			ValidateName: apivalidation.ValidateNamespaceName,
			PrepareForCreate: func(_ context.Context, n *corev1.Namespace) {
				n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
				if !slices.Contains(n.Spec.Finalizers, corev1.FinalizerKubernetes) {
					n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
				}
				labelNamespace(n) // also one whose name was just generated
			},
			PrepareForUpdate: func(_ context.Context, n, old *corev1.Namespace) {
				n.Spec.Finalizers, n.Status = old.Spec.Finalizers, old.Status
			},
			Validate: func(n *corev1.Namespace) field.ErrorList {
				var errs field.ErrorList
				for _, finalizer := range n.Spec.Finalizers {
					errs = append(errs, validateFinalizer(string(finalizer), field.NewPath("spec", "finalizers"))...)
				}
				return errs
			},
			Canonicalize: labelNamespace,
			BeforeDelete: func(n *corev1.Namespace) { n.Status.Phase = corev1.NamespaceTerminating },
			Held:         func(n *corev1.Namespace) bool { return len(n.Spec.Finalizers) > 0 },
			Fields: func(n *corev1.Namespace) fields.Set {
				return fields.Set{"status.phase": string(n.Status.Phase)}
			},
			Columns: []metav1.TableColumnDefinition{table.Name(), table.String("Status", "The status of the namespace"), table.Age()},
			Cells: func(n *corev1.Namespace) []any {
				return []any{n.Name, string(n.Status.Phase), table.Since(n.CreationTimestamp)}
			},
		}.Rules(),
		Status: &api.Subresource{
			Name:             "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, n, old *corev1.Namespace) { n.Spec = old.Spec }),
			ValidateUpdate:   api.Update(validateNamespaceStatus),
			ResetFields:      []string{"spec"},
		},
		Subresources: []api.Subresource{{
			Name:             "finalize",
			Verbs:            []string{"update"},
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, n, old *corev1.Namespace) { n.Status = old.Status }),
			ValidateUpdate: api.Update(func(n, _ *corev1.Namespace) field.ErrorList {
				var errs field.ErrorList
				for i, finalizer := range n.Spec.Finalizers {
					errs = append(errs, validateFinalizer(string(finalizer), field.NewPath("spec", "finalizers").Index(i))...)
				}
				return errs
			}),
			ResetFields: []string{"status"},
		}},
		AllowUnconditionalUpdate: true,
		ReturnDeletedObject:      true,
		ResetFields:              []string{"status"},
	}
}

func defaultNamespace(n *corev1.Namespace) {
	labelNamespace(n)
	if n.Status.Phase == "" {
		n.Status.Phase = corev1.NamespaceActive
	}
}

// labelNamespace puts the name into the label that selectors choose by.
func labelNamespace(n *corev1.Namespace) {
	if n.Name == "" {
		return
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
}

func validateFinalizer(name string, p *field.Path) field.ErrorList {
	return append(apivalidation.ValidateFinalizerName(name, p), rule.KubeFinalizer(name, p)...)
}

func validateNamespaceStatus(n, _ *corev1.Namespace) field.ErrorList {
	path := field.NewPath("status", "Phase")
	switch {
	case n.DeletionTimestamp.IsZero() && n.Status.Phase != corev1.NamespaceActive:
		return field.ErrorList{field.Invalid(path, n.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty")}
	case !n.DeletionTimestamp.IsZero() && n.Status.Phase != corev1.NamespaceTerminating:
		return field.ErrorList{field.Invalid(path, n.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")}
	}
	return nil
}
