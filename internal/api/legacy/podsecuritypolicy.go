// SPDX-License-Identifier: Apache-2.0

package legacy

import (
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kaji/internal/api"
	"kaji/internal/api/table"
)

// podSecurityPolicy is a kind without a successor: it is stored, listed and has
// no effect. Its Go type is gone from the published ones, so it is kept as
// custom objects are.
func podSecurityPolicy() *api.Kind {
	newObject := func() api.Object { return &unstructured.Unstructured{Object: map[string]any{}} }
	newList := func() runtime.Object { return &unstructured.UnstructuredList{} }
	var versions []api.Version
	for _, gv := range []schema.GroupVersion{policyv1beta1.SchemeGroupVersion, extensionsv1beta1.SchemeGroupVersion} {
		versions = append(versions, api.Version{
			GroupVersion: gv, New: newObject, NewList: newList, OptIn: true,
			Warning: gv.String() + " PodSecurityPolicy is removed from Kubernetes and has no effect; label namespaces for Pod Security admission",
		})
	}
	return &api.Kind{
		Group: policyv1beta1.GroupName, Name: "PodSecurityPolicy", Resource: "podsecuritypolicies", Singular: "podsecuritypolicy",
		ShortNames: []string{"psp"},
		Versions:   versions,
		Storage:    policyv1beta1.SchemeGroupVersion,
		Prefix:     "/registry/podsecuritypolicy",
		New:        newObject, NewList: newList,
		Custom: true,
		Rules: api.For[*unstructured.Unstructured]{
			Columns: []metav1.TableColumnDefinition{table.Name(), table.Boolean("Priv", "Whether privileged containers were allowed."), table.Age()},
			Cells: func(u *unstructured.Unstructured) []any {
				privileged, _, _ := unstructured.NestedBool(u.Object, "spec", "privileged")
				return []any{u.GetName(), privileged, table.Since(u.GetCreationTimestamp())}
			},
		}.Rules(),
	}
}
