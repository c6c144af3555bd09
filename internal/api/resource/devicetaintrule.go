// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"context"
	"slices"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func deviceTaintRule() *api.Kind {
	taint := resourcev1.DeviceTaint{}.SwaggerDoc()
	return &api.Kind{
		Group: resourcev1.GroupName, Name: "DeviceTaintRule", Resource: "devicetaintrules", Singular: "devicetaintrule",
		Versions: []api.Version{{
			GroupVersion: resourcev1.SchemeGroupVersion,
			New:          api.New[resourcev1.DeviceTaintRule], NewList: api.NewList[resourcev1.DeviceTaintRuleList],
			Default: api.Default(func(r *resourcev1.DeviceTaintRule) { defaultTaint(&r.Spec.Taint) }),
		}},
		Storage: resourcev1.SchemeGroupVersion,
		Prefix:  "/registry/devicetaintrules",
		New:     api.New[resourcev1.DeviceTaintRule], NewList: api.NewList[resourcev1.DeviceTaintRuleList],
		Rules: api.For[*resourcev1.DeviceTaintRule]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, r *resourcev1.DeviceTaintRule) {
				r.Status = resourcev1.DeviceTaintRuleStatus{}
				r.Generation = 1
			},
			PrepareForUpdate: func(_ context.Context, r, old *resourcev1.DeviceTaintRule) {
				r.Status = old.Status
				if now, was := &r.Spec.Taint, &old.Spec.Taint; now.Effect != was.Effect && now.TimeAdded.Equal(was.TimeAdded) {
					now.TimeAdded = thisSecond()
				}
				if !apiequality.Semantic.DeepEqual(r.Spec, old.Spec) {
					r.Generation = old.Generation + 1
				}
			},
			Validate: func(r *resourcev1.DeviceTaintRule) field.ErrorList {
				return validateTaintRule(&r.Spec, nil, field.NewPath("spec"))
			},
			ValidateUpdate: func(r, old *resourcev1.DeviceTaintRule) field.ErrorList {
				return validateTaintRule(&r.Spec, &old.Spec, field.NewPath("spec"))
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Key", taint["key"]),
				table.String("Value", taint["value"]),
				table.String("Effect", taint["effect"]),
				table.String("TimeAdded", taint["timeAdded"]),
				table.Age(),
			},
			Cells: func(r *resourcev1.DeviceTaintRule) []any {
				var added metav1.Time
				if r.Spec.Taint.TimeAdded != nil {
					added = *r.Spec.Taint.TimeAdded
				}
				t := &r.Spec.Taint
				return []any{r.Name, t.Key, t.Value, string(t.Effect), table.Since(added), table.Since(r.CreationTimestamp)}
			},
		}.Rules(),
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, r, old *resourcev1.DeviceTaintRule) {
				r.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&r.ObjectMeta, &old.ObjectMeta)
			}),
			ValidateUpdate: api.Update(func(r, _ *resourcev1.DeviceTaintRule) field.ErrorList {
				path := field.NewPath("status", "conditions")
				errs := metavalidation.ValidateConditions(r.Status.Conditions, path)
				if n := len(r.Status.Conditions); n > resourcev1.DeviceTaintRuleStatusMaxConditions {
					errs = append(errs, field.TooMany(path, n, resourcev1.DeviceTaintRuleStatusMaxConditions))
				}
				return errs
			}),
			ResetFields: []string{"metadata", "spec"},
			NoTable:     true,
		},
	}
}

func thisSecond() *metav1.Time {
	return &metav1.Time{Time: time.Now().Truncate(time.Second)}
}

func defaultTaint(t *resourcev1.DeviceTaint) {
	if t.TimeAdded == nil {
		t.TimeAdded = thisSecond()
	}
}

func validateTaintRule(spec, old *resourcev1.DeviceTaintRuleSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s := spec.DeviceSelector; s != nil {
		where := path.Child("deviceSelector")
		if s.Driver != nil {
			errs = append(errs, validateDriver(*s.Driver, where.Child("driver"))...)
		}
		if s.Pool != nil {
			errs = append(errs, validatePoolName(*s.Pool, where.Child("pool"))...)
		}
		if s.Device != nil {
			errs = append(errs, rule.Label(*s.Device, where.Child("device"))...)
		}
	}
	var before *resourcev1.DeviceTaint
	if old != nil {
		before = &old.Taint
	}
	return append(errs, validateTaint(&spec.Taint, before, path.Child("taint"))...)
}

// validateTaint checks a taint; an effect that old had may stay.
func validateTaint(t, old *resourcev1.DeviceTaint, path *field.Path) field.ErrorList {
	errs := metavalidation.ValidateLabelName(t.Key, path.Child("key"))
	if t.Value != "" {
		errs = append(errs, rule.Messages(path.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
	}
	if old != nil && old.Effect == t.Effect {
		return errs
	}
	switch {
	case t.Effect == "":
		errs = append(errs, field.Required(path.Child("effect"), ""))
	case !slices.Contains(effects(), t.Effect):
		errs = append(errs, field.NotSupported(path.Child("effect"), t.Effect, effects()))
	}
	return errs
}
