// SPDX-License-Identifier: Apache-2.0

package ttlafterfinished_test

import (
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/ttlafterfinished"
)

// A Job goes when its time has passed since it ended, or since the time was set.
func TestTTL(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{ttlafterfinished.New(api, nil)}
	}
	bubble.RunAs(t, "ttl-after-finished-controller", start, func(b *bubble.Bubble) {
		ctx, jobs := b.Context(), client.For[*batchv1.Job](b.API)
		for name, ttl := range map[string]*int32{"minute": ptr.To[int32](60), "never": nil, "runs": ptr.To[int32](0), "later": ptr.To[int32](60)} {
			j := bubble.Must(jobs.Create(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: batchv1.JobSpec{TTLSecondsAfterFinished: ttl,
				Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}))(b).DeepCopy()
			if name == "runs" {
				continue
			}
			now := metav1.Now()
			j.Status.StartTime = &now
			for _, c := range []batchv1.JobConditionType{batchv1.JobFailureTarget, batchv1.JobFailed} {
				j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: now})
			}
			bubble.Must(jobs.UpdateStatus(ctx, j))(b)
		}
		there := func(want map[string]bool) {
			b.Helper()
			for name, want := range want {
				j, err := jobs.Get(ctx, "default", name)
				if err != nil && !apierrors.IsNotFound(err) {
					b.Fatal(err)
				}
				// No garbage collector runs: a Job that goes waits for its dependents.
				if is := err == nil && j.DeletionTimestamp == nil; is != want {
					b.Errorf("%s is there: %v, want %v", name, is, want)
				}
			}
		}
		ttl := func(name string, seconds int32) {
			b.Helper()
			bubble.Must(jobs.MergePatch(ctx, "default", name, map[string]any{"spec": map[string]any{"ttlSecondsAfterFinished": seconds}}, ""))(b)
		}
		b.Wait(50 * time.Second)
		ttl("later", 600)
		there(map[string]bool{"minute": true, "never": true, "runs": true, "later": true})
		b.Wait(20 * time.Second)
		there(map[string]bool{"minute": false, "never": true, "runs": true, "later": true})
		ttl("never", 0)
		b.Settle()
		there(map[string]bool{"never": false, "runs": true, "later": true})
		b.Wait(10 * time.Minute)
		there(map[string]bool{"runs": true, "later": false})
	})
}
