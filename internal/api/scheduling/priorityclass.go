// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

const (
	systemPrefix       = "system-"
	maxUserPriority    = 1_000_000_000
	systemCritical     = 2 * maxUserPriority
	nodeCriticalName   = "system-node-critical"
	systemCriticalName = "system-cluster-critical"
)

func priorityClass() *api.Kind {
	doc := schedulingv1.PriorityClass{}.SwaggerDoc()
	return &api.Kind{
		Group: schedulingv1.GroupName, Name: "PriorityClass", Resource: "priorityclasses", Singular: "priorityclass",
		ShortNames: []string{"pc"},
		Versions: []api.Version{{
			GroupVersion: schedulingv1.SchemeGroupVersion,
			New:          api.New[schedulingv1.PriorityClass], NewList: api.NewList[schedulingv1.PriorityClassList],
			Default: api.Default(defaultPriorityClass),
		}},
		Storage: schedulingv1.SchemeGroupVersion,
		Prefix:  "/registry/priorityclasses",
		New:     api.New[schedulingv1.PriorityClass], NewList: api.NewList[schedulingv1.PriorityClassList],
		Rules: api.For[*schedulingv1.PriorityClass]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			PrepareForCreate: func(_ context.Context, c *schedulingv1.PriorityClass) {
				c.Generation = 1
			},
			Validate: validatePriorityClass,
			ValidateUpdate: func(c, old *schedulingv1.PriorityClass) field.ErrorList {
				var errs field.ErrorList
				if c.Value != old.Value {
					errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
				}
				return append(errs, apivalidation.ValidateImmutableField(c.PreemptionPolicy, old.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
			},
			Permanent: func(name string) string {
				if name == nodeCriticalName || name == systemCriticalName {
					return "this is a system priority class and cannot be deleted"
				}
				return ""
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.Integer("Value", doc["value"]),
				table.Boolean("Global-Default", doc["globalDefault"]),
				table.Age(),
				table.String("PreemptionPolicy", doc["preemptionPolicy"]),
			},
			Cells: func(c *schedulingv1.PriorityClass) []any {
				policy := ""
				if c.PreemptionPolicy != nil {
					policy = string(*c.PreemptionPolicy)
				}
				return []any{c.Name, int64(c.Value), c.GlobalDefault, table.Since(c.CreationTimestamp), policy}
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
	}
}

func defaultPriorityClass(c *schedulingv1.PriorityClass) {
	if c.PreemptionPolicy == nil {
		policy := corev1.PreemptLowerPriority
		c.PreemptionPolicy = &policy
	}
}

func validatePriorityClass(c *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if strings.HasPrefix(c.Name, systemPrefix) {
		if err := checkSystemClass(c); err != nil {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"), "priority class names with 'system-' prefix are reserved for system use only. error: "+err.Error()))
		}
	} else if c.Value > maxUserPriority {
		errs = append(errs, field.Forbidden(field.NewPath("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %v", maxUserPriority)))
	}
	if policy := c.PreemptionPolicy; policy != nil {
		errs = append(errs, validatePreemption(*policy, field.NewPath("preemptionPolicy"))...)
	}
	return errs
}

// checkSystemClass accepts the two classes the system makes itself, as it makes
// them.
func checkSystemClass(c *schedulingv1.PriorityClass) error {
	values := map[string]int32{nodeCriticalName: systemCritical + 1000, systemCriticalName: systemCritical}
	value, known := values[c.Name]
	switch {
	case !known:
		return fmt.Errorf("%s is not a known system priority class", c.Name)
	case c.Value != value:
		return fmt.Errorf("value of %s PriorityClass must be %d", c.Name, value)
	case c.GlobalDefault:
		return errors.New("globalDefault of " + c.Name + " PriorityClass must be false")
	}
	return nil
}

func validatePreemption(policy corev1.PreemptionPolicy, path *field.Path) field.ErrorList {
	switch policy {
	case corev1.PreemptLowerPriority, corev1.PreemptNever:
		return nil
	case "":
		return field.ErrorList{field.Required(path, "")}
	}
	return field.ErrorList{field.NotSupported(path, policy, []corev1.PreemptionPolicy{corev1.PreemptLowerPriority, corev1.PreemptNever})}
}
