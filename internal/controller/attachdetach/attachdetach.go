// SPDX-License-Identifier: Apache-2.0

// Package attachdetach asks for CSI volumes to be attached to the nodes of the
// pods that use them, by VolumeAttachments that a driver's attacher carries out,
// and tells nodes in their status what is attached. The controller manager runs
// it. It never talks to a driver.
//
// What is attached stands in the VolumeAttachments, what is mounted in the
// nodes' status; the only memory is since when an attachment is not wanted.
package attachdetach

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/component-helpers/storage/ephemeral"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

const (
	byClaim  = "attachdetach.claim"
	byVolume = "attachdetach.volume"
	byNode   = "attachdetach.node"

	// managed is set by node agents that leave attaching to this controller.
	managed = "volumes.kubernetes.io/controller-managed-attach-detach"

	workers = 10
)

// Config says what the controller works with.
type Config struct {
	Client client.Interface
	// NoForce keeps volumes attached to nodes that are gone or not ready and
	// still say that they are mounted.
	NoForce bool
	Logger  *slog.Logger
}

// Controller attaches and detaches.
type Controller struct {
	pods        client.Typed[*corev1.Pod]
	claims      client.Typed[*corev1.PersistentVolumeClaim]
	volumes     client.Typed[*corev1.PersistentVolume]
	nodes       client.Typed[*corev1.Node]
	drivers     client.Typed[*storagev1.CSIDriver]
	attachments client.Typed[*storagev1.VolumeAttachment]
	events      *event.Recorder
	pairs       *queue.Queue[pair]
	statuses    *queue.Queue[string]
	noForce     bool
	log         *slog.Logger

	mu sync.Mutex
	// unwanted is since when an attachment is not wanted, told what pods were
	// told last about one.
	unwanted map[pair]time.Time
	told     map[pair]string
}

// pair is a PersistentVolume and a node.
type pair struct{ volume, node string }

// New returns the controller.
func New(config Config) *Controller {
	api, log := config.Client, config.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{pods: client.For[*corev1.Pod](api), claims: client.For[*corev1.PersistentVolumeClaim](api), volumes: client.For[*corev1.PersistentVolume](api),
		nodes: client.For[*corev1.Node](api), drivers: client.For[*storagev1.CSIDriver](api), attachments: client.For[*storagev1.VolumeAttachment](api),
		events: event.New(api, "attachdetach-controller", log), noForce: config.NoForce, log: log, unwanted: map[pair]time.Time{}, told: map[pair]string{}}
	c.pairs, c.statuses = queue.New("attachdetach", log, c.reconcile), queue.New("attachdetach_status", log, c.report)
	c.pods.AddIndex(byClaim, claimsOf)
	c.pods.AddIndex(byNode, func(pod *corev1.Pod) []string {
		if len(claimsOf(pod)) == 0 {
			return nil
		}
		return []string{pod.Spec.NodeName}
	})
	c.attachments.AddIndex(byVolume, func(a *storagev1.VolumeAttachment) []string { return []string{keyOf(a).volume} })
	c.attachments.AddIndex(byNode, func(a *storagev1.VolumeAttachment) []string { return []string{a.Spec.NodeName} })
	c.watch()
	return c
}

