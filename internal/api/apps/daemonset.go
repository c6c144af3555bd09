// SPDX-License-Identifier: Apache-2.0

package apps

import (
	"context"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/podspec"
	"kaji/internal/api/table"
)

func daemonSet() *api.Kind {
	status, spec := appsv1.DaemonSetStatus{}.SwaggerDoc(), appsv1.DaemonSetSpec{}.SwaggerDoc()
	return &api.Kind{
		Group: appsv1.GroupName, Name: "DaemonSet", Resource: "daemonsets", Singular: "daemonset",
		ShortNames: []string{"ds"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: appsv1.SchemeGroupVersion,
			New:          api.New[appsv1.DaemonSet], NewList: api.NewList[appsv1.DaemonSetList],
			Default: api.Default(defaultDaemonSet),
		}},
		Storage: appsv1.SchemeGroupVersion,
		Prefix:  "/registry/daemonsets",
		New:     api.New[appsv1.DaemonSet], NewList: api.NewList[appsv1.DaemonSetList],
		Rules: api.For[*appsv1.DaemonSet]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, d *appsv1.DaemonSet) {
				d.Status = appsv1.DaemonSetStatus{}
				d.Generation = 1
				podspec.DropDisabled(&d.Spec.Template.Spec, nil)
				setTemplateGeneration(d, max(templateGeneration(d), 1))
			},
			PrepareForUpdate: func(_ context.Context, d, old *appsv1.DaemonSet) {
				d.Status = old.Status
				podspec.DropDisabled(&d.Spec.Template.Spec, &old.Spec.Template.Spec)
				generation := templateGeneration(old)
				if !apiequality.Semantic.DeepEqual(d.Spec.Template, old.Spec.Template) {
					generation++
				}
				setTemplateGeneration(d, generation)
				if !apiequality.Semantic.DeepEqual(d.Spec, old.Spec) {
					d.Generation = old.Generation + 1
				}
			},
			Validate: func(d *appsv1.DaemonSet) field.ErrorList {
				return validateDaemonSetSpec(&d.Spec, nil, field.NewPath("spec"))
			},
			ValidateUpdate: func(d, old *appsv1.DaemonSet) field.ErrorList {
				path := field.NewPath("spec")
				errs := apivalidation.ValidateImmutableField(d.Spec.Selector, old.Spec.Selector, path.Child("selector"))
				return append(errs, validateDaemonSetSpec(&d.Spec, &old.Spec, path)...)
			},
			Warnings: func(d, old *appsv1.DaemonSet) []string {
				if old == nil {
					return podspec.TemplateWarnings(&d.Spec.Template, field.NewPath("spec", "template"))
				}
				if templateGeneration(d) == templateGeneration(old) {
					return nil
				}
				return podspec.TemplateWarnings(&d.Spec.Template, field.NewPath("spec", "template"))
			},
			Columns: append([]metav1.TableColumnDefinition{
				table.Name(),
				table.Integer("Desired", status["desiredNumberScheduled"]),
				table.Integer("Current", status["currentNumberScheduled"]),
				table.Integer("Ready", status["numberReady"]),
				table.Integer("Up-to-date", status["updatedNumberScheduled"]),
				table.Integer("Available", status["numberAvailable"]),
				table.String("Node Selector", corev1.PodSpec{}.SwaggerDoc()["nodeSelector"]),
				table.Age(),
			}, append(table.ContainerColumns(), table.Wide(table.String("Selector", spec["selector"])))...),
			Cells: func(d *appsv1.DaemonSet) []any {
				names, images := table.Containers(d.Spec.Template.Spec.Containers)
				s := &d.Status
				return []any{d.Name, int64(s.DesiredNumberScheduled), int64(s.CurrentNumberScheduled), int64(s.NumberReady),
					int64(s.UpdatedNumberScheduled), int64(s.NumberAvailable), labels.FormatLabels(d.Spec.Template.Spec.NodeSelector),
					table.Since(d.CreationTimestamp), names, images, metav1.FormatLabelSelector(d.Spec.Selector)}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, d, old *appsv1.DaemonSet) {
				d.Spec = old.Spec
			}),
			ValidateUpdate: api.Update(func(d, old *appsv1.DaemonSet) field.ErrorList {
				errs := validateDaemonSetStatus(&d.Status, field.NewPath("status"))
				return append(errs, validateCollisionCount(d.Status.CollisionCount, old.Status.CollisionCount)...)
			}),
			ResetFields: []string{"spec"},
		},
		AllowUnconditionalUpdate: true,
		FieldAnnotation:          appsv1.DeprecatedTemplateGeneration,
	}
}

