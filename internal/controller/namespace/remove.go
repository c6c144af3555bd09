// SPDX-License-Identifier: Apache-2.0

package namespace

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"kaji/internal/client"
	"kaji/internal/controller/served"
)

// finalizerTime is how long an object with finalizers is thought to need.
const finalizerTime = 15 * time.Second

// remove deletes all objects of one resource and counts those that are left.
func (c *Controller) remove(ctx context.Context, ns *corev1.Namespace, r served.Resource, found *findings) {
	at := client.Resource{GroupVersionResource: r.GroupVersionResource, Namespace: ns.Name}
	grace := c.grace(ctx, ns, at)
	if err := c.deleteAll(ctx, at, r); err != nil {
		found.failed(err)
		return
	}
	if !r.Can("list") {
		return
	}
	left, err := c.list(ctx, at)
	if err != nil {
		if !unsupported(err) {
			found.failed(err)
		}
		return
	}
	if len(left) == 0 {
		return
	}
	held := found.count(at.GroupVersionResource, left)
	switch {
	case held:
		found.wait(max(grace, finalizerTime))
	case grace > 0:
		found.wait(grace)
	default:
		found.failed(fmt.Errorf("unexpected items still remain in namespace: %s for gvr: %v", ns.Name, at.GroupVersionResource))
	}
}

// unsupported says that a resource has no such verb after all.
func unsupported(err error) bool {
	return apierrors.IsMethodNotSupported(err) || apierrors.IsNotFound(err)
}

func (c *Controller) deleteAll(ctx context.Context, at client.Resource, r served.Resource) error {
	opts := metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}
	if r.Can("deletecollection") {
		err := c.api.DeleteCollection(ctx, at, opts, metav1.ListOptions{})
		if err == nil || !unsupported(err) {
			return err
		}
	}
	if !r.Can("list") {
		return nil
	}
	items, err := c.list(ctx, at)
	if err != nil {
		if unsupported(err) {
			return nil
		}
		return err
	}
	for _, item := range items {
		if err := c.api.Delete(ctx, at, item.GetName(), opts); err != nil && !unsupported(err) {
			return err
		}
	}
	return nil
}

func (c *Controller) list(ctx context.Context, at client.Resource) ([]metav1.Object, error) {
	list, err := c.api.List(ctx, at, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var out []metav1.Object
	err = meta.EachListItem(list, func(o runtime.Object) error {
		m, err := meta.Accessor(o)
		out = append(out, m)
		return err
	})
	return out, err
}

// grace returns how much longer the namespace's pods may take to end; zero for
// other resources.
func (c *Controller) grace(ctx context.Context, ns *corev1.Namespace, at client.Resource) time.Duration {
	if at.GroupVersionResource != corev1.SchemeGroupVersion.WithResource("pods") {
		return 0
	}
	pods, err := client.For[*corev1.Pod](c.api).List(ctx, ns.Name, metav1.ListOptions{})
	if err != nil {
		return 0
	}
	longest := time.Duration(0)
	for _, pod := range pods {
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		longest = max(longest, time.Duration(ptr.Deref(pod.Spec.TerminationGracePeriodSeconds, 0))*time.Second)
	}
	if time.Since(ns.DeletionTimestamp.Time) >= longest {
		return 0
	}
	return longest
}
