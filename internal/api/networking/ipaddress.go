// SPDX-License-Identifier: Apache-2.0

package networking

import (
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func ipAddress() *api.Kind {
	return &api.Kind{
		Group: networkingv1.GroupName, Name: "IPAddress", Resource: "ipaddresses", Singular: "ipaddress",
		ShortNames: []string{"ip"},
		Versions: []api.Version{{
			GroupVersion: networkingv1.SchemeGroupVersion,
			New:          api.New[networkingv1.IPAddress], NewList: api.NewList[networkingv1.IPAddressList],
		}},
		Storage: networkingv1.SchemeGroupVersion,
		Prefix:  "/registry/ipaddresses",
		New:     api.New[networkingv1.IPAddress], NewList: api.NewList[networkingv1.IPAddressList],
		Rules: api.For[*networkingv1.IPAddress]{
			ValidateName: func(name string, _ bool) []string {
				var messages []string
				for _, err := range validation.IsValidIP(nil, name) {
					messages = append(messages, err.Detail)
				}
				return messages
			},
			Validate: func(a *networkingv1.IPAddress) field.ErrorList {
				return validateParent(a.Spec.ParentRef, field.NewPath("spec", "parentRef"))
			},
			ValidateUpdate: func(a, old *networkingv1.IPAddress) field.ErrorList {
				path := field.NewPath("spec", "parentRef")
				return append(validateParent(a.Spec.ParentRef, path), rule.Unchanged(a.Spec.ParentRef, old.Spec.ParentRef, path)...)
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("ParentRef", networkingv1.IPAddressSpec{}.SwaggerDoc()["parentRef"]),
			},
			Cells: func(a *networkingv1.IPAddress) []any {
				// The age has no column of its own; clients get the cell all the same.
				return []any{a.Name, parentName(a.Spec.ParentRef), table.Since(a.CreationTimestamp)}
			},
		}.Rules(),
		AllowUnconditionalUpdate: true,
	}
}

// parentName prints a parent, such as "services/default/kubernetes".
func parentName(ref *networkingv1.ParentReference) string {
	if ref == nil {
		return "<none>"
	}
	parts := []string{strings.ToLower(schema.GroupResource{Group: ref.Group, Resource: ref.Resource}.String())}
	if ref.Namespace != "" {
		parts = append(parts, ref.Namespace)
	}
	return strings.Join(append(parts, ref.Name), "/")
}

func validateParent(ref *networkingv1.ParentReference, path *field.Path) field.ErrorList {
	if ref == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if ref.Group != "" {
		errs = append(errs, rule.Subdomain(ref.Group, path.Child("group"))...)
	}
	errs = append(errs, validateSegment(ref.Resource, path.Child("resource"))...)
	errs = append(errs, validateSegment(ref.Name, path.Child("name"))...)
	if ref.Namespace != "" {
		errs = append(errs, rule.Messages(path.Child("namespace"), ref.Namespace, content.IsPathSegmentName(ref.Namespace))...)
	}
	return errs
}
