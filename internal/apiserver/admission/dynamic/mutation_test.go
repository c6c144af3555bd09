// SPDX-License-Identifier: Apache-2.0

package dynamic_test

import (
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(60 * time.Second); ; <-tick.C {
		var d appsv1.Deployment
		parse(t, `
metadata: {name: d, namespace: default}
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}
`, &d)
		obj, err := create(t, c, deployments, &d, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			t.Fatal(err)
		}
		got := obj.(*appsv1.Deployment)
		if got.Annotations["marked"] == "yes" {
			if got.Spec.MinReadySeconds != 7 || got.Spec.Replicas == nil || *got.Spec.Replicas != 1 {
				t.Errorf("got %+v", got.Spec)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the policy does not take effect: %+v", got.ObjectMeta)
		}
	}
}
