// SPDX-License-Identifier: Apache-2.0

package core

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/podspec"
	"kaji/internal/api/table"
)

func replicationController() *api.Kind {
	spec, status := corev1.ReplicationControllerSpec{}.SwaggerDoc(), corev1.ReplicationControllerStatus{}.SwaggerDoc()
	return &api.Kind{
		Name: "ReplicationController", Resource: "replicationcontrollers", Singular: "replicationcontroller",
		ShortNames: []string{"rc"}, Categories: []string{"all"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.ReplicationController], NewList: api.NewList[corev1.ReplicationControllerList],
			Default: api.Default(defaultReplicationController),
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/controllers",
		New:     api.New[corev1.ReplicationController], NewList: api.NewList[corev1.ReplicationControllerList],
		Rules: api.For[*corev1.ReplicationController]{
			ValidateName: func(name string, prefix bool) []string {
				if prefix {
					return nil // the name made of it is judged
				}
				return content.IsDNS1123Subdomain(name)
			},
			PrepareForCreate: func(_ context.Context, rc *corev1.ReplicationController) {
				rc.Status = corev1.ReplicationControllerStatus{}
				rc.Generation = 1
				if rc.Spec.Template != nil {
					podspec.DropDisabled(&rc.Spec.Template.Spec, nil)
				}
			},
			PrepareForUpdate: func(_ context.Context, rc, old *corev1.ReplicationController) {
				rc.Status = old.Status
				if rc.Spec.Template != nil {
					podspec.DropDisabled(&rc.Spec.Template.Spec, templateSpec(old))
				}
				rc.Generation = old.Generation
				if !apiequality.Semantic.DeepEqual(rc.Spec, old.Spec) {
					rc.Generation++
				}
			},
			Validate: func(rc *corev1.ReplicationController) field.ErrorList {
				return validateReplicationControllerSpec(&rc.Spec, nil, field.NewPath("spec"))
			},
			ValidateUpdate: func(rc, old *corev1.ReplicationController) field.ErrorList {
				return validateReplicationControllerSpec(&rc.Spec, &old.Spec, field.NewPath("spec"))
			},
			Warnings: replicationControllerWarnings,
			Fields: func(rc *corev1.ReplicationController) fields.Set {
				return fields.Set{"status.replicas": strconv.Itoa(int(rc.Status.Replicas))}
			},
			Columns: append([]metav1.TableColumnDefinition{
				table.Name(),
				table.Integer("Desired", spec["replicas"]),
				table.Integer("Current", status["replicas"]),
				table.Integer("Ready", status["readyReplicas"]),
				table.Age(),
			}, append(table.ContainerColumns(), table.Wide(table.String("Selector", spec["selector"])))...),
			Cells: func(rc *corev1.ReplicationController) []any {
				var names, images string
				if rc.Spec.Template != nil {
					names, images = table.Containers(rc.Spec.Template.Spec.Containers)
				}
				return []any{rc.Name, int64(*rc.Spec.Replicas), int64(rc.Status.Replicas), int64(rc.Status.ReadyReplicas),
					table.Since(rc.CreationTimestamp), names, images, orNone(labels.FormatLabels(rc.Spec.Selector))}
			},
		}.Rules(),
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, rc, old *corev1.ReplicationController) {
				rc.Spec = old.Spec
			}),
			ValidateUpdate: api.Update(func(rc, _ *corev1.ReplicationController) field.ErrorList {
				return validateReplicationControllerStatus(&rc.Status, field.NewPath("status"))
			}),
			ResetFields: []string{"spec"},
		},
		Scale: &api.Scale{
			Get: func(obj api.Object) (*autoscalingv1.Scale, error) {
				rc := obj.(*corev1.ReplicationController)
				return &autoscalingv1.Scale{
					Spec:   autoscalingv1.ScaleSpec{Replicas: *rc.Spec.Replicas},
					Status: autoscalingv1.ScaleStatus{Replicas: rc.Status.Replicas, Selector: labels.SelectorFromSet(rc.Spec.Selector).String()},
				}, nil
			},
			Set: func(obj api.Object, replicas int32) error {
				obj.(*corev1.ReplicationController).Spec.Replicas = &replicas
				return nil
			},
			Path: "spec.replicas",
		},
		AllowUnconditionalUpdate: true,
		GarbageCollection:        api.GCOrphan,
		ResetFields:              []string{"status"},
	}
}

