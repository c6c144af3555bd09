// SPDX-License-Identifier: Apache-2.0

package disruption_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/disruption"
)

// untyped gives scales without their Go type, as a client over HTTP does where
// the version of the resource has none.
type untyped struct{ client.Interface }

// Get implements client.Verbs.
func (u untyped) Get(ctx context.Context, r client.Resource, name string, opts metav1.GetOptions) (runtime.Object, error) {
	obj, err := u.Interface.Get(ctx, r, name, opts)
	if err != nil || r.Subresource != "scale" {
		return obj, err
	}
	out, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, err
	}
	scale := &unstructured.Unstructured{Object: out}
	scale.SetGroupVersionKind(schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"})
	return scale, nil
}

// Pods of a custom resource with a scale are counted by it.
func TestCustomOwner(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{disruption.New(untyped{api}, nil)}
	}
	bubble.RunAs(t, "disruption-controller", start, func(b *bubble.Bubble) {
		crds := client.Resource{GroupVersionResource: apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")}
		crd := &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "widgets.example.com"}, Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "example.com", Scope: apiextensionsv1.NamespaceScoped, Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "widgets", Kind: "Widget"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: ptr.To(true)}},
				Subresources: &apiextensionsv1.CustomResourceSubresources{Scale: &apiextensionsv1.CustomResourceSubresourceScale{
					SpecReplicasPath: ".spec.replicas", StatusReplicasPath: ".status.replicas"}}}}}}
		bubble.Must(b.API.Create(b.Context(), crds, "", crd, metav1.CreateOptions{}))(b)
		b.Settle()
		widgets := client.Resource{GroupVersionResource: schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}, Namespace: "default"}
		made := bubble.Must(b.API.Create(b.Context(), widgets, "", &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Widget",
			"metadata": map[string]any{"name": "w"}, "spec": map[string]any{"replicas": int64(4)}}}, metav1.CreateOptions{}))(b).(metav1.Object)
		owner := *metav1.NewControllerRef(made, schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Widget"})
		bubble.Must(client.For[*corev1.Pod](b.API).Create(b.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", Labels: labels,
			OwnerReferences: []metav1.OwnerReference{owner}}, Spec: podSpec()}))(b)
		budgets := client.For[*policyv1.PodDisruptionBudget](b.API)
		bubble.Must(budgets.Create(b.Context(), &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}, Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: labels}}}))(b)
		b.Settle()
		if s := bubble.Must(budgets.Get(b.Context(), "default", "b"))(b).Status; s.ExpectedPods != 4 || s.DesiredHealthy != 3 {
			b.Errorf("status %+v, want 4 expected pods", s)
		}
	})
}
