// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/actual"
)

// A container that ended "in an hour", since the clock was put back, waits for its
// back-off as others do, and no longer.
func TestClockPutBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{Recorder: record.NewFakeRecorder(1000), Logger: slog.New(slog.DiscardHandler)})
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
		c := &pod.Spec.Containers[0]
		end := func() *actual.Pod {
			return &actual.Pod{Containers: []*actual.Container{{Name: "c", State: runtimeapi.ContainerState_CONTAINER_EXITED, FinishedAt: time.Now().Add(time.Hour)}}}
		}
		if why := r.backOff(pod, c, end()); why != nil {
			t.Errorf("the first time: %v", why)
		}
		time.Sleep(5 * time.Second)
		why := r.backOff(pod, c, end())
		if why == nil || why.Reason != "CrashLoopBackOff" || time.Until(why.RetryAt) > 10*time.Second {
			t.Errorf("after 5 s: %+v", why)
		}
		time.Sleep(6 * time.Second)
		if why := r.backOff(pod, c, end()); why != nil {
			t.Errorf("after 11 s: %v", why)
		}
	})
}
