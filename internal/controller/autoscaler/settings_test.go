// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSettings(t *testing.T) {
	with := func(s Settings) *look {
		return &look{Controller: &Controller{settings: s}, hpa: &autoscalingv2.HorizontalPodAutoscaler{}, now: time.Now()}
	}
	wide := Defaults()
	wide.Tolerance = 0.5
	if with(wide).beyond(1.2) || !with(Defaults()).beyond(1.2) || with(Defaults()).beyond(1.05) {
		t.Error("the tolerance is not what it was set to")
	}
	young := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: time.Now().Add(-time.Minute)},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}}}
	short := Defaults()
	short.CPUInitialization = 10 * time.Second
	values := map[string]value{"p": {milli: 1, at: time.Now(), window: 2 * time.Minute}}
	for _, c := range []struct {
		settings Settings
		ready    int
	}{{Defaults(), 0}, {short, 1}} {
		if ready, _, _, _ := with(c.settings).group([]*corev1.Pod{young}, values, corev1.ResourceCPU); ready != c.ready {
			t.Errorf("initialization %v: %d ready pods, want %d", c.settings.CPUInitialization, ready, c.ready)
		}
	}
}
