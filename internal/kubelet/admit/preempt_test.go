// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// asking is a pod that asks for CPU and memory; with "=" before the CPU it is guaranteed.
func asking(name, cpu, memory string, priority int32) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Priority: ptr.To(priority), Containers: []corev1.Container{{Name: "c"}}}}
	cpu, guaranteed := strings.CutPrefix(cpu, "=")
	if cpu == "" {
		return p
	}
	list := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	p.Spec.Containers[0].Resources.Requests = list
	if guaranteed {
		p.Spec.Containers[0].Resources.Limits = list
	}
	return p
}

// A critical pod that lacks room ends others, as few and as little important as can
// be, and none where that would not help or something else forbids it.
func TestPreempt(t *testing.T) {
	const critical = 2_000_000_000
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	have := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("4Gi"), corev1.ResourcePods: resource.MustParse("4")}
	for name, row := range map[string]struct {
		pods  []*corev1.Pod
		pod   *corev1.Pod
		ended string
		why   string
	}{
		"room for all":                {[]*corev1.Pod{asking("a", "1", "1Gi", 0)}, asking("x", "1", "1Gi", critical), "", ""},
		"an ordinary pod ends none":   {[]*corev1.Pod{asking("a", "3", "1Gi", 0)}, asking("x", "2", "1Gi", 0), "", "OutOfcpu"},
		"the one that is enough":      {[]*corev1.Pod{asking("a", "1", "1Gi", 0), asking("b", "2", "1Gi", 0)}, asking("x", "3", "1Gi", critical), "b", ""},
		"burstable before guaranteed": {[]*corev1.Pod{asking("a", "=2", "1Gi", 0), asking("b", "2", "1Gi", 0)}, asking("x", "2", "1Gi", critical), "b", ""},
		"both, if one is too little":  {[]*corev1.Pod{asking("a", "=2", "1Gi", 0), asking("b", "1", "1Gi", 0)}, asking("x", "4", "1Gi", critical), "b a", ""},
		"critical ones stay": {[]*corev1.Pod{asking("a", "3", "1Gi", critical), asking("b", "1", "1Gi", 0)}, asking("x", "3", "1Gi", critical), "",
			"UnexpectedAdmissionError Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [(res: cpu, q: 2000), ]"},
		"critical ones of a lower priority do not": {[]*corev1.Pod{asking("a", "3", "1Gi", critical)}, asking("x", "3", "1Gi", critical+1), "a", ""},
		"too many pods, the best effort one goes":  {[]*corev1.Pod{asking("a", "1", "1Gi", 0), asking("b", "", "", 0), asking("c", "1", "1Mi", 0), asking("d", "1", "1Mi", 0)}, asking("x", "1", "1Gi", critical), "b", ""},
	} {
		var ended []string
		got := Pod(Node{Object: node, Allocatable: have, Pods: row.pods, Preempt: func(pods []*corev1.Pod, _ string) {
			for _, p := range pods {
				ended = append(ended, p.Name)
			}
		}}, row.pod)
		why := ""
		if got != nil {
			why = got.Reason + " " + got.Message
		}
		if !strings.HasPrefix(why, row.why) || row.why == "" && why != "" || !slices.Equal(ended, strings.Fields(row.ended)) {
			t.Errorf("%s: %q ended, %q, want %q, %q", name, ended, why, row.ended, row.why)
		}
	}
	lost := asking("x", "3", "1Gi", critical)
	lost.Spec.NodeSelector = map[string]string{"not": "here"}
	got := Pod(Node{Object: node, Allocatable: have, Pods: []*corev1.Pod{asking("a", "3", "1Gi", 0)}, Preempt: func([]*corev1.Pod, string) { t.Error("a pod is ended for one that cannot come") }}, lost)
	if got == nil || got.Reason != "NodeAffinity" {
		t.Errorf("got %v", got)
	}
}
