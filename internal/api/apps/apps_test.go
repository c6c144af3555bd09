// SPDX-License-Identifier: Apache-2.0

package apps

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/api"
	"kaji/internal/api/kindtest"
)

const pods = `
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec: {containers: [{name: c, image: "img:1"}]}
`

func TestWorkloadValidation(t *testing.T) {
	const percent = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
	for _, c := range []struct {
		name string
		kind *api.Kind
		spec string
		want []string
	}{
		{"empty deployment", deployment(), "{}", []string{
			"spec.selector: Required value",
			"spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
			"spec.template.spec.containers: Required value"}},
		{"deployment strategy", deployment(), pods + "  strategy: {type: X}", []string{
			`spec.strategy: Unsupported value: {"Type":"X","RollingUpdate":null}: supported values: "Recreate", "RollingUpdate"`}},
		{"no progress possible", deployment(), pods + "  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0%}}", []string{
			"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"}},
		{"percentages", deployment(), pods + "  strategy: {rollingUpdate: {maxSurge: -5%, maxUnavailable: 200%}}", []string{
			`spec.strategy.rollingUpdate.maxSurge: Invalid value: "-5%": ` + percent,
			`spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "200%": must not be greater than 100%`}},
		{"recreate", deployment(), pods + "  strategy: {type: Recreate, rollingUpdate: {}}", []string{
			"spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"}},
		{"deadline", deployment(), pods + "  minReadySeconds: 9\n  progressDeadlineSeconds: 9", []string{
			"spec.progressDeadlineSeconds: Invalid value: 9: must be greater than minReadySeconds"}},
		{"counts of a replica set", replicaSet(), pods + "  replicas: -1\n  minReadySeconds: -2", []string{
			"spec.replicas: Invalid value: -1: must be greater than or equal to 0",
			"spec.minReadySeconds: Invalid value: -2: must be greater than or equal to 0"}},
		{"daemon surge", daemonSet(), pods + "  updateStrategy: {rollingUpdate: {maxUnavailable: 1, maxSurge: 1}}", []string{
			"spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"}},
		{"daemon stands still", daemonSet(), pods + "  updateStrategy: {rollingUpdate: {maxUnavailable: 0}}", []string{
			"spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"}},
		{"stateful strategy", statefulSet(), pods + "  updateStrategy: {type: OnDelete, rollingUpdate: {partition: 1}}", []string{
			`spec.updateStrategy.rollingUpdate: Invalid value: {"Partition":1,"MaxUnavailable":null}: only allowed for updateStrategy 'RollingUpdate'`}},
		{"stateful fields", statefulSet(), pods + "  serviceName: Bad_\n  podManagementPolicy: X\n  ordinals: {start: -1}\n  persistentVolumeClaimRetentionPolicy: {whenScaled: X}", []string{
			`spec.serviceName: Invalid value: "Bad_": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')`,
			`spec.podManagementPolicy: Invalid value: "X": must be 'OrderedReady' or 'Parallel'`,
			"spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
			`spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: "X": supported values: "Retain", "Delete"`}},
		{"good", statefulSet(), pods + "  volumeClaimTemplates: [{metadata: {name: v}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			obj, errs := kindtest.Create(t, c.kind, "metadata: {name: x}\nspec: "+c.spec)
			kindtest.Expect(t, errs, c.want...)
			kindtest.Cells(t, c.kind, obj)
		})
	}
}

func TestDeploymentUpdate(t *testing.T) {
	old, errs := kindtest.Create(t, deployment(), "metadata: {name: x}\nspec: "+pods)
	kindtest.Expect(t, errs)
	obj, errs := kindtest.Update(t, deployment(), old, "metadata: {name: x, annotations: {a: b}}\nspec: "+pods)
	kindtest.Expect(t, errs)
	if obj.GetGeneration() != 2 {
		t.Errorf("generation %d after a new annotation", obj.GetGeneration())
	}
	_, errs = kindtest.UpdateStatus(t, deployment(), old, "metadata: {name: x}\nstatus: {replicas: 1, readyReplicas: 2}")
	kindtest.Expect(t, errs, "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas")
}

func TestStatefulSetUpdate(t *testing.T) {
	old, _ := kindtest.Create(t, statefulSet(), "metadata: {name: x}\nspec: "+pods)
	_, errs := kindtest.Update(t, statefulSet(), old, "metadata: {name: x}\nspec: "+pods+"  podManagementPolicy: Parallel\n  serviceName: s")
	kindtest.Expect(t, errs, `spec.podManagementPolicy: Invalid value: "Parallel": field is immutable`, `spec.serviceName: Invalid value: "s": field is immutable`)
}

func TestDaemonSetTemplateGeneration(t *testing.T) {
	old, _ := kindtest.Create(t, daemonSet(), "metadata: {name: x}\nspec: "+pods)
	if got := old.GetAnnotations()[appsv1.DeprecatedTemplateGeneration]; got != "1" {
		t.Errorf("created with generation %q", got)
	}
	obj, errs := kindtest.Update(t, daemonSet(), old, "metadata: {name: x}\nspec:\n  selector: {matchLabels: {app: a}}\n  template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: other}]}}")
	kindtest.Expect(t, errs)
	if got := obj.GetAnnotations()[appsv1.DeprecatedTemplateGeneration]; got != "2" || obj.GetGeneration() != 2 {
		t.Errorf("changed to generation %q, %d", got, obj.GetGeneration())
	}
}

func TestScale(t *testing.T) {
	k := deployment()
	obj, _ := kindtest.Create(t, k, "metadata: {name: x}\nspec:\n  replicas: 3"+pods)
	scale, err := k.Scale.Get(obj)
	if err != nil || scale.Spec.Replicas != 3 || scale.Status.Selector != "app=a" {
		t.Errorf("scale %+v, %v", scale, err)
	}
	if err := k.Scale.Set(obj, 5); err != nil || *obj.(*appsv1.Deployment).Spec.Replicas != 5 {
		t.Errorf("scaled to %v, %v", obj, err)
	}
	obj.(*appsv1.Deployment).Spec.Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Operator: "X"}}}
	if _, err := k.Scale.Get(obj); err == nil {
		t.Error("a selector that does not parse has a scale")
	}
}

func TestControllerRevision(t *testing.T) {
	k := controllerRevision()
	for text, want := range map[string][]string{
		"metadata: {name: r}":                               {"data: Required value: data is mandatory"},
		"metadata: {name: r}\nrevision: -1\ndata: {}":       {"revision: Invalid value: -1: must be greater than or equal to 0"},
		"metadata: {name: r}\nrevision: 1\ndata: 5":         {"data: Required value: data must be a valid JSON object"},
		"metadata: {name: r}\nrevision: 1\ndata: {spec: 1}": nil,
	} {
		obj, errs := kindtest.Create(t, k, text)
		kindtest.Expect(t, errs, want...)
		kindtest.Cells(t, k, obj)
	}
}
