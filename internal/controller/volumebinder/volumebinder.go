// SPDX-License-Identifier: Apache-2.0

// Package volumebinder binds PersistentVolumeClaims to PersistentVolumes, asks
// outside provisioners for volumes by annotations, and reclaims the volumes of
// claims that are gone. The controller manager runs it. It leaves claims that
// wait for their first consumer to the scheduler.
//
// A volume is bound in four writes: the volume's claimRef, its phase, the
// claim's volumeName, its phase. Each round looks where the last one stopped.
package volumebinder

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storagehelpers "k8s.io/component-helpers/storage/volume"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

// The indexes: unbound claims by class, claims by their volume, volumes by the
// claim they are for, pods that have no node by their claims.
const (
	byClass  = "volumebinder.class"
	byVolume = "volumebinder.volume"
	byClaim  = "volumebinder.claim"
	waiting  = "volumebinder.waiting"
)

// patience is how long a pod may be without a node before the events of its
// claims tell so.
const patience = 15 * time.Second

var (
	claimKind  = corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim")
	volumeKind = corev1.SchemeGroupVersion.WithKind("PersistentVolume")
)

// key names a claim, or without a namespace a volume.
type key = queue.Key

// Controller binds.
type Controller struct {
	claims  client.Typed[*corev1.PersistentVolumeClaim]
	volumes client.Typed[*corev1.PersistentVolume]
	classes client.Typed[*storagev1.StorageClass]
	pods    client.Typed[*corev1.Pod]
	events  *event.Recorder
	// One worker: two claims never reach for one volume at once.
	queue *queue.Queue[key]

	api       client.Interface
	followers sync.WaitGroup
	mu        sync.Mutex
	followed  map[string]context.CancelFunc // by recycler pod, whose events are copied; guarded by mu

	noProvisioning bool
	hostPath, nfs  Recycling
}

// Config says what the controller works with.
type Config struct {
	Client client.Interface
	// NoProvisioning leaves claims without a volume alone.
	NoProvisioning bool
	// HostPath and NFS say how volumes are emptied that are used again; with
	// DefaultHostPath and DefaultNFS when zero.
	HostPath, NFS Recycling
	Logger        *slog.Logger
}

// New returns the controller.
func New(config Config) *Controller {
	api, log := config.Client, config.Logger
	if config.HostPath == (Recycling{}) {
		config.HostPath = DefaultHostPath
	}
	if config.NFS == (Recycling{}) {
		config.NFS = DefaultNFS
	}
	c := &Controller{api: api, followed: map[string]context.CancelFunc{}, noProvisioning: config.NoProvisioning, hostPath: config.HostPath, nfs: config.NFS, claims: client.For[*corev1.PersistentVolumeClaim](api), volumes: client.For[*corev1.PersistentVolume](api),
		classes: client.For[*storagev1.StorageClass](api), pods: client.For[*corev1.Pod](api), events: event.New(api, "persistentvolume-controller", log)}
	c.queue = queue.New("claims", log, c.reconcile)
	c.index()
	c.claims.AddHandler(client.Handler[*corev1.PersistentVolumeClaim]{Add: c.claimChanged, Delete: c.claimChanged,
		Update: func(old, claim *corev1.PersistentVolumeClaim) {
			if old.ResourceVersion != claim.ResourceVersion {
				c.claimChanged(claim)
			}
		}})
	c.volumes.AddHandler(client.Handler[*corev1.PersistentVolume]{Add: c.volumeChanged, Delete: c.volumeChanged,
		Update: func(old, v *corev1.PersistentVolume) {
			if old.ResourceVersion != v.ResourceVersion {
				c.volumeChanged(v)
			}
		}})
	class := func(s *storagev1.StorageClass) { c.wake(s.Name, "") }
	c.classes.AddHandler(client.Handler[*storagev1.StorageClass]{Add: class, Update: func(old, s *storagev1.StorageClass) {
		if old.ResourceVersion != s.ResourceVersion {
			class(s)
		}
	}})
	c.pods.AddHandler(client.Handler[*corev1.Pod]{
		Add: func(pod *corev1.Pod) {
			c.podWaits(pod)
			c.recyclerChanged(pod)
		},
		Update: func(old, pod *corev1.Pod) {
			if old.Status.Phase != pod.Status.Phase {
				c.recyclerChanged(pod)
			}
		},
		Delete: c.recyclerChanged,
	})
	return c
}

