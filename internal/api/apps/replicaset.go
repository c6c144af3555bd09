// SPDX-License-Identifier: Apache-2.0

package apps

import (
	"context"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/podspec"
	"kaji/internal/api/table"
)

func replicaSet() *api.Kind {
	status, spec := appsv1.ReplicaSetStatus{}.SwaggerDoc(), appsv1.ReplicaSetSpec{}.SwaggerDoc()
	return &api.Kind{
		Group: appsv1.GroupName, Name: "ReplicaSet", Resource: "replicasets", Singular: "replicaset",
		ShortNames: []string{"rs"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: appsv1.SchemeGroupVersion,
			New:          api.New[appsv1.ReplicaSet], NewList: api.NewList[appsv1.ReplicaSetList],
			Default: api.Default(defaultReplicaSet),
			// status.replicas is selectable in the store, but no version accepts it.
			FieldLabels: []string{},
		}},
		Storage: appsv1.SchemeGroupVersion,
		Prefix:  "/registry/replicasets",
		New:     api.New[appsv1.ReplicaSet], NewList: api.NewList[appsv1.ReplicaSetList],
		Rules: api.For[*appsv1.ReplicaSet]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, r *appsv1.ReplicaSet) {
				r.Status = appsv1.ReplicaSetStatus{}
				r.Generation = 1
				podspec.DropDisabled(&r.Spec.Template.Spec, nil)
			},
			PrepareForUpdate: func(_ context.Context, r, old *appsv1.ReplicaSet) {
				r.Status = old.Status
				podspec.DropDisabled(&r.Spec.Template.Spec, &old.Spec.Template.Spec)
				if !apiequality.Semantic.DeepEqual(r.Spec, old.Spec) {
					r.Generation = old.Generation + 1
				}
			},
			Validate: func(r *appsv1.ReplicaSet) field.ErrorList {
				return validateReplicaSetSpec(&r.Spec, nil, field.NewPath("spec"))
			},
			ValidateUpdate: func(r, old *appsv1.ReplicaSet) field.ErrorList {
				path := field.NewPath("spec")
				errs := validateReplicaSetSpec(&r.Spec, &old.Spec, path)
				return append(errs, apivalidation.ValidateImmutableField(r.Spec.Selector, old.Spec.Selector, path.Child("selector"))...)
			},
			Warnings: func(r, old *appsv1.ReplicaSet) []string {
				if old == nil {
					return append(podNameWarnings(r.Name), podspec.TemplateWarnings(&r.Spec.Template, field.NewPath("spec", "template"))...)
				}
				if r.Generation == old.Generation {
					return nil
				}
				return podspec.TemplateWarnings(&r.Spec.Template, field.NewPath("spec", "template"))
			},
			Fields: func(r *appsv1.ReplicaSet) fields.Set {
				return fields.Set{"status.replicas": strconv.Itoa(int(r.Status.Replicas))}
			},
			Columns: append([]metav1.TableColumnDefinition{
				table.Name(),
				table.Integer("Desired", spec["replicas"]),
				table.Integer("Current", status["replicas"]),
				table.Integer("Ready", status["readyReplicas"]),
				table.Age(),
			}, append(table.ContainerColumns(), table.Wide(table.String("Selector", spec["selector"])))...),
			Cells: func(r *appsv1.ReplicaSet) []any {
				names, images := table.Containers(r.Spec.Template.Spec.Containers)
				return []any{r.Name, int64(replicas(r.Spec.Replicas)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas),
					table.Since(r.CreationTimestamp), names, images, metav1.FormatLabelSelector(r.Spec.Selector)}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, r, old *appsv1.ReplicaSet) {
				r.Spec = old.Spec
			}),
			ValidateUpdate: api.Update(func(r, _ *appsv1.ReplicaSet) field.ErrorList {
				return validateReplicaSetStatus(&r.Status, field.NewPath("status"))
			}),
			ResetFields: []string{"spec"},
		},
		Scale: scaleOf(func(r *appsv1.ReplicaSet) (**int32, int32, *metav1.LabelSelector) {
			return &r.Spec.Replicas, r.Status.Replicas, r.Spec.Selector
		}),
		AllowUnconditionalUpdate: true,
	}
}

func defaultReplicaSet(r *appsv1.ReplicaSet) {
	podspec.DefaultTemplate(&r.Spec.Template)
	setDefault(&r.Spec.Replicas, 1)
}

func validateReplicaSetSpec(spec, old *appsv1.ReplicaSetSpec, path *field.Path) field.ErrorList {
	errs := validateCounts(path, count{"replicas", int64(replicas(spec.Replicas))}, count{"minReadySeconds", int64(spec.MinReadySeconds)})
	// The word "deployment" is what clients are told here, too.
	errs = append(errs, validateSelector(spec.Selector, "deployment", path.Child("selector"))...)
	if old == nil {
		return append(errs, validateReplicated(&spec.Template, nil, spec.Selector, path)...)
	}
	return append(errs, validateReplicated(&spec.Template, &old.Template, spec.Selector, path)...)
}

func validateReplicaSetStatus(status *appsv1.ReplicaSetStatus, path *field.Path) field.ErrorList {
	errs := validateCounts(path,
		count{"replicas", int64(status.Replicas)},
		count{"fullyLabeledReplicas", int64(status.FullyLabeledReplicas)},
		count{"readyReplicas", int64(status.ReadyReplicas)},
		count{"availableReplicas", int64(status.AvailableReplicas)},
		count{"observedGeneration", status.ObservedGeneration},
		optional("terminatingReplicas", status.TerminatingReplicas))
	errs = append(errs, validateAtMost(path, status.Replicas, "cannot be greater than status.replicas",
		count{"fullyLabeledReplicas", int64(status.FullyLabeledReplicas)},
		count{"readyReplicas", int64(status.ReadyReplicas)},
		count{"availableReplicas", int64(status.AvailableReplicas)})...)
	return append(errs, validateAtMost(path, status.ReadyReplicas, "cannot be greater than readyReplicas",
		count{"availableReplicas", int64(status.AvailableReplicas)})...)
}
