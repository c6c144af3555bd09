// SPDX-License-Identifier: Apache-2.0

// Package disruption keeps the status of PodDisruptionBudgets: how many of their
// pods are healthy, how many must be, and so how many may be evicted now. The
// controller manager runs it; the API server's eviction sub-resource takes from
// disruptionsAllowed and notes in disruptedPods what it let go.
//
// It fails closed: a budget that cannot be computed allows nothing. It also takes
// back the DisruptionTarget condition of pods that were not deleted after all.
package disruption

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/podstate"
	"kaji/internal/controller/queue"
	"kaji/internal/controller/served"
)

const (
	workers = 2
	// deletionTimeout is how long an evicted pod is awaited to be deleted.
	deletionTimeout = 2 * time.Minute
	// staleAfter is how long a pod may say that it is about to be disrupted.
	staleAfter = 2 * time.Minute
)

var (
	kind    = policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget")
	podKind = corev1.SchemeGroupVersion.WithKind("Pod")
)

// Controller keeps budgets.
type Controller struct {
	api         client.Interface
	budgets     client.Typed[*policyv1.PodDisruptionBudget]
	pods        client.Typed[*corev1.Pod]
	sets        client.Typed[*appsv1.ReplicaSet]
	deployments client.Typed[*appsv1.Deployment]
	stateful    client.Typed[*appsv1.StatefulSet]
	replication client.Typed[*corev1.ReplicationController]
	events      *event.Recorder
	served      served.Lister
	queue       *queue.Queue[queue.Key]
	stale       *queue.Queue[queue.Key] // pods whose condition may be out of date, or that have several budgets

	mu        sync.Mutex
	resources map[schema.GroupKind]schema.GroupVersionResource // of other owners; guarded by mu
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{
		api: api, budgets: client.For[*policyv1.PodDisruptionBudget](api), pods: client.For[*corev1.Pod](api), sets: client.For[*appsv1.ReplicaSet](api),
		deployments: client.For[*appsv1.Deployment](api), stateful: client.For[*appsv1.StatefulSet](api), replication: client.For[*corev1.ReplicationController](api),
		events: event.New(api, "controllermanager", log), served: served.By(api), resources: map[schema.GroupKind]schema.GroupVersionResource{},
	}
	c.queue, c.stale = queue.New("disruption", log, c.reconcile), queue.New("stale_pod_disruption", log, c.reconcileStale)
	add := func(b *policyv1.PodDisruptionBudget) { c.queue.Add(queue.Key{Namespace: b.Namespace, Name: b.Name}) }
	c.budgets.AddHandler(client.Handler[*policyv1.PodDisruptionBudget]{Add: add, Update: func(_, b *policyv1.PodDisruptionBudget) { add(b) }})
	c.pods.AddHandler(client.Handler[*corev1.Pod]{
		Add: func(pod *corev1.Pod) { c.wake(pod); c.watch(pod) },
		Update: func(old, pod *corev1.Pod) {
			if !equality.Semantic.DeepEqual(old.Labels, pod.Labels) {
				c.wake(old)
			}
			c.wake(pod)
			c.watch(pod)
		},
		Delete: c.wake,
	})
	for _, informer := range []interface{ HasSynced() bool }{c.sets, c.deployments, c.stateful, c.replication} {
		informer.HasSynced() // asks for it
	}
	return c
}

// wake reconciles the budgets of a pod.
func (c *Controller) wake(pod *corev1.Pod) {
	names := c.budgetsOf(pod)
	for _, name := range names {
		c.queue.Add(queue.Key{Namespace: pod.Namespace, Name: name})
	}
	if len(names) > 1 {
		c.stale.Add(queue.Key{Namespace: pod.Namespace, Name: pod.Name})
	}
}

// budgetsOf returns the names of the budgets that a pod is of, sorted.
func (c *Controller) budgetsOf(pod *corev1.Pod) (names []string) {
	for _, b := range c.budgets.CachedList(pod.Namespace, nil) {
		if s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && s.Matches(labels.Set(pod.Labels)) {
			names = append(names, b.Name)
		}
	}
	slices.Sort(names)
	return names
}

// watch comes back to a pod when its condition is out of date.
func (c *Controller) watch(pod *corev1.Pod) {
	if left, has := untilStale(pod); has {
		c.stale.AddAfter(queue.Key{Namespace: pod.Namespace, Name: pod.Name}, left)
	}
}