func templateSpec(rc *corev1.ReplicationController) *corev1.PodSpec {
	if rc == nil || rc.Spec.Template == nil {
		return nil
	}
	return &rc.Spec.Template.Spec
}

func defaultReplicationController(rc *corev1.ReplicationController) {
	if rc.Spec.Replicas == nil {
		one := int32(1)
		rc.Spec.Replicas = &one
	}
	template := rc.Spec.Template
	if template == nil {
		return
	}
	podspec.DefaultTemplate(template)
	dropInitContainerAnnotations(&template.ObjectMeta)
	if template.Labels == nil {
		return
	}
	if len(rc.Spec.Selector) == 0 {
		rc.Spec.Selector = copyLabels(template.Labels)
	}
	if len(rc.Labels) == 0 {
		rc.Labels = copyLabels(template.Labels)
	}
}

func copyLabels(in map[string]string) map[string]string {
	out := make(map[string]string, len(in))
	for key, value := range in {
		out[key] = value
	}
	return out
}

func validateReplicationControllerSpec(spec, old *corev1.ReplicationControllerSpec, p *field.Path) field.ErrorList {
	errs := apivalidation.ValidateNonnegativeField(int64(spec.MinReadySeconds), p.Child("minReadySeconds"))
	selector := labels.SelectorFromSet(spec.Selector)
	if selector.Empty() {
		errs = append(errs, field.Required(p.Child("selector"), ""))
	}
	if spec.Replicas == nil {
		errs = append(errs, field.Required(p.Child("replicas"), ""))
	} else {
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(*spec.Replicas), p.Child("replicas"))...)
	}
	p = p.Child("template")
	template := spec.Template
	if template == nil {
		return append(errs, field.Required(p, ""))
	}
	if !selector.Empty() && !selector.Matches(labels.Set(template.Labels)) {
		errs = append(errs, field.Invalid(p.Child("metadata", "labels"), template.Labels, "`selector` does not match template `labels`"))
	}
	var before *corev1.PodTemplateSpec
	if old != nil {
		before = old.Template
	}
	errs = append(errs, podspec.ValidateTemplate(template, before, p)...)
	if template.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(p.Child("spec", "restartPolicy"), template.Spec.RestartPolicy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if template.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(p.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicationController is not Supported"))
	}
	return errs
}

func validateReplicationControllerStatus(s *corev1.ReplicationControllerStatus, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"replicas", int64(s.Replicas)}, {"fullyLabeledReplicas", int64(s.FullyLabeledReplicas)}, {"readyReplicas", int64(s.ReadyReplicas)},
		{"availableReplicas", int64(s.AvailableReplicas)}, {"observedGeneration", s.ObservedGeneration},
	} {
		errs = append(errs, apivalidation.ValidateNonnegativeField(n.value, p.Child(n.name))...)
	}
	atMost := func(name string, value, limit int32, what string) {
		if value > limit {
			errs = append(errs, field.Invalid(p.Child(name), value, "cannot be greater than "+what))
		}
	}
	atMost("fullyLabeledReplicas", s.FullyLabeledReplicas, s.Replicas, "status.replicas")
	atMost("readyReplicas", s.ReadyReplicas, s.Replicas, "status.replicas")
	atMost("availableReplicas", s.AvailableReplicas, s.Replicas, "status.replicas")
	atMost("availableReplicas", s.AvailableReplicas, s.ReadyReplicas, "readyReplicas")
	return errs
}

func replicationControllerWarnings(rc, old *corev1.ReplicationController) []string {
	var out []string
	if old == nil {
		if messages := validation.IsDNS1123Label(rc.Name); len(messages) > 0 {
			out = append(out, fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [%s]", strings.Join(messages, " ")))
		}
	} else if rc.Generation == old.Generation {
		return nil
	}
	// The reference looks at the template that was there before.
	if old != nil {
		rc = old
	}
	if rc.Spec.Template != nil {
		out = append(out, podspec.TemplateWarnings(rc.Spec.Template, field.NewPath("spec", "template"))...)
	}
	return out
}
