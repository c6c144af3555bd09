// SPDX-License-Identifier: Apache-2.0

package autoscaling

import (
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"kaji/internal/api/kindtest"
)

const target = "metadata: {name: h}\nspec:\n  scaleTargetRef: {kind: Deployment, name: d, apiVersion: apps/v1}\n  maxReplicas: 5\n"

func TestValidation(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "metadata: {name: h}", []string{
			"spec.maxReplicas: Required value",
			"spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
			"spec.scaleTargetRef.kind: Required value", "spec.scaleTargetRef.name: Required value",
			`spec.scaleTargetRef.apiVersion: Invalid value: "": apiVersion must specify API group`}},
		{"from zero", target + "  minReplicas: 0", []string{
			"spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas"}},
		{"two sources", target + "  metrics: [{type: Pods, pods: {metric: {name: a}, target: {type: AverageValue, averageValue: 1}}, resource: {name: cpu}}]", []string{
			"spec.metrics[0].resource: Forbidden: must populate the given metric source only"}},
		{"target", target + "  metrics: [{type: Pods, pods: {metric: {name: ''}, target: {type: Value, value: -1}}}]", []string{
			"spec.metrics[0].pods.metric.name: Required value: must specify a metric name",
			"spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
			`spec.metrics[0].pods.target.value: Invalid value: "-1": must be positive`}},
		{"behaviour", target + "  behavior: {scaleUp: {stabilizationWindowSeconds: 3601, selectPolicy: X, policies: [{type: Z, periodSeconds: 1801}]}}", []string{
			"spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
			`spec.behavior.scaleUp.selectPolicy: Unsupported value: "X": supported values: "Disabled", "Max", "Min"`,
			`spec.behavior.scaleUp.policies[0].type: Unsupported value: "Z": supported values: "Percent", "Pods"`,
			"spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
			"spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			obj, errs := kindtest.Create(t, horizontalPodAutoscaler(), c.text)
			kindtest.Expect(t, errs, c.want...)
			kindtest.Cells(t, horizontalPodAutoscaler(), obj)
		})
	}
}

// TestVersion1KeepsAll converts there and back.
func TestVersion1KeepsAll(t *testing.T) {
	k := horizontalPodAutoscaler()
	obj, errs := kindtest.Create(t, k, target+`  metrics:
  - {type: Pods, pods: {metric: {name: q}, target: {type: AverageValue, averageValue: "10"}}}
  - {type: External, external: {metric: {name: e, selector: {matchLabels: {app: a}}}, target: {type: Value, value: "5"}}}
  - {type: Object, object: {describedObject: {kind: Service, name: s}, metric: {name: m}, target: {type: Value, value: 2k}}}
  - {type: ContainerResource, containerResource: {name: memory, container: c, target: {type: AverageValue, averageValue: 1Gi}}}
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}
  behavior: {scaleDown: {stabilizationWindowSeconds: 60}}
`)
	kindtest.Expect(t, errs)
	hub := obj.(*autoscalingv2.HorizontalPodAutoscaler)
	hub.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{{Type: autoscalingv2.AbleToScale, Status: "True"}}
	if cells := kindtest.Cells(t, k, hub); cells[2] != "<unknown>/10, <unknown>/5 + 3 more..." {
		t.Errorf("cells %v", cells)
	}
	var v1 autoscalingv1.HorizontalPodAutoscaler
	if err := toV1(hub, &v1); err != nil || *v1.Spec.TargetCPUUtilizationPercentage != 60 {
		t.Fatalf("%+v, %v", v1, err)
	}
	const behavior = `{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15},{"Type":"Percent","Value":100,"PeriodSeconds":15}],"Tolerance":null},"ScaleDown":{"StabilizationWindowSeconds":60,"SelectPolicy":"Max","Policies":[{"Type":"Percent","Value":100,"PeriodSeconds":15}],"Tolerance":null}}`
	if got := v1.Annotations[behaviorAnnotation]; got != behavior {
		t.Errorf("behaviour %s", got)
	}
	var back autoscalingv2.HorizontalPodAutoscaler
	if err := fromV1(&v1, &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Annotations) == 0 {
		back.Annotations = nil
	}
	if !apiequality.Semantic.DeepEqual(&back, hub) {
		t.Errorf("came back as\n%+v, was\n%+v", back, hub)
	}
}

func FuzzAnnotations(f *testing.F) {
	f.Add(`[{"type":"Pods","pods":{"metricName":"q"}}]`)
	f.Add(`{"ScaleUp":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		in := &autoscalingv1.HorizontalPodAutoscaler{}
		in.Annotations = map[string]string{metricsAnnotation: text, behaviorAnnotation: text, statusesAnnotation: text, conditionsAnnotation: text}
		var hub autoscalingv2.HorizontalPodAutoscaler
		if err := fromV1(in, &hub); err != nil {
			t.Fatal(err)
		}
		defaultAutoscaler(&hub)
		validateAutoscaler(&hub.Spec, nil)
		metricsCell(hub.Spec.Metrics, hub.Status.CurrentMetrics)
	})
}