// Run keeps budgets until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if !client.WaitForSync(ctx, c.budgets.Informer(), c.pods.Informer(), c.sets.Informer(), c.deployments.Informer(), c.stateful.Informer(), c.replication.Informer()) {
		return nil
	}
	var group sync.WaitGroup
	group.Go(func() { c.stale.Run(ctx, 1) })
	c.queue.Run(ctx, workers)
	group.Wait()
	return nil
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	b, err := c.budgets.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	again, err := c.sync(ctx, b)
	if err != nil && !apierrors.IsConflict(err) && ctx.Err() == nil {
		err = c.closed(ctx, b, err)
	}
	if again > 0 {
		c.queue.AddAfter(key, again)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// sync writes the status if it differs; again is when a pod that was evicted
// must have gone.
func (c *Controller) sync(ctx context.Context, b *policyv1.PodDisruptionBudget) (again time.Duration, err error) {
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		c.events.Record(ctx, b, kind, corev1.EventTypeWarning, "NoPods", "Failed to get pods: %v", err)
		return 0, err
	}
	pods := c.pods.CachedList(b.Namespace, selector)
	if len(pods) == 0 {
		c.events.Record(ctx, b, kind, corev1.EventTypeNormal, "NoPods", "No matching pods found")
	}
	expected, desired, unmanaged, err := c.expected(ctx, b, pods)
	if err != nil {
		c.events.Record(ctx, b, kind, corev1.EventTypeWarning, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", err)
		return 0, err
	}
	if unmanaged {
		c.events.Record(ctx, b, kind, corev1.EventTypeWarning, "UnmanagedPods", "Pods selected by this PodDisruptionBudget (selector: %v) were found "+
			"to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "+
			"To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.", b.Spec.Selector)
	}
	disrupted, again := c.disrupted(ctx, b, pods)
	status := policyv1.PodDisruptionBudgetStatus{DesiredHealthy: desired, ExpectedPods: expected, DisruptedPods: disrupted,
		ObservedGeneration: b.Generation, Conditions: b.DeepCopy().Status.Conditions}
	for _, pod := range pods {
		if _, going := disrupted[pod.Name]; going || pod.DeletionTimestamp != nil {
			continue
		}
		if _, ready := podstate.Ready(pod); ready {
			status.CurrentHealthy++
		}
	}
	// A budget without pods allows nothing: its first pods may be there before
	// their count.
	if expected > 0 {
		status.DisruptionsAllowed = max(0, status.CurrentHealthy-desired)
	}
	setAllowed(&status)
	if equality.Semantic.DeepEqual(status, b.Status) {
		return again, nil
	}
	changed := b.DeepCopy()
	changed.Status = status
	_, err = c.budgets.UpdateStatus(ctx, changed)
	return again, err
}

func setAllowed(s *policyv1.PodDisruptionBudgetStatus) {
	c := metav1.Condition{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason, ObservedGeneration: s.ObservedGeneration}
	if s.DisruptionsAllowed > 0 {
		c.Status, c.Reason = metav1.ConditionTrue, policyv1.SufficientPodsReason
	}
	meta.SetStatusCondition(&s.Conditions, c)
}

// closed makes a budget that cannot be computed allow nothing.
func (c *Controller) closed(ctx context.Context, b *policyv1.PodDisruptionBudget, why error) error {
	changed := b.DeepCopy()
	changed.Status.DisruptionsAllowed = 0
	meta.SetStatusCondition(&changed.Status.Conditions, metav1.Condition{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse,
		Reason: policyv1.SyncFailedReason, Message: why.Error(), ObservedGeneration: b.Status.ObservedGeneration})
	if equality.Semantic.DeepEqual(changed.Status, b.Status) {
		return nil
	}
	_, err := c.budgets.UpdateStatus(ctx, changed)
	return err
}

// disrupted returns the evicted pods that are still to be deleted, and the time
// to the first that must have been.
func (c *Controller) disrupted(ctx context.Context, b *policyv1.PodDisruptionBudget, pods []*corev1.Pod) (out map[string]metav1.Time, again time.Duration) {
	for _, pod := range pods {
		at, evicted := b.Status.DisruptedPods[pod.Name]
		if !evicted || pod.DeletionTimestamp != nil {
			continue
		}
		left := time.Until(at.Add(deletionTimeout))
		if left < 0 {
			c.events.Record(ctx, pod, podKind, corev1.EventTypeWarning, "NotDeleted", "Pod was expected by PDB %s/%s to be deleted but it wasn't", b.Namespace, b.Namespace)
			continue
		}
		if out == nil {
			out = map[string]metav1.Time{}
		}
		out[pod.Name] = at
		if left += time.Millisecond; again == 0 || left < again {
			again = left
		}
	}
	return out, again
}

// expected says how many pods a budget counts on and how many must be healthy.
func (c *Controller) expected(ctx context.Context, b *policyv1.PodDisruptionBudget, pods []*corev1.Pod) (expected, desired int32, unmanaged bool, err error) {
	limit, most := b.Spec.MinAvailable, false
	if b.Spec.MaxUnavailable != nil {
		limit, most = b.Spec.MaxUnavailable, true
	}
	if limit == nil {
		return 0, 0, false, nil
	}
	if !most && limit.Type == intstr.Int {
		return int32(len(pods)), limit.IntVal, false, nil
	}
	if expected, unmanaged, err = c.scale(ctx, pods); err != nil {
		return 0, 0, false, err
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(limit, int(expected), true)
	if err != nil {
		return 0, 0, false, err
	}
	if most {
		return expected, max(0, expected-int32(n)), unmanaged, nil
	}
	return expected, int32(n), unmanaged, nil
}

// untilStale is the time until a pod's condition is out of date; false says that
// it has none, or one that stays: the node's own, or an ended pod's.
func untilStale(pod *corev1.Pod) (time.Duration, bool) {
	if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return 0, false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason != corev1.PodReasonTerminationByKubelet {
			return time.Until(c.LastTransitionTime.Add(staleAfter)), true
		}
	}
	return 0, false
}

func (c *Controller) reconcileStale(ctx context.Context, key queue.Key) error {
	pod, err := c.pods.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if names := c.budgetsOf(pod); len(names) > 1 {
		c.events.Record(ctx, pod, corev1.SchemeGroupVersion.WithKind("Pod"), corev1.EventTypeWarning, "MultiplePodDisruptionBudgets",
			"Pod %q/%q matches multiple PodDisruptionBudgets.  Chose %q arbitrarily.", pod.Namespace, pod.Name, names[0])
	}
	left, has := untilStale(pod)
	if !has {
		return nil
	}
	if left > 0 {
		c.stale.AddAfter(key, left)
		return nil
	}
	changed := pod.DeepCopy()
	for i := range changed.Status.Conditions {
		if old := &changed.Status.Conditions[i]; old.Type == corev1.DisruptionTarget {
			*old = corev1.PodCondition{Type: old.Type, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now(), ObservedGeneration: old.ObservedGeneration}
		}
	}
	_, err = c.pods.UpdateStatus(ctx, changed)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