// watch lets changes be reconciled.
func (c *Controller) watch() {
	c.pods.AddHandler(client.Handler[*corev1.Pod]{Add: c.podChanged, Delete: c.podChanged, Update: func(old, pod *corev1.Pod) {
		if old.Spec.NodeName != pod.Spec.NodeName || done(old) != done(pod) {
			c.podChanged(pod)
		}
	}})
	c.claims.AddHandler(client.Handler[*corev1.PersistentVolumeClaim]{Add: c.claimChanged, Update: func(old, claim *corev1.PersistentVolumeClaim) {
		if old.Spec.VolumeName != claim.Spec.VolumeName || old.Status.Phase != claim.Status.Phase {
			c.claimChanged(claim)
		}
	}})
	c.volumes.AddHandler(client.Handler[*corev1.PersistentVolume]{Add: c.volumeChanged, Update: func(old, v *corev1.PersistentVolume) {
		if !equality.Semantic.DeepEqual(old.Spec.ClaimRef, v.Spec.ClaimRef) {
			c.volumeChanged(v)
		}
	}})
	c.nodes.AddHandler(client.Handler[*corev1.Node]{Add: func(n *corev1.Node) { c.nodeManaged(n); c.nodeChanged(n) }, Delete: c.nodeChanged, Update: func(old, n *corev1.Node) {
		if old.Annotations[managed] != n.Annotations[managed] {
			c.nodeManaged(n)
		}
		if !equality.Semantic.DeepEqual(old.Status.VolumesInUse, n.Status.VolumesInUse) || !equality.Semantic.DeepEqual(old.Status.VolumesAttached, n.Status.VolumesAttached) ||
			outOfService(old) != outOfService(n) || ready(old) != ready(n) {
			c.nodeChanged(n)
		}
	}})
	c.drivers.AddHandler(client.Handler[*storagev1.CSIDriver]{Add: c.driverChanged, Update: func(_, d *storagev1.CSIDriver) { c.driverChanged(d) }, Delete: c.driverChanged})
	c.attachments.AddHandler(client.Handler[*storagev1.VolumeAttachment]{Add: c.attachmentChanged, Delete: c.attachmentChanged,
		Update: func(_, a *storagev1.VolumeAttachment) { c.attachmentChanged(a) }})
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if !client.WaitForSync(ctx, c.pods.Informer(), c.claims.Informer(), c.volumes.Informer(), c.nodes.Informer(), c.drivers.Informer(), c.attachments.Informer()) {
		return nil
	}
	meter.From(ctx).Attachments(c.used, c.wantedPairs, c.attachedPairs)
	var group sync.WaitGroup
	group.Go(func() { c.statuses.Run(ctx, workers) })
	c.pairs.Run(ctx, workers)
	group.Wait()
	return nil
}

// claimsOf returns the claims that a pod on a node uses.
func claimsOf(pod *corev1.Pod) []string {
	if pod.Spec.NodeName == "" {
		return nil
	}
	var out []string
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			out = append(out, pod.Namespace+"/"+v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, pod.Namespace+"/"+ephemeral.VolumeClaimName(pod, v))
		}
	}
	return out
}

// keyOf returns what an attachment attaches; without a volume of the API its
// volume is empty.
func keyOf(a *storagev1.VolumeAttachment) pair {
	k := pair{node: a.Spec.NodeName}
	if a.Spec.Source.PersistentVolumeName != nil {
		k.volume = *a.Spec.Source.PersistentVolumeName
	}
	return k
}

func (c *Controller) podChanged(pod *corev1.Pod) {
	for _, key := range claimsOf(pod) {
		if v := c.volumeOf(key); v != nil {
			c.pairs.Add(pair{v.Name, pod.Spec.NodeName})
		}
	}
}

func (c *Controller) claimChanged(claim *corev1.PersistentVolumeClaim) {
	if claim.Spec.VolumeName == "" {
		return
	}
	for _, pod := range c.pods.ByIndex(byClaim, claim.Namespace+"/"+claim.Name) {
		c.pairs.Add(pair{claim.Spec.VolumeName, pod.Spec.NodeName})
	}
}

func (c *Controller) volumeChanged(v *corev1.PersistentVolume) {
	if v.Spec.CSI == nil || v.Spec.ClaimRef == nil {
		return
	}
	for _, pod := range c.pods.ByIndex(byClaim, v.Spec.ClaimRef.Namespace+"/"+v.Spec.ClaimRef.Name) {
		c.pairs.Add(pair{v.Name, pod.Spec.NodeName})
	}
}

func (c *Controller) driverChanged(d *storagev1.CSIDriver) {
	for _, v := range c.volumes.CachedList("", labels.Everything()) {
		if v.Spec.CSI != nil && v.Spec.CSI.Driver == d.Name {
			c.volumeChanged(v)
		}
	}
}

// nodeManaged wakes the pods of a node that can be attached to from now on.
func (c *Controller) nodeManaged(n *corev1.Node) {
	for _, pod := range c.pods.ByIndex(byNode, n.Name) {
		c.podChanged(pod)
	}
}

func (c *Controller) nodeChanged(n *corev1.Node) {
	attached := c.attachments.ByIndex(byNode, n.Name)
	for _, a := range attached {
		if k := keyOf(a); k.volume != "" {
			c.pairs.Add(k)
		}
	}
	if len(attached) > 0 || len(n.Status.VolumesAttached) > 0 {
		c.statuses.Add(n.Name)
	}
}

// attachmentChanged wakes the volume's other nodes, too: they may wait for this
// one.
func (c *Controller) attachmentChanged(a *storagev1.VolumeAttachment) {
	k := keyOf(a)
	if k.volume == "" {
		return
	}
	c.pairs.Add(k)
	c.statuses.Add(k.node)
	if v, err := c.volumes.Cached("", k.volume); err == nil {
		c.volumeChanged(v)
	}
}
