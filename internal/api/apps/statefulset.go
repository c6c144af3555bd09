// SPDX-License-Identifier: Apache-2.0

package apps

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/podspec"
	"kaji/internal/api/table"
	"kaji/internal/api/volume"
)

func statefulSet() *api.Kind {
	return &api.Kind{
		Group: appsv1.GroupName, Name: "StatefulSet", Resource: "statefulsets", Singular: "statefulset",
		ShortNames: []string{"sts"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: appsv1.SchemeGroupVersion,
			New:          api.New[appsv1.StatefulSet], NewList: api.NewList[appsv1.StatefulSetList],
			Default: api.Default(defaultStatefulSet),
		}},
		Storage: appsv1.SchemeGroupVersion,
		Prefix:  "/registry/statefulsets",
		New:     api.New[appsv1.StatefulSet], NewList: api.NewList[appsv1.StatefulSetList],
		Rules: api.For[*appsv1.StatefulSet]{
			ValidateName: apivalidation.NameIsDNSLabel,
			PrepareForCreate: func(_ context.Context, s *appsv1.StatefulSet) {
				s.Status = appsv1.StatefulSetStatus{}
				s.Generation = 1
				podspec.DropDisabled(&s.Spec.Template.Spec, nil)
			},
			PrepareForUpdate: func(_ context.Context, s, old *appsv1.StatefulSet) {
				s.Status = old.Status
				podspec.DropDisabled(&s.Spec.Template.Spec, &old.Spec.Template.Spec)
				if !apiequality.Semantic.DeepEqual(s.Spec, old.Spec) {
					s.Generation = old.Generation + 1
				}
			},
			Validate: func(s *appsv1.StatefulSet) field.ErrorList {
				return validateStatefulSetSpec(&s.Spec, nil, statefulSetChecks{serviceName: true, claims: true, template: true})
			},
			ValidateUpdate: validateStatefulSetUpdate,
			Warnings:       statefulSetWarnings,
			Columns: append([]metav1.TableColumnDefinition{
				table.Name(),
				table.String("Ready", "Number of the pod with ready state"),
				table.Age(),
			}, table.ContainerColumns()...),
			Cells: func(s *appsv1.StatefulSet) []any {
				names, images := table.Containers(s.Spec.Template.Spec.Containers)
				return []any{s.Name, fmt.Sprintf("%d/%d", s.Status.ReadyReplicas, replicas(s.Spec.Replicas)),
					table.Since(s.CreationTimestamp), names, images}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, s, old *appsv1.StatefulSet) {
				s.Spec = old.Spec
			}),
			ValidateUpdate: api.Update(func(s, old *appsv1.StatefulSet) field.ErrorList {
				errs := validateStatefulSetStatus(&s.Status, field.NewPath("status"))
				return append(errs, validateCollisionCount(s.Status.CollisionCount, old.Status.CollisionCount)...)
			}),
			ResetFields: []string{"spec"},
		},
		Scale: scaleOf(func(s *appsv1.StatefulSet) (**int32, int32, *metav1.LabelSelector) {
			return &s.Spec.Replicas, s.Status.Replicas, s.Spec.Selector
		}),
		AllowUnconditionalUpdate: true,
	}
}

// bareClaims are claims without the type that they are sent with.
func bareClaims(claims []corev1.PersistentVolumeClaim) []corev1.PersistentVolumeClaim {
	out := slices.Clone(claims)
	for i := range out {
		out[i].TypeMeta = metav1.TypeMeta{}
	}
	return out
}

func defaultStatefulSet(s *appsv1.StatefulSet) {
	spec := &s.Spec
	podspec.DefaultTemplate(&spec.Template)
	for i := range spec.VolumeClaimTemplates {
		volume.DefaultClaim(&spec.VolumeClaimTemplates[i])
		spec.VolumeClaimTemplates[i].SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"))
	}
	if spec.PodManagementPolicy == "" {
		spec.PodManagementPolicy = appsv1.OrderedReadyPodManagement
	}
	strategy := &spec.UpdateStrategy
	if strategy.Type == "" {
		strategy.Type = appsv1.RollingUpdateStatefulSetStrategyType
		setDefault(&strategy.RollingUpdate, appsv1.RollingUpdateStatefulSetStrategy{})
	}
	if strategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && strategy.RollingUpdate != nil {
		setDefault(&strategy.RollingUpdate.Partition, 0)
		setDefault(&strategy.RollingUpdate.MaxUnavailable, intstr.FromInt32(1))
	}
	setDefault(&spec.PersistentVolumeClaimRetentionPolicy, appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{})
	retention := spec.PersistentVolumeClaimRetentionPolicy
	if retention.WhenDeleted == "" {
		retention.WhenDeleted = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	}
	if retention.WhenScaled == "" {
		retention.WhenScaled = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
	}
	setDefault(&spec.Replicas, 1)
	setDefault(&spec.RevisionHistoryLimit, 10)
}

