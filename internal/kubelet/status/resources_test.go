// SPDX-License-Identifier: Apache-2.0

package status

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
)

func quantities(cpu, memory string) corev1.ResourceList {
	l := corev1.ResourceList{}
	if cpu != "" {
		l[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		l[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return l
}

// Each row is a pod and what its control group says, and what upstream's kubelet
// shows of the pod as a whole then.
func TestPodResources(t *testing.T) {
	for name, row := range map[string]struct {
		own, container              corev1.ResourceRequirements
		group                       *Group
		allocated, requests, limits corev1.ResourceList
	}{
		"nothing asked": {group: &Group{Shares: 2}},
		"burstable": {container: corev1.ResourceRequirements{Requests: quantities("10m", "16Mi"), Limits: quantities("100m", "32Mi")},
			group:     &Group{Shares: 10, Quota: 10000, Period: 100000, Memory: 32 << 20},
			allocated: quantities("10m", "16Mi"), requests: quantities("10m", "16Mi"), limits: quantities("100m", "32Mi")},
		"not running": {container: corev1.ResourceRequirements{Requests: quantities("10m", ""), Limits: quantities("100m", "")},
			allocated: quantities("10m", ""), requests: quantities("10m", ""), limits: quantities("100m", "")},
		"of its own": {own: corev1.ResourceRequirements{Requests: quantities("33m", "32Mi"), Limits: quantities("200m", "")},
			group:     &Group{Shares: 33 * 1024 / 1000, Quota: 20000, Period: 100000},
			allocated: quantities("33m", "32Mi"), requests: quantities("33m", "32Mi"), limits: quantities("200m", "")},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Resources: row.container}}}}
		if row.own.Requests != nil {
			pod.Spec.Resources = &row.own
		}
		if row.group != nil {
			pod.Status.Phase = corev1.PodRunning
		}
		s := Generate(Input{Pod: pod, Old: &corev1.PodStatus{}, Actual: &actual.Pod{}, Health: well{}, Group: row.group})
		same := func(what string, got, want corev1.ResourceList) {
			if len(got) != len(want) {
				t.Errorf("%s: %s are %v, want %v", name, what, got, want)
			}
			for n, q := range want {
				if have := got[n]; have.Cmp(q) != 0 {
					t.Errorf("%s: %s have %s of %s, want %s", name, what, have.String(), n, q.String())
				}
			}
		}
		same("allocated", s.AllocatedResources, row.allocated)
		same("requests", s.Resources.Requests, row.requests)
		same("limits", s.Resources.Limits, row.limits)
	}
}

// Why containers cannot start is said in upstream's words.
func TestSandboxProblem(t *testing.T) {
	ready := func(ip string) *runtimeapi.PodSandboxStatus {
		return &runtimeapi.PodSandboxStatus{Id: ip, State: runtimeapi.PodSandboxState_SANDBOX_READY, Network: &runtimeapi.PodSandboxNetworkStatus{Ip: ip}}
	}
	stopped := &runtimeapi.PodSandboxStatus{Id: "x", State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY}
	for want, have := range map[string][]*runtimeapi.PodSandboxStatus{
		"no pod sandbox exists":                                      nil,
		"pod sandbox is not ready":                                   {stopped},
		"multiple pod sandboxes are ready and need to be reconciled": {ready("10.0.0.1"), ready("10.0.0.2")},
		"pod sandbox has no IP address":                              {ready("")},
		"":                                                           {ready("10.0.0.1"), stopped},
	} {
		if got := sandboxProblem(&corev1.Pod{}, &actual.Pod{Sandboxes: have}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
