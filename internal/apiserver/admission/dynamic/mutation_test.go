// SPDX-License-Identifier: Apache-2.0

package dynamic_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/kajitest"
)

// A mutating policy's configuration is merged into an object that has a Go type,
// and the defaults are filled in once more.
func TestMutatingPolicy(t *testing.T) {
	c := kajitest.Start(t)
	var policy admissionregistrationv1.MutatingAdmissionPolicy
	var binding admissionregistrationv1.MutatingAdmissionPolicyBinding
	parse(t, `
metadata: {name: mark}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}]}
  reinvocationPolicy: Never
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: 'Object{metadata: Object.metadata{annotations: {"marked": "yes"}}, spec: Object.spec{minReadySeconds: 7}}'}
`, &policy)
	parse(t, "metadata: {name: mark}\nspec: {policyName: mark}", &binding)
	if _, err := create(t, c, registration("mutatingadmissionpolicies"), &policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := create(t, c, registration("mutatingadmissionpolicybindings"), &binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	deployments := client.Resource{GroupVersionResource: appsv1.SchemeGroupVersion.WithResource("deployments"), Namespace: "default"}
	eventually(t, func() (bool, string) {
		var d appsv1.Deployment
		parse(t, `
metadata: {name: d, namespace: default}
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}
`, &d)
		obj, err := create(t, c, deployments, &d, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil { // kinds are known to policies shortly after the start
			return false, err.Error()
		}
		got := obj.(*appsv1.Deployment)
		if got.Annotations["marked"] != "yes" {
			return false, fmt.Sprint(got.ObjectMeta)
		}
		if got.Spec.MinReadySeconds != 7 || got.Spec.Replicas == nil || *got.Spec.Replicas != 1 {
			t.Errorf("got %+v", got.Spec)
		}
		return true, ""
	})
}

// What a webhook adds to a custom object is pruned by its schema.
func TestMutationIsPruned(t *testing.T) {
	c := kajitest.Start(t)
	var definition apiextensionsv1.CustomResourceDefinition
	parse(t, `
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {known: {type: string}}}}}]
`, &definition)
	definitions := client.Resource{GroupVersionResource: apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")}
	if _, err := create(t, c, definitions, &definition, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	server := hook(t, func(*admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Allowed: true, PatchType: ptr.To(admissionv1.PatchTypeJSONPatch),
			Patch: []byte(`[{"op":"add","path":"/known","value":"yes"},{"op":"add","path":"/unknown","value":"yes"}]`)}
	})
	config := mutating(server, admissionregistrationv1.Fail)
	config.Webhooks[0].Rules[0].Rule = admissionregistrationv1.Rule{APIGroups: []string{"example.com"}, APIVersions: []string{"v1"}, Resources: []string{"widgets"}}
	if _, err := create(t, c, registration("mutatingwebhookconfigurations"), config, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	widgets := client.Resource{GroupVersionResource: schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}, Namespace: "default"}
	eventually(t, func() (bool, string) {
		w := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": map[string]any{"name": "w"}}}
		obj, err := create(t, c, widgets, w, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return false, err.Error()
		}
		content := obj.(*unstructured.Unstructured).Object
		if content["unknown"] != nil {
			t.Errorf("got %v", content)
		}
		return content["known"] == "yes", fmt.Sprint(content)
	})
}

// A webhook sees the options of a sub-resource that connects, and how one with a
// type of its own is created.
func TestWebhookOnSubresources(t *testing.T) {
	c := kajitest.Start(t)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if _, err := create(t, c, client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("pods"), Namespace: "default"}, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	server := hook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: fmt.Sprintf("no attaching with %s, by %s", r.Object.Raw, r.Options.Raw)}}
	})
	fail := admissionregistrationv1.Fail
	config := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Webhooks: []admissionregistrationv1.ValidatingWebhook{{
		Name: "v.example.com", ClientConfig: clientConfig(server), FailurePolicy: &fail, SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
		Rules: []admissionregistrationv1.RuleWithOperations{{Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Connect, admissionregistrationv1.Create},
			Rule: admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods/attach", "pods/eviction"}}}},
	}}}
	if _, err := create(t, c, registration("validatingwebhookconfigurations"), config, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pods := kubernetes.NewForConfigOrDie(c.RESTConfig()).CoreV1().RESTClient()
	eventually(t, func() (bool, string) {
		err := pods.Post().Namespace("default").Resource("pods").Name("p").SubResource("attach").Param("stdin", "true").Do(t.Context()).Error()
		text := fmt.Sprint(err)
		return strings.Contains(text, "no attaching with") && strings.Contains(text, `PodAttachOptions`) && strings.Contains(text, `stdin`), text
	})
	evict := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
	err := pods.Post().Namespace("default").Resource("pods").Name("p").SubResource("eviction").Body(evict).Do(t.Context()).Error()
	if text := fmt.Sprint(err); !strings.Contains(text, `by {"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1"}`) {
		t.Error(text)
	}
}

// Policies see the Scale of an object that is scaled, and of a collection that is
// deleted no name.
func TestPolicySeesWhatTheRequestNames(t *testing.T) {
	c := kajitest.Start(t)
	var policy admissionregistrationv1.ValidatingAdmissionPolicy
	var binding admissionregistrationv1.ValidatingAdmissionPolicyBinding
	parse(t, `
metadata: {name: see}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [apps], apiVersions: [v1], operations: [UPDATE], resources: [deployments/scale]}
    - {apiGroups: [apps], apiVersions: [v1], operations: [DELETE], resources: [deployments]}
  validations:
  - {expression: "request.operation == 'DELETE' || object.spec.replicas < 5", messageExpression: "object.kind + ' from ' + string(oldObject.spec.replicas) + ' to ' + string(object.spec.replicas)"}
  - {expression: "request.operation != 'DELETE'", messageExpression: "'deletes ' + (has(request.name) ? request.name : 'nobody') + ' of ' + oldObject.metadata.name"}
`, &policy)
	parse(t, "metadata: {name: see}\nspec: {policyName: see, validationActions: [Deny]}", &binding)
	var d appsv1.Deployment
	parse(t, `
metadata: {name: d, namespace: default}
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}
`, &d)
	deployments := kubernetes.NewForConfigOrDie(c.RESTConfig()).AppsV1().Deployments("default")
	if _, err := deployments.Create(t.Context(), &d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := create(t, c, registration("validatingadmissionpolicies"), &policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := create(t, c, registration("validatingadmissionpolicybindings"), &binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	scale := func(replicas int) error {
		body := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
		_, err := deployments.Patch(t.Context(), "d", types.MergePatchType, body, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}, "scale")
		return err
	}
	eventually(t, func() (bool, string) {
		text := fmt.Sprint(scale(9))
		return strings.HasSuffix(text, "denied request: Scale from 1 to 9"), text
	})
	if err := scale(3); err != nil {
		t.Error(err)
	}
	err := deployments.Delete(t.Context(), "d", metav1.DeleteOptions{})
	if !strings.HasSuffix(fmt.Sprint(err), `"d" is forbidden: ValidatingAdmissionPolicy 'see' with binding 'see' denied request: deletes d of d`) {
		t.Errorf("one: %v", err)
	}
	err = deployments.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{})
	if !strings.HasSuffix(fmt.Sprint(err), `"Unknown" is forbidden: ValidatingAdmissionPolicy 'see' with binding 'see' denied request: deletes nobody of d`) {
		t.Errorf("all: %v", err)
	}
}

// A webhook sees the Scale as well, and what it changes there is stored.
func TestWebhookOnScale(t *testing.T) {
	c := kajitest.Start(t)
	server := hook(t, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if !strings.Contains(string(r.Object.Raw), `"kind":"Scale"`) || !strings.Contains(string(r.OldObject.Raw), `"kind":"Scale"`) || r.Kind.Kind != "Scale" {
			return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: fmt.Sprintf("%v %s", r.Kind, r.Object.Raw)}}
		}
		return &admissionv1.AdmissionResponse{Allowed: true, PatchType: ptr.To(admissionv1.PatchTypeJSONPatch),
			Patch: []byte(`[{"op":"replace","path":"/spec/replicas","value":4}]`)}
	})
	config := mutating(server, admissionregistrationv1.Fail)
	config.Webhooks[0].Rules[0] = admissionregistrationv1.RuleWithOperations{Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Update},
		Rule: admissionregistrationv1.Rule{APIGroups: []string{"apps"}, APIVersions: []string{"v1"}, Resources: []string{"deployments/scale"}}}
	if _, err := create(t, c, registration("mutatingwebhookconfigurations"), config, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var d appsv1.Deployment
	parse(t, `
metadata: {name: d, namespace: default}
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}
`, &d)
	deployments := kubernetes.NewForConfigOrDie(c.RESTConfig()).AppsV1().Deployments("default")
	if _, err := deployments.Create(t.Context(), &d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, string) {
		if _, err := deployments.Patch(t.Context(), "d", types.MergePatchType, []byte(`{"spec":{"replicas":2}}`), metav1.PatchOptions{}, "scale"); err != nil {
			return false, err.Error()
		}
		got, err := deployments.Get(t.Context(), "d", metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		return got.Spec.Replicas != nil && *got.Spec.Replicas == 4, fmt.Sprint(got.Spec.Replicas)
	})
}

// eventually tries until done: configurations take effect shortly after they are
// written.
func eventually(t *testing.T, done func() (bool, string)) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(60 * time.Second); ; <-tick.C {
		ok, got := done()
		if ok || t.Failed() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("at last: %s", got)
		}
	}
}