// statefulSetChecks says what of a StatefulSet is judged: an update tolerates
// what was stored before and cannot be changed.
type statefulSetChecks struct {
	serviceName, claims, template bool
}

func validateStatefulSetSpec(spec, old *appsv1.StatefulSetSpec, checks statefulSetChecks) field.ErrorList {
	path := field.NewPath("spec")
	errs := validatePodManagement(spec.PodManagementPolicy, path.Child("podManagementPolicy"))
	errs = append(errs, validateStatefulSetStrategy(&spec.UpdateStrategy, path.Child("updateStrategy"))...)
	if policy := spec.PersistentVolumeClaimRetentionPolicy; policy != nil {
		retention := path.Child("persistentVolumeClaimRetentionPolicy")
		errs = append(errs, validateRetention(policy.WhenDeleted, retention.Child("whenDeleted"))...)
		errs = append(errs, validateRetention(policy.WhenScaled, retention.Child("whenScaled"))...)
	}
	if checks.claims {
		for i := range spec.VolumeClaimTemplates {
			errs = append(errs, volume.ValidateClaimSpec(&spec.VolumeClaimTemplates[i].Spec, path.Child("volumeClaimTemplates").Index(i).Child("spec"), volume.ClaimOptionsFor(nil))...)
		}
	}
	errs = append(errs, validateCounts(path, count{"replicas", int64(replicas(spec.Replicas))}, count{"minReadySeconds", int64(spec.MinReadySeconds)})...)
	if spec.Ordinals != nil {
		errs = append(errs, validateCounts(path, count{"ordinals.start", int64(spec.Ordinals.Start)})...)
	}
	if checks.serviceName && spec.ServiceName != "" {
		for _, msg := range validation.IsDNS1123Label(spec.ServiceName) {
			errs = append(errs, field.Invalid(path.Child("serviceName"), spec.ServiceName, msg))
		}
	}
	errs = append(errs, validateSelector(spec.Selector, "statefulset", path.Child("selector"))...)
	errs = append(errs, validateStatefulSetTemplate(spec, old, checks.template, path)...)
	return append(errs, validateEndless(&spec.Template, "StatefulSet", path.Child("template"))...)
}

func validateStatefulSetTemplate(spec, old *appsv1.StatefulSetSpec, whole bool, path *field.Path) field.ErrorList {
	selector, err := metav1.LabelSelectorAsSelector(spec.Selector)
	if err != nil {
		return field.ErrorList{field.Invalid(path.Child("selector"), spec.Selector, "")}
	}
	templatePath := path.Child("template")
	template := podTemplate(spec)
	errs := validateSelected(template, selector, templatePath)
	if whole {
		var oldTemplate *corev1.PodTemplateSpec
		if old != nil {
			oldTemplate = podTemplate(old)
		}
		return append(errs, podspec.ValidateTemplate(template, oldTemplate, templatePath)...)
	}
	errs = append(errs, metavalidation.ValidateLabels(template.Labels, templatePath.Child("labels"))...)
	return append(errs, apivalidation.ValidateAnnotations(template.Annotations, templatePath.Child("annotations"))...)
}

// podTemplate is the template as the pods get it: with the volumes of the claim
// templates, and without host names, which are made from the ordinal.
func podTemplate(spec *appsv1.StatefulSetSpec) *corev1.PodTemplateSpec {
	template := spec.Template.DeepCopy()
	template.Spec.Subdomain, template.Spec.Hostname = "", ""
	if len(spec.VolumeClaimTemplates) == 0 {
		return template
	}
	var volumes []corev1.Volume
	claimed := map[string]bool{}
	for _, claim := range spec.VolumeClaimTemplates {
		if claimed[claim.Name] {
			continue
		}
		claimed[claim.Name] = true
		volumes = append(volumes, corev1.Volume{Name: claim.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name},
		}})
	}
	for _, v := range template.Spec.Volumes {
		if !claimed[v.Name] {
			volumes = append(volumes, v)
		}
	}
	template.Spec.Volumes = volumes
	return template
}

func validatePodManagement(policy appsv1.PodManagementPolicyType, path *field.Path) field.ErrorList {
	switch policy {
	case appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement:
		return nil
	case "":
		return field.ErrorList{field.Required(path, "")}
	}
	return field.ErrorList{field.Invalid(path, policy, fmt.Sprintf("must be '%s' or '%s'", appsv1.OrderedReadyPodManagement, appsv1.ParallelPodManagement))}
}

