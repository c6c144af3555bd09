// SPDX-License-Identifier: Apache-2.0

// Package protection keeps claims, volumes, VolumeAttributesClasses and groups of
// pods that are in use from going: each has a finalizer, taken off when nothing uses the
// object any more. The controller manager runs one controller for each kind.
package protection

import (
	"context"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"kaji/internal/client"
	"kaji/internal/controller/queue"
)

// Controller keeps the objects of one kind.
type Controller[T client.Object] struct {
	objects   client.Typed[T]
	finalizer string
	used      func(context.Context, T) (bool, error)
	tell      func(context.Context, T) error // what is known of one that stays; may be nil
	copied    func(T) T
	taken     bool // the finalizer is only taken off: admission put it on
	queue     *queue.Queue[queue.Key]
	synced    []cache.SharedIndexInformer
}

func newController[T client.Object](api client.Interface, log *slog.Logger, name, finalizer string, copied func(T) T) *Controller[T] {
	c := &Controller[T]{objects: client.For[T](api), finalizer: finalizer, copied: copied}
	c.queue = queue.New(name, log, c.reconcile)
	c.synced = append(c.synced, c.objects.Informer())
	changed := func(o T) { c.queue.Add(queue.Key{Namespace: o.GetNamespace(), Name: o.GetName()}) }
	c.objects.AddHandler(client.Handler[T]{Add: changed, Update: func(_, o T) { changed(o) }})
	return c
}

// Run keeps them until ctx ends.
func (c *Controller[T]) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.synced...) {
		c.queue.Run(ctx, 1)
	}
	return nil
}

func (c *Controller[T]) reconcile(ctx context.Context, key queue.Key) error {
	o, err := c.objects.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	has := slices.Contains(o.GetFinalizers(), c.finalizer)
	if deleting := o.GetDeletionTimestamp() != nil; deleting != has {
		if deleting || c.taken {
			return nil
		}
		return c.stays(ctx, o)
	} else if deleting {
		if used, err := c.used(ctx, o); err != nil {
			return err
		} else if used {
			return c.stays(ctx, o)
		}
	}
	next := c.copied(o)
	if has {
		next.SetFinalizers(slices.DeleteFunc(next.GetFinalizers(), func(f string) bool { return f == c.finalizer }))
	} else {
		next.SetFinalizers(append(next.GetFinalizers(), c.finalizer))
	}
	if _, err = c.objects.Update(ctx, next); apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// stays tells what is known of an object that is not to go now.
func (c *Controller[T]) stays(ctx context.Context, o T) error {
	if c.tell == nil {
		return nil
	}
	return c.tell(ctx, o)
}

// NewVolumes returns the controller of PersistentVolumes: one that is bound is
// in use.
func NewVolumes(api client.Interface, log *slog.Logger) *Controller[*corev1.PersistentVolume] {
	c := newController(api, log, "pvprotection", "kubernetes.io/pv-protection", (*corev1.PersistentVolume).DeepCopy)
	c.used = func(_ context.Context, v *corev1.PersistentVolume) (bool, error) {
		return v.Status.Phase == corev1.VolumeBound, nil
	}
	return c
}

// NewClasses returns the controller of VolumeAttributesClasses: claims and
// volumes use them.
func NewClasses(api client.Interface, log *slog.Logger) *Controller[*storagev1.VolumeAttributesClass] {
	const index = "protection.class"
	c := newController(api, log, "vacprotection", "kubernetes.io/vac-protection", (*storagev1.VolumeAttributesClass).DeepCopy)
	claims, volumes := client.For[*corev1.PersistentVolumeClaim](api), client.For[*corev1.PersistentVolume](api)
	c.synced = append(c.synced, claims.Informer(), volumes.Informer())
	ofClaim := func(claim *corev1.PersistentVolumeClaim) (out []string) {
		s := &claim.Status
		for _, name := range []*string{claim.Spec.VolumeAttributesClassName, s.CurrentVolumeAttributesClassName} {
			if name != nil && *name != "" && !slices.Contains(out, *name) {
				out = append(out, *name)
			}
		}
		if m := s.ModifyVolumeStatus; m != nil && m.TargetVolumeAttributesClassName != "" && !slices.Contains(out, m.TargetVolumeAttributesClassName) {
			out = append(out, m.TargetVolumeAttributesClassName)
		}
		return out
	}
	ofVolume := func(v *corev1.PersistentVolume) []string {
		if name := v.Spec.VolumeAttributesClassName; name != nil && *name != "" {
			return []string{*name}
		}
		return nil
	}
	claims.AddIndex(index, ofClaim)
	volumes.AddIndex(index, ofVolume)
	wake := func(names []string) {
		for _, name := range names {
			c.queue.Add(queue.Key{Name: name})
		}
	}
	claims.AddHandler(client.Handler[*corev1.PersistentVolumeClaim]{Delete: func(o *corev1.PersistentVolumeClaim) { wake(ofClaim(o)) },
		Update: func(old, o *corev1.PersistentVolumeClaim) {
			if !slices.Equal(ofClaim(old), ofClaim(o)) {
				wake(ofClaim(old))
			}
		}})
	volumes.AddHandler(client.Handler[*corev1.PersistentVolume]{Delete: func(o *corev1.PersistentVolume) { wake(ofVolume(o)) },
		Update: func(old, o *corev1.PersistentVolume) {
			if !slices.Equal(ofVolume(old), ofVolume(o)) {
				wake(ofVolume(old))
			}
		}})
	c.used = func(ctx context.Context, class *storagev1.VolumeAttributesClass) (bool, error) {
		if len(claims.ByIndex(index, class.Name)) > 0 || len(volumes.ByIndex(index, class.Name)) > 0 {
			return true, nil
		}
		// The informers may be behind: what goes cannot be had back.
		all, err := claims.List(ctx, "", metav1.ListOptions{})
		return slices.ContainsFunc(all, func(o *corev1.PersistentVolumeClaim) bool { return slices.Contains(ofClaim(o), class.Name) }), err
	}
	return c
}
