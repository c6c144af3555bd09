// SPDX-License-Identifier: Apache-2.0

package protection_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/bubble"
	"kaji/internal/controller/protection"
	"kaji/kajitest"
)

// A claim goes when the last pod with a node has gone; a volume when it is no
// longer bound.
func TestWhatIsUsedStays(t *testing.T) {
	bubble.RunEach(t, map[string]func(client.Interface) []bubble.Controller{
		"pvc-protection-controller": func(api client.Interface) []bubble.Controller {
			return []bubble.Controller{protection.NewClaims(api, nil)}
		},
		"pv-protection-controller": func(api client.Interface) []bubble.Controller {
			return []bubble.Controller{protection.NewVolumes(api, nil)}
		},
	}, func(b *bubble.Bubble) {
		ctx, claims, volumes, pods := b.Context(), client.For[*corev1.PersistentVolumeClaim](b.API), client.For[*corev1.PersistentVolume](b.API), client.For[*corev1.Pod](b.API)
		size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
		modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
		bubble.Must(claims.Create(ctx, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"},
			Spec: corev1.PersistentVolumeClaimSpec{AccessModes: modes, Resources: corev1.VolumeResourceRequirements{Requests: size}}}))(b)
		v := bubble.Must(volumes.Create(ctx, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{Capacity: size, AccessModes: modes,
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/x"}}}}))(b).DeepCopy()
		bubble.Must(pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{NodeName: "n",
			Containers: []corev1.Container{{Name: "a", Image: "a"}},
			Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}}}))(b)
		b.Settle()
		v = bubble.Must(volumes.Get(ctx, "", v.Name))(b).DeepCopy()
		v.Status.Phase = corev1.VolumeBound
		bubble.Must(volumes.UpdateStatus(ctx, v))(b)
		for _, err := range []error{claims.Delete(ctx, "default", "c", metav1.DeleteOptions{}), volumes.Delete(ctx, "", "v", metav1.DeleteOptions{})} {
			if err != nil {
				b.Fatal(err)
			}
		}
		b.Settle()
		if c := bubble.Must(claims.Get(ctx, "default", "c"))(b); !slices.Contains(c.Finalizers, "kubernetes.io/pvc-protection") {
			b.Errorf("the claim lost its finalizer: %v", c.Finalizers)
		}
		v = bubble.Must(volumes.Get(ctx, "", "v"))(b).DeepCopy()
		v.Status.Phase = corev1.VolumeReleased
		bubble.Must(volumes.UpdateStatus(ctx, v))(b)
		zero := int64(0)
		if err := pods.Delete(ctx, "default", "p", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			b.Fatal(err)
		}
		b.Settle()
		if _, err := claims.Get(ctx, "default", "c"); !apierrors.IsNotFound(err) {
			b.Errorf("the claim is unused: %v", err)
		}
		if _, err := volumes.Get(ctx, "", "v"); !apierrors.IsNotFound(err) {
			b.Errorf("the volume is unused: %v", err)
		}
	}, kajitest.WithRBAC())
}

// A bound claim tells whether a pod refers to it that has not ended; one that is
// not bound tells nothing.
func TestUnused(t *testing.T) {
	start := func(api client.Interface) []bubble.Controller {
		return []bubble.Controller{protection.NewClaims(api, nil)}
	}
	bubble.RunAs(t, "pvc-protection-controller", start, func(b *bubble.Bubble) {
		ctx, claims, pods := b.Context(), client.For[*corev1.PersistentVolumeClaim](b.API), client.For[*corev1.Pod](b.API)
		size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
		bubble.Must(claims.Create(ctx, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Resources: corev1.VolumeResourceRequirements{Requests: size}, VolumeName: "v"}}))(b)
		want := func(what string) {
			b.Helper()
			b.Settle()
			got := ""
			for _, c := range bubble.Must(claims.Get(ctx, "default", "c"))(b).Status.Conditions {
				got += string(c.Type) + " " + string(c.Status) + " " + c.Reason + ": " + c.Message
			}
			if got != what {
				b.Errorf("got %q, want %q", got, what)
			}
		}
		want("")
		bound := bubble.Must(claims.Get(ctx, "default", "c"))(b).DeepCopy()
		bound.Status.Phase = corev1.ClaimBound
		bubble.Must(claims.UpdateStatus(ctx, bound))(b)
		want("Unused True NoPodsUsingPVC: No pods are currently referencing this PVC")
		bubble.Must(pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a"}},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}}}))(b)
		want("Unused False PodUsingPVC: A pod is currently referencing this PVC")
		// One that is to go and may not yet tells as well.
		held := bubble.Must(pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "q"}, Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "a", Image: "a"}},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}}}))(b)
		if err := claims.Delete(ctx, "default", "c", metav1.DeleteOptions{}); err != nil {
			b.Fatal(err)
		}
		bubble.Must(claims.MergePatch(ctx, "default", "c", map[string]any{"status": map[string]any{"conditions": nil}}, "status"))(b)
		want("Unused False PodUsingPVC: A pod is currently referencing this PVC")
		bubble.Must(pods.MergePatch(ctx, "default", held.Name, map[string]any{"status": map[string]any{"phase": "Succeeded"}}, "status"))(b)
		want("Unused False PodUsingPVC: A pod is currently referencing this PVC")
		bubble.Must(pods.MergePatch(ctx, "default", "p", map[string]any{"status": map[string]any{"phase": "Succeeded"}}, "status"))(b)
		want("Unused True NoPodsUsingPVC: No pods are currently referencing this PVC")
	})
}
