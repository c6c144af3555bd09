// SPDX-License-Identifier: Apache-2.0

// Package devicetainteviction deletes the pods that use a device with a NoExecute
// taint which their claim does not tolerate, or no longer does (KEP-5055). The
// taint stands in the driver's ResourceSlice or in a DeviceTaintRule, and a
// rule's status tells how far that has come, or, without an effect, what it
// would come to. The controller manager runs it; the scheduler sees to it that
// nothing new is put on such devices.
package devicetainteviction

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/podend"
	"kaji/internal/controller/queue"
)

const (
	name = "device-taint-eviction-controller"
	// byPool is the informers' index of slices, and of claims with devices, by
	// driver/pool.
	byPool = "controller.devicepool"
	// DefaultWorkers is how many pods are looked at at a time.
	DefaultWorkers = 8
)

var podKind = corev1.SchemeGroupVersion.WithKind("Pod")

// Config says what the controller works with.
type Config struct {
	Client client.Interface
	// Workers is DefaultWorkers when zero.
	Workers int
	Logger  *slog.Logger
}

// Controller deletes pods and writes the status of rules.
type Controller struct {
	api     client.Interface
	pods    client.Typed[*corev1.Pod]
	claims  client.Typed[*resourcev1.ResourceClaim]
	slices  client.Typed[*resourcev1.ResourceSlice]
	rules   client.Typed[*resourcev1.DeviceTaintRule]
	events  *event.Recorder
	workers int
	queue   *queue.Queue[queue.Key] // pods
	reports *queue.Queue[ruleKey]

	mu      sync.Mutex
	waiting map[queue.Key]types.UID // pods whose time runs; guarded by mu
	trying  map[queue.Key]*ending   // pods that are being deleted; guarded by mu
	evicted map[types.UID]int       // how many pods a rule ended since the start; guarded by mu
}

// ruleKey names a rule, and no other of that name.
type ruleKey struct {
	name string
	uid  types.UID
}

// New returns the controller.
func New(config Config) *Controller {
	api := config.Client
	c := &Controller{api: api, pods: client.For[*corev1.Pod](api), claims: client.For[*resourcev1.ResourceClaim](api), slices: client.For[*resourcev1.ResourceSlice](api),
		rules: client.For[*resourcev1.DeviceTaintRule](api), events: event.New(api, name, config.Logger), workers: config.Workers,
		waiting: map[queue.Key]types.UID{}, trying: map[queue.Key]*ending{}, evicted: map[types.UID]int{}}
	if c.workers == 0 {
		c.workers = DefaultWorkers
	}
	c.queue, c.reports = queue.New(name, config.Logger, c.reconcile), queue.New(name+"-rules", config.Logger, c.report)
	c.slices.AddIndex(byPool, func(s *resourcev1.ResourceSlice) []string { return []string{s.Spec.Driver + "/" + s.Spec.Pool.Name} })
	c.claims.AddIndex(byPool, pools)
	c.pods.AddHandler(client.Handler[*corev1.Pod]{Add: c.podChanged, Delete: c.podChanged, Update: func(old, pod *corev1.Pod) {
		if old.Spec.NodeName != pod.Spec.NodeName || !resourceclaim.PodStatusEqual(old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses) ||
			!resourceclaim.PodExtendedStatusEqual(old.Status.ExtendedResourceClaimStatus, pod.Status.ExtendedResourceClaimStatus) {
			c.podChanged(pod)
		}
	}})
	c.claims.AddHandler(client.Handler[*resourcev1.ResourceClaim]{Add: c.wakeUsers, Delete: c.wakeUsers, Update: func(old, claim *resourcev1.ResourceClaim) {
		c.wakeUsers(old)
		c.wakeUsers(claim)
	}})
	c.slices.AddHandler(client.Handler[*resourcev1.ResourceSlice]{Add: c.sliceChanged, Delete: c.sliceChanged, Update: func(old, slice *resourcev1.ResourceSlice) {
		if tainted(old) || tainted(slice) || old.Spec.Pool.Generation != slice.Spec.Pool.Generation {
			c.sliceChanged(slice)
		}
	}})
	c.rules.AddHandler(client.Handler[*resourcev1.DeviceTaintRule]{Add: c.ruleChanged, Update: func(old, rule *resourcev1.DeviceTaintRule) {
		if old.UID != rule.UID || !equality.Semantic.DeepEqual(&old.Spec, &rule.Spec) {
			c.ruleChanged(rule)
		}
	}, Delete: c.ruleGone})
	return c
}

// Run deletes pods until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if !client.WaitForSync(ctx, c.pods.Informer(), c.claims.Informer(), c.slices.Informer(), c.rules.Informer()) {
		return nil
	}
	var group sync.WaitGroup
	group.Go(func() { c.reports.Run(ctx, 1) })
	c.queue.Run(ctx, c.workers)
	group.Wait()
	return nil
}