// templateGeneration counts the changes of the pod template. It was a field in
// version v1beta1 and lives in an annotation since.
func templateGeneration(d *appsv1.DaemonSet) int64 {
	n, err := strconv.ParseInt(d.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func setTemplateGeneration(d *appsv1.DaemonSet, generation int64) {
	annotations := make(map[string]string, len(d.Annotations)+1)
	for k, v := range d.Annotations {
		annotations[k] = v
	}
	annotations[appsv1.DeprecatedTemplateGeneration] = strconv.FormatInt(generation, 10)
	d.Annotations = annotations
}

func defaultDaemonSet(d *appsv1.DaemonSet) {
	if d.Annotations[appsv1.DeprecatedTemplateGeneration] == "" {
		setTemplateGeneration(d, 0) // whoever writes the object owns it
	}
	podspec.DefaultTemplate(&d.Spec.Template)
	strategy := &d.Spec.UpdateStrategy
	if strategy.Type == "" {
		strategy.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	if strategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		setDefault(&strategy.RollingUpdate, appsv1.RollingUpdateDaemonSet{})
		setDefault(&strategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
		setDefault(&strategy.RollingUpdate.MaxSurge, intstr.FromInt32(0))
	}
	setDefault(&d.Spec.RevisionHistoryLimit, 10)
}

func validateDaemonSetSpec(spec, old *appsv1.DaemonSetSpec, path *field.Path) field.ErrorList {
	opts := metavalidation.LabelSelectorValidationOptions{
		AllowInvalidLabelValueInSelector: old != nil && metavalidation.LabelSelectorHasInvalidLabelValue(old.Selector),
	}
	errs := metavalidation.ValidateLabelSelector(spec.Selector, opts, path.Child("selector"))
	templatePath := path.Child("template")
	if selector, err := metav1.LabelSelectorAsSelector(spec.Selector); err == nil && !selector.Matches(labels.Set(spec.Template.Labels)) {
		errs = append(errs, field.Invalid(templatePath.Child("metadata", "labels"), spec.Template.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, validateSelectorNotEmpty(spec.Selector, "daemonset", path.Child("selector"))...)
	if old == nil {
		errs = append(errs, podspec.ValidateTemplate(&spec.Template, nil, templatePath)...)
	} else {
		errs = append(errs, podspec.ValidateTemplate(&spec.Template, &old.Template, templatePath)...)
	}
	errs = append(errs, validateEndless(&spec.Template, "DaemonSet", templatePath)...)
	errs = append(errs, validateCounts(path, count{"minReadySeconds", int64(spec.MinReadySeconds)})...)
	errs = append(errs, validateDaemonSetStrategy(&spec.UpdateStrategy, path.Child("updateStrategy"))...)
	return append(errs, validateCounts(path, optional("revisionHistoryLimit", spec.RevisionHistoryLimit))...)
}

func validateDaemonSetStrategy(strategy *appsv1.DaemonSetUpdateStrategy, path *field.Path) field.ErrorList {
	switch strategy.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
		return nil
	case appsv1.RollingUpdateDaemonSetStrategyType:
		if strategy.RollingUpdate == nil {
			return field.ErrorList{field.Required(path.Child("rollingUpdate"), "")}
		}
		return validateRollingDaemonSet(strategy.RollingUpdate, path.Child("rollingUpdate"))
	}
	return field.ErrorList{notSupported(path, badvalue.Of(strategy), appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType)}
}

func validateRollingDaemonSet(rolling *appsv1.RollingUpdateDaemonSet, path *field.Path) field.ErrorList {
	unavailable, surge := orZero(rolling.MaxUnavailable), orZero(rolling.MaxSurge)
	errs := validateIntOrPercent(unavailable, path.Child("maxUnavailable"))
	errs = append(errs, validateIntOrPercent(surge, path.Child("maxSurge"))...)
	errs = append(errs, validateAtMostAll(unavailable, path.Child("maxUnavailable"))...)
	errs = append(errs, validateAtMostAll(surge, path.Child("maxSurge"))...)
	switch hasUnavailable, hasSurge := amount(&unavailable) != 0, amount(&surge) != 0; {
	case hasUnavailable && hasSurge:
		errs = append(errs, field.Invalid(path.Child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero"))
	case !hasUnavailable && !hasSurge:
		errs = append(errs, field.Required(path.Child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

func validateDaemonSetStatus(status *appsv1.DaemonSetStatus, path *field.Path) field.ErrorList {
	return validateCounts(path,
		count{"currentNumberScheduled", int64(status.CurrentNumberScheduled)},
		count{"numberMisscheduled", int64(status.NumberMisscheduled)},
		count{"desiredNumberScheduled", int64(status.DesiredNumberScheduled)},
		count{"numberReady", int64(status.NumberReady)},
		count{"observedGeneration", status.ObservedGeneration},
		count{"updatedNumberScheduled", int64(status.UpdatedNumberScheduled)},
		count{"numberAvailable", int64(status.NumberAvailable)},
		count{"numberUnavailable", int64(status.NumberUnavailable)},
		optional("collisionCount", status.CollisionCount))
}