func validateStatefulSetStrategy(strategy *appsv1.StatefulSetUpdateStrategy, path *field.Path) field.ErrorList {
	const rollingUpdate, onDelete = appsv1.RollingUpdateStatefulSetStrategyType, appsv1.OnDeleteStatefulSetStrategyType
	rolling := strategy.RollingUpdate
	switch strategy.Type {
	case "":
		return field.ErrorList{field.Required(path, "")}
	case onDelete:
		if rolling != nil {
			return field.ErrorList{field.Invalid(path.Child("rollingUpdate"), badvalue.Of(rolling), fmt.Sprintf("only allowed for updateStrategy '%s'", rollingUpdate))}
		}
		return nil
	case rollingUpdate:
		if rolling != nil {
			return validateRollingStatefulSet(rolling, path.Child("rollingUpdate"))
		}
		return nil
	}
	return field.ErrorList{field.Invalid(path, badvalue.Of(strategy), fmt.Sprintf("must be '%s' or '%s'", rollingUpdate, onDelete))}
}

func validateRollingStatefulSet(rolling *appsv1.RollingUpdateStatefulSetStrategy, path *field.Path) field.ErrorList {
	errs := validateCounts(path, optional("partition", rolling.Partition))
	unavailable := rolling.MaxUnavailable
	if unavailable == nil {
		return errs
	}
	errs = append(errs, validateIntOrPercent(*unavailable, path.Child("maxUnavailable"))...)
	if amount(unavailable) == 0 {
		errs = append(errs, field.Invalid(path.Child("maxUnavailable"), *unavailable, "cannot be 0"))
	}
	return append(errs, validateAtMostAll(*unavailable, path.Child("maxUnavailable"))...)
}

func validateRetention(policy appsv1.PersistentVolumeClaimRetentionPolicyType, path *field.Path) field.ErrorList {
	switch policy {
	case appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType:
		return nil
	}
	return field.ErrorList{field.NotSupported(path, policy, []appsv1.PersistentVolumeClaimRetentionPolicyType{
		appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType})}
}

func validateStatefulSetUpdate(s, old *appsv1.StatefulSet) field.ErrorList {
	// A template that was stored although it is invalid does not block changes
	// of the rest.
	checks := statefulSetChecks{template: true}
	checks.template = len(validateStatefulSetSpec(&old.Spec, &old.Spec, checks)) == 0
	errs := validateStatefulSetSpec(&s.Spec, &old.Spec, checks)

	path := field.NewPath("spec")
	errs = append(errs, apivalidation.ValidateImmutableField(s.Spec.Selector, old.Spec.Selector, path.Child("selector"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(s.Spec.ServiceName, old.Spec.ServiceName, path.Child("serviceName"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(s.Spec.PodManagementPolicy, old.Spec.PodManagementPolicy, path.Child("podManagementPolicy"))...)
	if !apiequality.Semantic.DeepEqual(s.Spec.VolumeClaimTemplates, old.Spec.VolumeClaimTemplates) {
		errs = append(errs, field.Invalid(path.Child("volumeClaimTemplates"), badvalue.Of(bareClaims(s.Spec.VolumeClaimTemplates)), apivalidation.FieldImmutableErrorMsg))
	}
	return errs
}

func statefulSetWarnings(s, old *appsv1.StatefulSet) []string {
	var warnings []string
	path := field.NewPath("spec", "volumeClaimTemplates")
	if old == nil {
		warnings = podspec.TemplateWarnings(&s.Spec.Template, field.NewPath("spec", "template"))
	} else if s.Generation != old.Generation {
		warnings = podspec.TemplateWarnings(&s.Spec.Template, field.NewPath("spec", "template"))
	}
	for i := range s.Spec.VolumeClaimTemplates {
		claim := path.Index(i)
		if old != nil {
			claim = claim.Child("Spec")
		}
		warnings = append(warnings, volume.ClaimWarnings(&s.Spec.VolumeClaimTemplates[i].Spec, claim)...)
	}
	if limit := s.Spec.RevisionHistoryLimit; limit != nil && *limit < 0 {
		warnings = append(warnings, "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended")
	}
	return warnings
}

func validateStatefulSetStatus(status *appsv1.StatefulSetStatus, path *field.Path) field.ErrorList {
	ready, available := count{"readyReplicas", int64(status.ReadyReplicas)}, count{"availableReplicas", int64(status.AvailableReplicas)}
	current, updated := count{"currentReplicas", int64(status.CurrentReplicas)}, count{"updatedReplicas", int64(status.UpdatedReplicas)}
	errs := validateCounts(path, count{"replicas", int64(status.Replicas)}, ready, current, updated, available,
		count{"observedGeneration", status.ObservedGeneration}, optional("collisionCount", status.CollisionCount))
	errs = append(errs, validateAtMost(path, status.Replicas, "cannot be greater than status.replicas", ready, current, updated, available)...)
	return append(errs, validateAtMost(path, status.ReadyReplicas, "cannot be greater than status.readyReplicas", available)...)
}
