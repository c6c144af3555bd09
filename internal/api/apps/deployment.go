// SPDX-License-Identifier: Apache-2.0

package apps

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/podspec"
	"kaji/internal/api/table"
)

func deployment() *api.Kind {
	status, spec := appsv1.DeploymentStatus{}.SwaggerDoc(), appsv1.DeploymentSpec{}.SwaggerDoc()
	return &api.Kind{
		Group: appsv1.GroupName, Name: "Deployment", Resource: "deployments", Singular: "deployment",
		ShortNames: []string{"deploy"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: appsv1.SchemeGroupVersion,
			New:          api.New[appsv1.Deployment], NewList: api.NewList[appsv1.DeploymentList],
			Default: api.Default(defaultDeployment),
		}},
		Storage: appsv1.SchemeGroupVersion,
		Prefix:  "/registry/deployments",
		New:     api.New[appsv1.Deployment], NewList: api.NewList[appsv1.DeploymentList],
		Rules: api.For[*appsv1.Deployment]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, d *appsv1.Deployment) {
				d.Status = appsv1.DeploymentStatus{}
				d.Generation = 1
				podspec.DropDisabled(&d.Spec.Template.Spec, nil)
			},
			PrepareForUpdate: func(_ context.Context, d, old *appsv1.Deployment) {
				d.Status = old.Status
				podspec.DropDisabled(&d.Spec.Template.Spec, &old.Spec.Template.Spec)
				if !apiequality.Semantic.DeepEqual(d.Spec, old.Spec) || !apiequality.Semantic.DeepEqual(d.Annotations, old.Annotations) {
					d.Generation = old.Generation + 1
				}
			},
			Validate: func(d *appsv1.Deployment) field.ErrorList {
				return validateDeploymentSpec(&d.Spec, nil, field.NewPath("spec"))
			},
			ValidateUpdate: func(d, old *appsv1.Deployment) field.ErrorList {
				path := field.NewPath("spec")
				errs := validateDeploymentSpec(&d.Spec, &old.Spec, path)
				return append(errs, apivalidation.ValidateImmutableField(d.Spec.Selector, old.Spec.Selector, path.Child("selector"))...)
			},
			Warnings: func(d, old *appsv1.Deployment) []string {
				if old == nil {
					return append(podNameWarnings(d.Name), podspec.TemplateWarnings(&d.Spec.Template, field.NewPath("spec", "template"))...)
				}
				if d.Generation == old.Generation {
					return nil
				}
				return podspec.TemplateWarnings(&d.Spec.Template, field.NewPath("spec", "template"))
			},
			Columns: append([]metav1.TableColumnDefinition{
				table.Name(),
				table.String("Ready", "Number of the pod with ready state"),
				table.String("Up-to-date", status["updatedReplicas"]),
				table.String("Available", status["availableReplicas"]),
				table.Age(),
			}, append(table.ContainerColumns(), table.Wide(table.String("Selector", spec["selector"])))...),
			Cells: func(d *appsv1.Deployment) []any {
				names, images := table.Containers(d.Spec.Template.Spec.Containers)
				selector := "<invalid>"
				if s, err := metav1.LabelSelectorAsSelector(d.Spec.Selector); err == nil {
					selector = s.String()
				}
				return []any{d.Name, fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, replicas(d.Spec.Replicas)),
					int64(d.Status.UpdatedReplicas), int64(d.Status.AvailableReplicas), table.Since(d.CreationTimestamp), names, images, selector}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, d, old *appsv1.Deployment) {
				d.Spec, d.Labels = old.Spec, old.Labels
			}),
			ValidateUpdate: api.Update(func(d, old *appsv1.Deployment) field.ErrorList {
				errs := validateDeploymentStatus(&d.Status, field.NewPath("status"))
				return append(errs, validateCollisionCount(d.Status.CollisionCount, old.Status.CollisionCount)...)
			}),
			ResetFields: []string{"spec", "metadata.labels"},
		},
		Scale: scaleOf(func(d *appsv1.Deployment) (**int32, int32, *metav1.LabelSelector) {
			return &d.Spec.Replicas, d.Status.Replicas, d.Spec.Selector
		}),
		AllowUnconditionalUpdate: true,
	}
}

// scaleOf is the Scale of a workload; parts gives its replicas wanted, its
// replicas seen and its selector.
func scaleOf[T api.Object](parts func(T) (**int32, int32, *metav1.LabelSelector)) *api.Scale {
	return &api.Scale{
		Get: func(obj api.Object) (*autoscalingv1.Scale, error) {
			wanted, seen, labelSelector := parts(obj.(T))
			selector, err := metav1.LabelSelectorAsSelector(labelSelector)
			if err != nil {
				return nil, err
			}
			return &autoscalingv1.Scale{
				Spec:   autoscalingv1.ScaleSpec{Replicas: replicas(*wanted)},
				Status: autoscalingv1.ScaleStatus{Replicas: seen, Selector: selector.String()},
			}, nil
		},
		Set: func(obj api.Object, n int32) error {
			wanted, _, _ := parts(obj.(T))
			*wanted = &n
			return nil
		},
		Path: "spec.replicas",
	}
}

