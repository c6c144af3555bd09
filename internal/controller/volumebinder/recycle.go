// SPDX-License-Identifier: Apache-2.0

package volumebinder

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"kaji/internal/client"
)

// recyclerPrefix begins the names of the pods that empty volumes.
const recyclerPrefix = "recycler-for-"

func (c *Controller) recyclerChanged(pod *corev1.Pod) {
	if name, ok := strings.CutPrefix(pod.Name, recyclerPrefix); ok {
		c.queue.Add(key{Name: name})
	}
}

// recycle empties a volume by a pod and makes it available again.
func (c *Controller) recycle(ctx context.Context, v *corev1.PersistentVolume) error {
	if v.Spec.HostPath == nil && v.Spec.NFS == nil {
		return c.fail(ctx, v, "VolumeFailedRecycle", "No recycler plugin found for the volume!")
	}
	name := recyclerPrefix + v.Name
	wanted := c.recycler(v, name)
	pod, err := c.pods.Cached(wanted.Namespace, name)
	if apierrors.IsNotFound(err) {
		if _, err = c.pods.Create(ctx, wanted); apierrors.IsAlreadyExists(err) {
			return nil // its changes bring the volume back
		}
		return err
	}
	if err != nil {
		return err
	}
	if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed || pod.DeletionTimestamp != nil {
		c.follow(ctx, v, pod)
		return nil
	}
	c.unfollow(name)
	if pod.Status.Phase == corev1.PodFailed {
		why := pod.Status.Message
		if why == "" {
			why = "pod failed, pod.Status.Message unknown"
		}
		if err := c.fail(ctx, v, "VolumeFailedRecycle", "Recycle failed: failed to recycle volume: "+why); err != nil {
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

// follow copies the events of a recycler pod to its volume, where those look who
// miss it, until unfollow or the end of ctx.
func (c *Controller) follow(ctx context.Context, v *corev1.PersistentVolume, pod *corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.followed[pod.Name] != nil {
		return
	}
	ctx, c.followed[pod.Name] = context.WithCancel(ctx)
	c.followers.Go(func() {
		defer c.unfollow(pod.Name)
		events := client.Resource{GroupVersionResource: corev1.SchemeGroupVersion.WithResource("events"), Namespace: pod.Namespace}
		w, err := c.api.Watch(ctx, events, metav1.ListOptions{FieldSelector: "involvedObject.kind=Pod,involvedObject.name=" + pod.Name})
		if err != nil {
			return // the next change of the pod tries again
		}
		defer w.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case e, ok := <-w.ResultChan():
				if !ok {
					return
				}
				if about, is := e.Object.(*corev1.Event); is && e.Type == watch.Added && about.InvolvedObject.UID == pod.UID {
					c.events.Record(ctx, v, volumeKind, about.Type, "RecyclerPod", "Recycler pod: %s", about.Message)
				}
			}
		}
	})
}

func (c *Controller) unfollow(pod string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel := c.followed[pod]; cancel != nil {
		cancel()
		delete(c.followed, pod)
	}
}

func ignoreAbsent(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Recycling says how volumes of a kind are emptied.
type Recycling struct {
	// Template is the pod that does it; its first volume becomes the one to be
	// emptied. Nil is a pod that deletes what is in it.
	Template *corev1.Pod
	// Minimum and PerGi, in seconds, are the pod's deadline: so long for each GiB,
	// but not less than the minimum.
	Minimum, PerGi int
}

// Upstream's deadlines.
var (
	DefaultHostPath = Recycling{Minimum: 60, PerGi: 30}
	DefaultNFS      = Recycling{Minimum: 300, PerGi: 30}
)

// recycler returns the pod that empties a volume.
func (c *Controller) recycler(v *corev1.PersistentVolume, name string) *corev1.Pod {
	how, source := c.hostPath, corev1.VolumeSource{}
	if v.Spec.HostPath != nil {
		source.HostPath = &corev1.HostPathVolumeSource{Path: v.Spec.HostPath.Path}
	} else {
		how, source.NFS = c.nfs, &corev1.NFSVolumeSource{Server: v.Spec.NFS.Server, Path: v.Spec.NFS.Path}
	}
	pod := scrubber()
	if how.Template != nil {
		pod = how.Template.DeepCopy()
	}
	size := v.Spec.Capacity[corev1.ResourceStorage]
	deadline := max(size.Value()>>30*int64(how.PerGi), int64(how.Minimum))
	pod.Name, pod.GenerateName = name, ""
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	pod.Spec.ActiveDeadlineSeconds, pod.Spec.Volumes[0].VolumeSource = &deadline, source
	return pod
}

// scrubber is a pod that deletes what is in its volume.
func scrubber() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever,
			Volumes:       []corev1.Volume{{Name: "vol"}},
			Containers: []corev1.Container{{
				Name: "pv-recycler", Image: "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6",
				Command:      []string{"/bin/sh"},
				Args:         []string{"-c", `test -e /scrub && find /scrub -mindepth 1 -delete && test -z "$(ls -A /scrub)" || exit 1`},
				VolumeMounts: []corev1.VolumeMount{{Name: "vol", MountPath: "/scrub"}},
			}},
		},
	}
}
