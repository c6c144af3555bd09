// SPDX-License-Identifier: Apache-2.0

package scheduling

import (
	"slices"
	"testing"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/api/kindtest"
)

func TestPodGroup(t *testing.T) {
	k := podGroup()
	for text, want := range map[string][]string{
		"metadata: {name: g}\nspec: {schedulingPolicy: {gang: {minCount: 2}}}":            nil,
		"metadata: {name: g}\nspec: {schedulingPolicy: {basic: {}}}":                      nil,
		"metadata: {name: g}\nspec: {schedulingPolicy: {}}":                               {"spec.schedulingPolicy: Invalid value: \"\": must specify one of: `basic`, `gang`"},
		"metadata: {name: g}\nspec: {schedulingPolicy: {gang: {minCount: 1}, basic: {}}}": {"spec.schedulingPolicy: Invalid value: \"{basic, gang}\": must specify exactly one of: `basic`, `gang`"},
		"metadata: {name: g}\nspec: {schedulingPolicy: {gang: {minCount: 0}}}":            {"spec.schedulingPolicy.gang.minCount: Required value"},
		"metadata: {name: g}\nspec: {schedulingPolicy: {gang: {minCount: -1}}}":           {"spec.schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than or equal to 1"},
		"metadata: {name: g}\nspec: {schedulingPolicy: {basic: {}}, disruptionMode: {}, priority: 1000000001, workloadRef: {templateName: t}}": {
			"spec.workloadRef.workloadName: Required value",
			"spec.disruptionMode: Invalid value: \"\": must specify one of: `single`, `all`",
			"spec.priority: Invalid value: 1000000001: must be less than or equal to 1000000000"},
	} {
		obj, errs := kindtest.Create(t, k, text)
		kindtest.Expect(t, errs, want...)
		kindtest.Cells(t, k, obj)
	}
	old, _ := kindtest.Create(t, k, "metadata: {name: g}\nspec: {schedulingPolicy: {gang: {minCount: 2}}, preemptionPolicy: Never, parentCompositePodGroupName: c}\nstatus: {conditions: [{type: A}]}")
	g := old.(*schedulingv1beta1.PodGroup)
	if g.Spec.PreemptionPolicy != nil || g.Spec.ParentCompositePodGroupName != nil || len(g.Status.Conditions) > 0 {
		t.Errorf("not dropped: %+v", g)
	}
	_, errs := kindtest.Update(t, k, old, "metadata: {name: g}\nspec: {schedulingPolicy: {gang: {minCount: 3}}, disruptionMode: {single: {}}}")
	kindtest.Expect(t, errs)
	_, errs = kindtest.Update(t, k, old, "metadata: {name: g}\nspec: {schedulingPolicy: {basic: {}}, disruptionMode: {all: {}}}")
	kindtest.Expect(t, errs, "spec.schedulingPolicy.basic: Invalid value: null: field is immutable",
		"spec.schedulingPolicy.gang: Invalid value: null: field cannot be cleared once set", "spec.disruptionMode: Invalid value: null: field is immutable")
	g.Status.Conditions = append(g.Status.Conditions[:0], okCondition())
	if cells := kindtest.Cells(t, k, g); !slices.Equal(cells[:4], []any{"g", "Gang", "<none>", "Scheduled"}) {
		t.Errorf("cells %v", cells)
	}
}

func TestWorkload(t *testing.T) {
	k := workload()
	const head = "metadata: {name: w}\nspec: {podGroupTemplates: ["
	for text, want := range map[string][]string{
		head + "{name: a, schedulingPolicy: {gang: {minCount: 2}}}]}": nil,
		"metadata: {name: w}\nspec: {}":                               {"spec: Invalid value: \"\": must specify one of: `podGroupTemplates`, `compositePodGroupTemplates`"},
		head + "{name: a, schedulingPolicy: {basic: {}}, priorityClassName: x}, {name: b, schedulingPolicy: {basic: {}}}]}": {
			"spec: Invalid value: null: detected multiple priority configurations"},
	} {
		obj, errs := kindtest.Create(t, k, text)
		kindtest.Expect(t, errs, want...)
		kindtest.Cells(t, k, obj)
	}
	old, _ := kindtest.Create(t, k, head+"{name: a, schedulingPolicy: {gang: {minCount: 2}}}]}")
	_, errs := kindtest.Update(t, k, old, head+"{name: b, schedulingPolicy: {gang: {minCount: 2}}}]}")
	kindtest.Expect(t, errs, "spec.podGroupTemplates[0]: Forbidden: item may not be added", "spec.podGroupTemplates: Forbidden: item may not be removed")
}

func okCondition() metav1.Condition {
	return metav1.Condition{Type: schedulingv1beta1.PodGroupInitiallyScheduled, Status: metav1.ConditionTrue}
}