func (c *Controller) index() {
	c.claims.AddIndex(byClass, func(claim *corev1.PersistentVolumeClaim) []string {
		if metav1.HasAnnotation(claim.ObjectMeta, storagehelpers.AnnBindCompleted) {
			return nil
		}
		return []string{storagehelpers.GetPersistentVolumeClaimClass(claim)}
	})
	c.claims.AddIndex(byVolume, func(claim *corev1.PersistentVolumeClaim) []string {
		if claim.Spec.VolumeName == "" {
			return nil
		}
		return []string{claim.Spec.VolumeName}
	})
	c.volumes.AddIndex(byClaim, func(v *corev1.PersistentVolume) []string {
		if v.Spec.ClaimRef == nil {
			return nil
		}
		return []string{refKey(v.Spec.ClaimRef).String()}
	})
	c.pods.AddIndex(waiting, func(pod *corev1.Pod) (out []string) {
		for _, name := range waitsFor(pod) {
			out = append(out, key{Namespace: pod.Namespace, Name: name}.String())
		}
		return out
	})
}

func refKey(ref *corev1.ObjectReference) key { return key{Namespace: ref.Namespace, Name: ref.Name} }

func (c *Controller) claimChanged(claim *corev1.PersistentVolumeClaim) {
	k := key{Namespace: claim.Namespace, Name: claim.Name}
	c.queue.Add(k)
	for _, v := range c.volumes.ByIndex(byClaim, k.String()) {
		c.queue.Add(key{Name: v.Name})
	}
}

func (c *Controller) volumeChanged(v *corev1.PersistentVolume) {
	c.queue.Add(key{Name: v.Name})
	for _, claim := range c.claims.ByIndex(byVolume, v.Name) {
		c.queue.Add(key{Namespace: claim.Namespace, Name: claim.Name})
	}
	if v.Spec.ClaimRef != nil {
		c.queue.Add(refKey(v.Spec.ClaimRef))
	} else if v.Status.Phase == corev1.VolumeAvailable && v.DeletionTimestamp == nil {
		c.wake(storagehelpers.GetPersistentVolumeClass(v))
	}
}

// podWaits has the claims of a pod without a node looked at once more: if it
// still has none then, their events tell that they wait for it.
func (c *Controller) podWaits(pod *corev1.Pod) {
	for _, name := range waitsFor(pod) {
		if claim, err := c.claims.Cached(pod.Namespace, name); err == nil && !metav1.HasAnnotation(claim.ObjectMeta, storagehelpers.AnnBindCompleted) {
			c.queue.AddAfter(key{Namespace: pod.Namespace, Name: name}, patience)
		}
	}
}

// waitsFor are the names of the claims of a pod without a node.
func waitsFor(pod *corev1.Pod) (names []string) {
	if pod.Spec.NodeName != "" {
		return nil
	}
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			names = append(names, pod.Name+"-"+v.Name)
		}
	}
	return names
}

// wake brings back the unbound claims of classes.
func (c *Controller) wake(classes ...string) {
	for _, class := range classes {
		for _, claim := range c.claims.ByIndex(byClass, class) {
			c.queue.Add(key{Namespace: claim.Namespace, Name: claim.Name})
		}
	}
}

// Run binds until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.claims.Informer(), c.volumes.Informer(), c.classes.Informer(), c.pods.Informer()) {
		meter.From(ctx).Volumes(func() []*corev1.PersistentVolume { return c.volumes.CachedList("", nil) },
			func() []*corev1.PersistentVolumeClaim { return c.claims.CachedList("", nil) })
		c.queue.Run(ctx, 1)
		c.followers.Wait()
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, k key) error {
	var err error
	if k.Namespace == "" {
		var v *corev1.PersistentVolume
		if v, err = c.volumes.Cached("", k.Name); err == nil {
			return c.syncVolume(ctx, v)
		}
	} else {
		var claim *corev1.PersistentVolumeClaim
		if claim, err = c.claims.Cached(k.Namespace, k.Name); err == nil {
			return c.syncClaim(ctx, claim)
		}
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
