// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"

	"kaji/internal/api"
	"kaji/internal/api/scheduling"
)

// WithGroups turns the feature gate GenericWorkload on in kinds, which it owns:
// PodGroup and Workload are added, and pods and their templates keep
// spec.schedulingGroup.
func WithGroups(kinds []*api.Kind) []*api.Kind {
	for _, k := range kinds {
		if k.Group == schedulingv1beta1.GroupName {
			// The version is the groups' now, and no old one of PriorityClass.
			k.Versions = slices.DeleteFunc(k.Versions, func(v api.Version) bool { return v.GroupVersion == schedulingv1beta1.SchemeGroupVersion })
		}
		if k.New != nil {
			if _, has := podSpec(k.New()); has {
				keepGroup(&k.Rules)
			}
		}
	}
	return append(kinds, scheduling.GroupKinds()...)
}

// keepGroup puts back what the rules drop without the gate.
func keepGroup(r *api.Rules) {
	if create := r.PrepareForCreate; create != nil {
		r.PrepareForCreate = func(ctx context.Context, obj api.Object) {
			defer keep(obj)()
			create(ctx, obj)
		}
	}
	if update := r.PrepareForUpdate; update != nil {
		r.PrepareForUpdate = func(ctx context.Context, obj, old api.Object) {
			defer keep(obj)()
			update(ctx, obj, old)
		}
	}
}

// keep returns a function that gives obj the group that it has now.
func keep(obj api.Object) func() {
	spec, _ := podSpec(obj)
	if spec == nil {
		return func() {}
	}
	group := spec.SchedulingGroup
	return func() {
		if spec, _ := podSpec(obj); spec != nil {
			spec.SchedulingGroup = group
		}
	}
}

// podSpec is the spec of a pod or of an object's template, nil when there is no
// template; false says that the kind has none.
func podSpec(obj api.Object) (*corev1.PodSpec, bool) {
	switch o := obj.(type) {
	case *corev1.Pod:
		return &o.Spec, true
	case *corev1.PodTemplate:
		return &o.Template.Spec, true
	case *corev1.ReplicationController:
		if o.Spec.Template == nil {
			return nil, true
		}
		return &o.Spec.Template.Spec, true
	case *appsv1.Deployment:
		return &o.Spec.Template.Spec, true
	case *appsv1.ReplicaSet:
		return &o.Spec.Template.Spec, true
	case *appsv1.StatefulSet:
		return &o.Spec.Template.Spec, true
	case *appsv1.DaemonSet:
		return &o.Spec.Template.Spec, true
	case *batchv1.Job:
		return &o.Spec.Template.Spec, true
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template.Spec, true
	}
	return nil, false
}
