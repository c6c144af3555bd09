// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	"k8s.io/apimachinery/pkg/api/meta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

// GroupKinds returns the kinds of the feature gate GenericWorkload (KEP-4671),
// new at every call. They are served when --runtime-config names their version.
func GroupKinds() []*api.Kind { return []*api.Kind{workload(), podGroup()} }

func podGroup() *api.Kind {
	doc := schedulingv1beta1.PodGroupSpec{}.SwaggerDoc()
	return &api.Kind{
		Group: schedulingv1beta1.GroupName, Name: "PodGroup", Resource: "podgroups", Singular: "podgroup",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: schedulingv1beta1.SchemeGroupVersion, OptIn: true,
			New: api.New[schedulingv1beta1.PodGroup], NewList: api.NewList[schedulingv1beta1.PodGroupList],
			Default: api.Default(func(g *schedulingv1beta1.PodGroup) {
				if g.Spec.DisruptionMode == nil {
					g.Spec.DisruptionMode = &schedulingv1beta1.DisruptionMode{Single: &schedulingv1beta1.SingleDisruptionMode{}}
				}
			}),
		}},
		Storage: schedulingv1beta1.SchemeGroupVersion,
		Prefix:  "/registry/podgroups",
		New:     api.New[schedulingv1beta1.PodGroup], NewList: api.NewList[schedulingv1beta1.PodGroupList],
		Rules: api.For[*schedulingv1beta1.PodGroup]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, g *schedulingv1beta1.PodGroup) {
				g.Status = schedulingv1beta1.PodGroupStatus{}
				dropGated(&g.Spec, nil)
			},
			PrepareForUpdate: func(_ context.Context, g, old *schedulingv1beta1.PodGroup) {
				g.Status = old.Status
				dropGated(&g.Spec, &old.Spec)
			},
			Validate: func(g *schedulingv1beta1.PodGroup) field.ErrorList {
				return validatePodGroup(&g.Spec, nil)
			},
			ValidateUpdate: func(g, old *schedulingv1beta1.PodGroup) field.ErrorList {
				return validatePodGroup(&g.Spec, &old.Spec)
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Policy", doc["schedulingPolicy"]),
				table.String("Workload", "Name of the referenced Workload object"),
				table.String("Status", "Status of the PodGroup"),
				table.Age(),
			},
			Cells: podGroupCells,
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, g, old *schedulingv1beta1.PodGroup) {
				g.Spec = old.Spec
				if len(old.Spec.ResourceClaims) == 0 {
					g.Status.ResourceClaimStatuses = nil
				}
			}),
			ValidateUpdate: api.Update(func(g, _ *schedulingv1beta1.PodGroup) field.ErrorList {
				return metavalidation.ValidateConditions(g.Status.Conditions, field.NewPath("status", "conditions"))
			}),
			ResetFields: []string{"spec"},
		},
	}
}

// dropGated clears what belongs to further gates, all off by default, unless
// old had it.
func dropGated(spec, old *schedulingv1beta1.PodGroupSpec) {
	if old == nil {
		old = &schedulingv1beta1.PodGroupSpec{}
	}
	if old.SchedulingConstraints == nil {
		spec.SchedulingConstraints = nil
	}
	if len(old.ResourceClaims) == 0 {
		spec.ResourceClaims = nil
	}
	if old.PreemptionPolicy == nil {
		spec.PreemptionPolicy = nil
	}
	if old.ParentCompositePodGroupName == nil {
		spec.ParentCompositePodGroupName = nil
	}
}

// validatePodGroup judges a group; old is nil for a new one. Of the fields only
// minCount may change.
func validatePodGroup(spec, old *schedulingv1beta1.PodGroupSpec) field.ErrorList {
	p := field.NewPath("spec")
	frozen := func(value, old any, name string) field.ErrorList { return rule.Unchanged(value, old, p.Child(name)) }
	var errs field.ErrorList
	if old != nil {
		errs = append(errs, frozen(spec.WorkloadRef, old.WorkloadRef, "workloadRef")...)
		errs = append(errs, validatePolicy(&spec.SchedulingPolicy, &old.SchedulingPolicy, p.Child("schedulingPolicy"))...)
		errs = append(errs, frozen(spec.SchedulingConstraints, old.SchedulingConstraints, "schedulingConstraints")...)
		errs = append(errs, frozen(spec.ResourceClaims, old.ResourceClaims, "resourceClaims")...)
		errs = append(errs, frozen(spec.DisruptionMode, old.DisruptionMode, "disruptionMode")...)
		errs = append(errs, frozen(spec.PriorityClassName, old.PriorityClassName, "priorityClassName")...)
		errs = append(errs, frozen(spec.Priority, old.Priority, "priority")...)
		return append(errs, frozen(spec.PreemptionPolicy, old.PreemptionPolicy, "preemptionPolicy")...)
	}
	if ref := spec.WorkloadRef; ref != nil {
		errs = append(errs, name(ref.WorkloadName, p.Child("workloadRef", "workloadName"), rule.Subdomain)...)
		errs = append(errs, name(ref.TemplateName, p.Child("workloadRef", "templateName"), rule.Label)...)
	}
	errs = append(errs, validatePolicy(&spec.SchedulingPolicy, nil, p.Child("schedulingPolicy"))...)
	errs = append(errs, validateDisruption(spec.DisruptionMode, p.Child("disruptionMode"))...)
	return append(errs, validateGroupPriority(spec.PriorityClassName, spec.Priority, p)...)
}

// name checks a required name.
func name(value string, p *field.Path, check func(string, *field.Path) field.ErrorList) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(p, "")}
	}
	return check(value, p)
}

func podGroupCells(g *schedulingv1beta1.PodGroup) []any {
	policy, workload, status := "Basic", "<none>", "Pending"
	if g.Spec.SchedulingPolicy.Gang != nil {
		policy = "Gang"
	}
	if ref := g.Spec.WorkloadRef; ref != nil {
		workload = ref.WorkloadName
	}
	if c := meta.FindStatusCondition(g.Status.Conditions, schedulingv1beta1.PodGroupInitiallyScheduled); c != nil {
		status = "Unschedulable"
		if c.Status == metav1.ConditionTrue {
			status = "Scheduled"
		}
	}
	if c := meta.FindStatusCondition(g.Status.Conditions, schedulingv1beta1.DisruptionTarget); c != nil {
		status = c.Reason
	}
	return []any{g.Name, policy, workload, status, table.Since(g.CreationTimestamp)}
}