// replicas is the number wanted, one when it is not said.
func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

func defaultDeployment(d *appsv1.Deployment) {
	spec := &d.Spec
	podspec.DefaultTemplate(&spec.Template)
	setDefault(&spec.Replicas, 1)
	if spec.Strategy.Type == "" {
		spec.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		setDefault(&spec.Strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
		setDefault(&spec.Strategy.RollingUpdate.MaxUnavailable, intstr.FromString("25%"))
		setDefault(&spec.Strategy.RollingUpdate.MaxSurge, intstr.FromString("25%"))
	}
	setDefault(&spec.RevisionHistoryLimit, 10)
	setDefault(&spec.ProgressDeadlineSeconds, 600)
}

func validateDeploymentSpec(spec, old *appsv1.DeploymentSpec, path *field.Path) field.ErrorList {
	errs := validateCounts(path, count{"replicas", int64(replicas(spec.Replicas))})
	errs = append(errs, validateSelector(spec.Selector, "deployment", path.Child("selector"))...)
	if old == nil {
		errs = append(errs, validateReplicated(&spec.Template, nil, spec.Selector, path)...)
	} else {
		errs = append(errs, validateReplicated(&spec.Template, &old.Template, spec.Selector, path)...)
	}
	errs = append(errs, validateDeploymentStrategy(&spec.Strategy, path.Child("strategy"))...)
	errs = append(errs, validateCounts(path,
		count{"minReadySeconds", int64(spec.MinReadySeconds)},
		optional("revisionHistoryLimit", spec.RevisionHistoryLimit),
		optional("progressDeadlineSeconds", spec.ProgressDeadlineSeconds))...)
	if deadline := spec.ProgressDeadlineSeconds; deadline != nil && *deadline <= spec.MinReadySeconds {
		errs = append(errs, field.Invalid(path.Child("progressDeadlineSeconds"), *deadline, "must be greater than minReadySeconds"))
	}
	return errs
}

func validateDeploymentStrategy(strategy *appsv1.DeploymentStrategy, path *field.Path) field.ErrorList {
	switch strategy.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if strategy.RollingUpdate != nil {
			return field.ErrorList{field.Forbidden(path.Child("rollingUpdate"), "may not be specified when strategy `type` is 'Recreate'")}
		}
		return nil
	case appsv1.RollingUpdateDeploymentStrategyType:
		if strategy.RollingUpdate == nil {
			return field.ErrorList{field.Required(path.Child("rollingUpdate"), "this should be defaulted and never be nil")}
		}
		return validateRollingDeployment(strategy.RollingUpdate, path.Child("rollingUpdate"))
	}
	return field.ErrorList{notSupported(path, badvalue.Of(strategy), appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType)}
}

func validateRollingDeployment(rolling *appsv1.RollingUpdateDeployment, path *field.Path) field.ErrorList {
	unavailable, surge := orZero(rolling.MaxUnavailable), orZero(rolling.MaxSurge)
	errs := validateIntOrPercent(unavailable, path.Child("maxUnavailable"))
	errs = append(errs, validateIntOrPercent(surge, path.Child("maxSurge"))...)
	if amount(&unavailable) == 0 && amount(&surge) == 0 {
		errs = append(errs, field.Invalid(path.Child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0"))
	}
	return append(errs, validateAtMostAll(unavailable, path.Child("maxUnavailable"))...)
}

// notSupported is field.NotSupported for a value that is no string itself.
func notSupported[T ~string](path *field.Path, value any, supported ...T) *field.Error {
	err := field.NotSupported(path, "", supported)
	err.BadValue = value
	return err
}

func validateDeploymentStatus(status *appsv1.DeploymentStatus, path *field.Path) field.ErrorList {
	errs := validateCounts(path,
		count{"observedGeneration", status.ObservedGeneration},
		count{"replicas", int64(status.Replicas)},
		count{"updatedReplicas", int64(status.UpdatedReplicas)},
		count{"readyReplicas", int64(status.ReadyReplicas)},
		count{"availableReplicas", int64(status.AvailableReplicas)},
		count{"unavailableReplicas", int64(status.UnavailableReplicas)},
		optional("terminatingReplicas", status.TerminatingReplicas),
		optional("collisionCount", status.CollisionCount))
	errs = append(errs, validateAtMost(path, status.Replicas, "cannot be greater than status.replicas",
		count{"updatedReplicas", int64(status.UpdatedReplicas)},
		count{"readyReplicas", int64(status.ReadyReplicas)},
		count{"availableReplicas", int64(status.AvailableReplicas)})...)
	return append(errs, validateAtMost(path, status.ReadyReplicas, "cannot be greater than readyReplicas",
		count{"availableReplicas", int64(status.AvailableReplicas)})...)
}
