// SPDX-License-Identifier: Apache-2.0

package policystatus_test

import (
	"context"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/policystatus"
	"kaji/kajitest"
)

// account is the controller's own: the tests run with its rights only.
const account = "validatingadmissionpolicy-status-controller"

// reachable is a client with a way to the server's discovery.
type reachable struct {
	client.Interface
	config *rest.Config
}

func (r reachable) RESTConfig() *rest.Config { return r.config }

// What does not fit its type is told in the status, for the generation that
// was looked at.
func TestTypeChecking(t *testing.T) {
	cluster := kajitest.Start(t, kajitest.WithRBAC())
	defer bubble.Allowed(t, cluster, account)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = policystatus.New(reachable{bubble.Account(cluster, account), cluster.RESTConfig()}, nil).Run(ctx)
	}()
	defer func() { cancel(); <-done }()
	policies := client.For[*admissionregistrationv1.ValidatingAdmissionPolicy](cluster.Client())
	w, err := cluster.Client().Watch(ctx, policies.Resource(""), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var p admissionregistrationv1.ValidatingAdmissionPolicy
	if err := yaml.Unmarshal([]byte(`
metadata: {name: p}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}]}
  validations: [{expression: "object.spec.replicas > 1"}, {expression: "object.spec.replicas > '1'"}, {expression: "object.spec.bogus == 'x'"}]
`), &p); err != nil {
		t.Fatal(err)
	}
	if _, err := policies.Create(ctx, &p); err != nil {
		t.Fatal(err)
	}
	for e := range w.ResultChan() {
		got := e.Object.(*admissionregistrationv1.ValidatingAdmissionPolicy)
		if got.Status.ObservedGeneration == 0 {
			continue
		}
		if got.Status.ObservedGeneration != 1 || got.Status.TypeChecking == nil || len(got.Status.TypeChecking.ExpressionWarnings) != 2 {
			t.Fatalf("got %+v", got.Status)
		}
		warnings := got.Status.TypeChecking.ExpressionWarnings
		if warnings[0].FieldRef != "spec.validations[1].expression" || !strings.Contains(warnings[0].Warning, "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload") {
			t.Errorf("got %+v", warnings[0])
		}
		if warnings[1].FieldRef != "spec.validations[2].expression" || !strings.Contains(warnings[1].Warning, "undefined field 'bogus'") {
			t.Errorf("got %+v", warnings[1])
		}
		return
	}
}
