// SPDX-License-Identifier: Apache-2.0

package volumebinder

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// recyclerPrefix begins the names of the pods that empty volumes.
const recyclerPrefix = "recycler-for-"

func (c *Controller) recyclerChanged(pod *corev1.Pod) {
	if name, ok := strings.CutPrefix(pod.Name, recyclerPrefix); ok && pod.Namespace == metav1.NamespaceDefault {
		c.queue.Add(key{Name: name})
	}
}

// recycle empties a volume by a pod and makes it available again.
func (c *Controller) recycle(ctx context.Context, v *corev1.PersistentVolume) error {
	if v.Spec.HostPath == nil && v.Spec.NFS == nil {
		return c.fail(ctx, v, "VolumeFailedRecycle", "No recycler plugin found for the volume!")
	}
	name := recyclerPrefix + v.Name
	pod, err := c.pods.Cached(metav1.NamespaceDefault, name)
	if apierrors.IsNotFound(err) {
		if _, err = c.pods.Create(ctx, recycler(v, name)); apierrors.IsAlreadyExists(err) {
			return nil // its changes bring the volume back
		}
		return err
	}
	if err != nil || pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed || pod.DeletionTimestamp != nil {
		return err
	}
	if pod.Status.Phase == corev1.PodFailed {
		if err := c.fail(ctx, v, "VolumeFailedRecycle", "Recycle failed: "+pod.Status.Message); err != nil {
			return err
		}
		return ignoreAbsent(c.pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{}))
	}
	c.events.Record(ctx, v, volumeKind, corev1.EventTypeNormal, "VolumeRecycled", "Volume recycled")
	if err := c.unbind(ctx, v); err != nil {
		return err
	}
	return ignoreAbsent(c.pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{}))
}

func ignoreAbsent(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func recycler(v *corev1.PersistentVolume, name string) *corev1.Pod {
	deadline := int64(300)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: name},
		Spec: corev1.PodSpec{
			ActiveDeadlineSeconds: &deadline,
			RestartPolicy:         corev1.RestartPolicyNever,
			Volumes:               []corev1.Volume{{Name: "vol", VolumeSource: corev1.VolumeSource{HostPath: v.Spec.HostPath, NFS: v.Spec.NFS}}},
			Containers: []corev1.Container{{
				Name: "pv-recycler", Image: "registry.k8s.io/build-image/debian-base:bookworm-v1.0.4",
				Command:      []string{"/bin/sh"},
				Args:         []string{"-c", `test -e /scrub && find /scrub -mindepth 1 -delete && test -z "$(ls -A /scrub)" || exit 1`},
				VolumeMounts: []corev1.VolumeMount{{Name: "vol", MountPath: "/scrub"}},
			}},
		},
	}
}
