// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/badvalue"
	"kaji/internal/api/podspec"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func runtimeClass() *api.Kind {
	return &api.Kind{
		Group: nodev1.GroupName, Name: "RuntimeClass", Resource: "runtimeclasses", Singular: "runtimeclass",
		Versions: []api.Version{{
			GroupVersion: nodev1.SchemeGroupVersion,
			New:          api.New[nodev1.RuntimeClass], NewList: api.NewList[nodev1.RuntimeClassList],
			Default: api.Default(defaultRuntimeClass),
		}},
		Storage:             nodev1.SchemeGroupVersion,
		Prefix:              "/registry/runtimeclasses",
		AllowCreateOnUpdate: true,
		New:                 api.New[nodev1.RuntimeClass], NewList: api.NewList[nodev1.RuntimeClassList],
		Rules: api.For[*nodev1.RuntimeClass]{
			ValidateName: apivalidation.NameIsDNSSubdomain,
			Validate: func(c *nodev1.RuntimeClass) field.ErrorList {
				return validateRuntimeClass(c, content.IsDNS1123Label)
			},
			ValidateUpdate: func(c, old *nodev1.RuntimeClass) field.ErrorList {
				errs := validateRuntimeClass(c, validation.IsDNS1123Label)
				return append(errs, rule.Unchanged(c.Handler, old.Handler, field.NewPath("handler"))...)
			},
			Warnings: func(c, _ *nodev1.RuntimeClass) []string {
				if c.Scheduling == nil {
					return nil
				}
				var warnings []string
				for _, key := range rule.SortedKeys(c.Scheduling.NodeSelector) {
					if message, deprecated := podspec.DeprecatedNodeLabel(key); deprecated {
						warnings = append(warnings, fmt.Sprintf("%s: %s", field.NewPath("scheduling", "nodeSelector"), message))
					}
				}
				return warnings
			},
			Columns: []metav1.TableColumnDefinition{table.Name(), table.String("Handler", ""), table.Age()},
			Cells: func(c *nodev1.RuntimeClass) []any {
				return []any{c.Name, c.Handler, table.Since(c.CreationTimestamp)}
			},
		}.Rules(),
	}
}

func defaultRuntimeClass(c *nodev1.RuntimeClass) {
	if c.Overhead != nil {
		rule.RoundUp(c.Overhead.PodFixed)
	}
}

// validateRuntimeClass judges a class; label words what is wrong with a handler,
// which differs between new and changed ones.
func validateRuntimeClass(c *nodev1.RuntimeClass, label func(string) []string) field.ErrorList {
	var errs field.ErrorList
	if c.Handler == "" {
		errs = append(errs, field.Required(field.NewPath("handler"), ""))
	} else {
		errs = append(errs, rule.Messages(field.NewPath("handler"), c.Handler, label(c.Handler))...)
	}
	if c.Overhead != nil {
		errs = append(errs, podspec.ValidateOverhead(c.Overhead.PodFixed, field.NewPath("overhead"))...)
	}
	if s := c.Scheduling; s != nil {
		path := field.NewPath("scheduling")
		errs = append(errs, metavalidation.ValidateLabels(s.NodeSelector, path.Child("nodeSelector"))...)
		errs = append(errs, validateTolerations(s.Tolerations, path.Child("tolerations"))...)
	}
	return errs
}

func validateTolerations(tolerations []corev1.Toleration, path *field.Path) field.ErrorList {
	errs := podspec.ValidateTolerations(tolerations, path)
	seen := map[corev1.Toleration]bool{}
	for i, t := range tolerations {
		key := corev1.Toleration{Key: t.Key, Operator: t.Operator, Value: t.Value, Effect: t.Effect}
		if seen[key] {
			errs = append(errs, field.Duplicate(path.Index(i), badvalue.Of(t)))
		}
		seen[key] = true
	}
	return errs
}