// pools are the pools that a claim's devices come from.
func pools(claim *resourcev1.ResourceClaim) (out []string) {
	if claim.Status.Allocation == nil {
		return nil
	}
	for _, d := range claim.Status.Allocation.Devices.Results {
		out = append(out, d.Driver+"/"+d.Pool)
	}
	return out
}

func (c *Controller) podChanged(pod *corev1.Pod) {
	if len(pod.Spec.ResourceClaims) > 0 || pod.Status.ExtendedResourceClaimStatus != nil {
		c.queue.Add(queue.Key{Namespace: pod.Namespace, Name: pod.Name})
	}
}

// wakeUsers looks at the pods that use a claim.
func (c *Controller) wakeUsers(claim *resourcev1.ResourceClaim) {
	for _, pod := range claim.Status.ReservedFor {
		if pod.APIGroup == "" && pod.Resource == "pods" {
			c.queue.Add(queue.Key{Namespace: claim.Namespace, Name: pod.Name})
		}
	}
}

func (c *Controller) sliceChanged(slice *resourcev1.ResourceSlice) {
	for _, claim := range c.claims.ByIndex(byPool, slice.Spec.Driver+"/"+slice.Spec.Pool.Name) {
		c.wakeUsers(claim)
	}
}

// ruleChanged reports on the rule before its first pod goes.
func (c *Controller) ruleChanged(rule *resourcev1.DeviceTaintRule) {
	c.reports.Add(ruleKey{rule.Name, rule.UID})
	c.wakeAll()
}

func (c *Controller) ruleGone(rule *resourcev1.DeviceTaintRule) {
	c.mu.Lock()
	delete(c.evicted, rule.UID)
	c.mu.Unlock()
	c.wakeAll()
}

// wakeAll looks at the pods of all claims: what a rule selected before is not
// known, and rules are rare.
func (c *Controller) wakeAll() {
	for _, claim := range c.claims.CachedList("", nil) {
		if claim.Status.Allocation != nil {
			c.wakeUsers(claim)
		}
	}
}

// reconcile lets a pod go when its time has come.
func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	pod, err := c.pods.Cached(key.Namespace, key.Name)
	if err != nil || pod.DeletionTimestamp != nil {
		c.deleted(key, true) // if it was tried: the answer was lost
		c.forget(key)
		return nil
	}
	end := c.endOf(pod, c.evicting())
	if end == nil {
		if c.forget(key) == pod.UID {
			c.events.Record(ctx, pod, podKind, corev1.EventTypeNormal, "DeviceTaintManagerEviction", "Cancelling deletion")
		}
		return nil
	}
	c.reportLater(end)
	if left := time.Until(end.when); left > 0 {
		c.mu.Lock()
		c.waiting[key] = pod.UID
		c.mu.Unlock()
		c.queue.AddAfter(key, left)
		return nil
	}
	c.mu.Lock()
	again := c.trying[key] != nil
	c.trying[key] = end
	c.mu.Unlock()
	gone, err := c.evict(ctx, pod)
	if err != nil {
		return err // the answer may have been lost: whether it goes is seen later
	}
	if c.deleted(key, !gone || again); !gone {
		meter.From(ctx).PodLeftDevice(end.when)
	}
	c.forget(key)
	return nil
}

// evict deletes a pod; gone says that it was gone before.
func (c *Controller) evict(ctx context.Context, pod *corev1.Pod) (gone bool, err error) {
	c.events.Record(ctx, pod, podKind, corev1.EventTypeNormal, "DeviceTaintManagerEviction", "Marking for deletion")
	err = podend.Mark(ctx, c.pods, pod, false, podend.Why{Reason: "DeletionByDeviceTaintManager", Message: "Device Taint manager: deleting due to NoExecute taint"})
	if err == nil {
		uid := pod.UID
		err = c.pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	}
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return false, err
}

// forget stops a pod's time and returns the pod whose time ran.
func (c *Controller) forget(key queue.Key) types.UID {
	c.mu.Lock()
	defer c.mu.Unlock()
	uid := c.waiting[key]
	delete(c.waiting, key)
	return uid
}

// deleted ends an attempt to delete a pod, and counts it for the rules it went
// for if it was this controller's doing.
func (c *Controller) deleted(key queue.Key, ours bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := c.trying[key]
	delete(c.trying, key)
	if end == nil || !ours {
		return
	}
	for rule := range end.rules {
		c.evicted[rule.UID]++
	}
}

// reportLater updates the rules' status when more pods may have come.
func (c *Controller) reportLater(end *ending) {
	for rule := range end.rules {
		c.reports.AddAfter(ruleKey{rule.Name, rule.UID}, reportPeriod)
	}
}
