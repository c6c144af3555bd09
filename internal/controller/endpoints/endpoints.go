// SPDX-License-Identifier: Apache-2.0

// Package endpoints writes the Endpoints of Services with a selector, which old
// clients read in place of EndpointSlices: one family, at most a thousand
// addresses. The controller manager runs it. Endpoints of Services without a
// selector are their makers' and never touched.
package endpoints

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/queue"
	"kaji/internal/controller/trigger"
)

const (
	managedByLabel = "endpoints.kubernetes.io/managed-by"
	managedBy      = "endpoint-controller"
	workers        = 5
	// behind is how long the informer is given to show what was written.
	behind = 20 * time.Millisecond
)

var kind = corev1.SchemeGroupVersion.WithKind("Endpoints")

// Controller writes Endpoints.
type Controller struct {
	services  client.Typed[*corev1.Service]
	pods      client.Typed[*corev1.Pod]
	endpoints client.Typed[*corev1.Endpoints]
	queue     *queue.Queue[queue.Key]
	events    *event.Recorder
	times     *trigger.Times
	batch     time.Duration

	mu     sync.Mutex
	former map[queue.Key]string // the version last replaced; guarded by mu
}

// Config says what the controller works with.
type Config struct {
	Client client.Interface
	// Batch is how long changes of pods wait for others.
	Batch  time.Duration
	Logger *slog.Logger
}

// New returns the controller.
func New(config Config) *Controller {
	api, log := config.Client, config.Logger
	c := &Controller{services: client.For[*corev1.Service](api), pods: client.For[*corev1.Pod](api), endpoints: client.For[*corev1.Endpoints](api),
		events: event.New(api, managedBy, log), times: trigger.New(), batch: config.Batch, former: map[queue.Key]string{}}
	c.queue = queue.New("endpoint", log, c.reconcile)
	add := func(svc *corev1.Service) { c.queue.Add(queue.Key{Namespace: svc.Namespace, Name: svc.Name}) }
	c.services.AddHandler(client.Handler[*corev1.Service]{Add: add, Update: func(_, svc *corev1.Service) { add(svc) }, Delete: add})
	c.pods.AddHandler(client.Handler[*corev1.Pod]{Add: c.podChanged, Delete: c.podChanged,
		Update: func(old, pod *corev1.Pod) {
			if old.ResourceVersion == pod.ResourceVersion || !relevant(old, pod) {
				return
			}
			if !labels.Equals(old.Labels, pod.Labels) {
				c.podChanged(old)
			}
			c.podChanged(pod)
		}})
	c.endpoints.AddHandler(client.Handler[*corev1.Endpoints]{Delete: func(e *corev1.Endpoints) {
		c.queue.Add(queue.Key{Namespace: e.Namespace, Name: e.Name})
	}})
	return c
}

// relevant says whether an address may look different after a pod's change.
func relevant(old, pod *corev1.Pod) bool {
	return old.Status.Phase != pod.Status.Phase || old.UID != pod.UID ||
		(old.DeletionTimestamp == nil) != (pod.DeletionTimestamp == nil) ||
		old.Spec.NodeName != pod.Spec.NodeName || !labels.Equals(old.Labels, pod.Labels) ||
		!equality.Semantic.DeepEqual(old.Status.PodIPs, pod.Status.PodIPs) || old.Status.PodIP != pod.Status.PodIP ||
		!equality.Semantic.DeepEqual(old.Status.Conditions, pod.Status.Conditions)
}

func (c *Controller) podChanged(pod *corev1.Pod) {
	for _, svc := range c.services.CachedList(pod.Namespace, nil) {
		if len(svc.Spec.Selector) > 0 && labels.SelectorFromSet(svc.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			c.queue.AddAfter(queue.Key{Namespace: svc.Namespace, Name: svc.Name}, c.batch)
		}
	}
}

// Run writes Endpoints until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if !client.WaitForSync(ctx, c.services.Informer(), c.pods.Informer(), c.endpoints.Informer()) {
		return nil
	}
	// What a Service left behind while nobody looked.
	for _, e := range c.endpoints.CachedList("", nil) {
		if _, lock := e.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]; !lock {
			c.queue.Add(queue.Key{Namespace: e.Namespace, Name: e.Name})
		}
	}
	c.queue.Run(ctx, workers)
	return nil
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	svc, err := c.services.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		c.times.Forget(key)
		c.mu.Lock()
		delete(c.former, key)
		c.mu.Unlock()
		if err := c.endpoints.Delete(ctx, key.Namespace, key.Name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
			return err
		}
		return nil
	}
	if err != nil || svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.Selector == nil {
		return err
	}
	pods := c.pods.CachedList(svc.Namespace, labels.SelectorFromSet(svc.Spec.Selector))
	when := c.times.Next(key, svc, pods)
	subsets := subsetsOf(svc, pods)
	have, err := c.endpoints.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		return c.create(ctx, svc, subsets, when)
	}
	if err != nil {
		return err
	}
	want := labelsOf(svc)
	_, full := have.Annotations[corev1.EndpointsOverCapacity]
	if equality.Semantic.DeepEqual(have.Subsets, subsets) && maps.Equal(have.Labels, want) && !full {
		return nil
	}
	if c.stale(key, have.ResourceVersion) {
		c.queue.AddAfter(key, behind)
		return nil
	}
	next := have.DeepCopy()
	fill(next, want, subsets, when)
	if full && equality.Semantic.DeepEqual(have, next) {
		return nil
	}
	if _, err = c.endpoints.Update(ctx, next); err == nil {
		c.replaced(key, have.ResourceVersion)
	} else {
		c.events.Record(ctx, next, kind, corev1.EventTypeWarning, "FailedToUpdateEndpoint", "Failed to update endpoint %s/%s: %v", svc.Namespace, svc.Name, err)
	}
	return err
}

// stale says whether the informer still shows a version that this controller
// replaced: writing over it again would be refused.
func (c *Controller) stale(key queue.Key, version string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.former[key] == version
}

func (c *Controller) replaced(key queue.Key, version string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.former[key] = version
}

func (c *Controller) create(ctx context.Context, svc *corev1.Service, subsets []corev1.EndpointSubset, when string) error {
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name}}
	fill(e, labelsOf(svc), subsets, when)
	_, err := c.endpoints.Create(ctx, e)
	if err == nil || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if apierrors.IsAlreadyExists(err) { // the informer is behind
		c.queue.AddAfter(queue.Key{Namespace: svc.Namespace, Name: svc.Name}, behind)
		return nil
	}
	c.events.Record(ctx, e, kind, corev1.EventTypeWarning, "FailedToCreateEndpoint", "Failed to create endpoint for service %s/%s: %v", svc.Namespace, svc.Name, err)
	return err
}

// labelsOf are the Service's labels and two of the controller's.
func labelsOf(svc *corev1.Service) map[string]string {
	out := map[string]string{}
	maps.Copy(out, svc.Labels)
	delete(out, corev1.IsHeadlessService)
	if svc.Spec.ClusterIP == "" || svc.Spec.ClusterIP == corev1.ClusterIPNone {
		out[corev1.IsHeadlessService] = ""
	}
	out[managedByLabel] = managedBy
	return out
}

func fill(e *corev1.Endpoints, labels map[string]string, subsets []corev1.EndpointSubset, when string) {
	e.Labels, e.Subsets = labels, subsets
	mark := func(name, value string) {
		if value == "" {
			delete(e.Annotations, name)
		} else {
			metav1.SetMetaDataAnnotation(&e.ObjectMeta, name, value)
		}
	}
	mark(corev1.EndpointsLastChangeTriggerTime, when)
	over := ""
	if truncate(e.Subsets) {
		over = "truncated"
	}
	mark(corev1.EndpointsOverCapacity, over)
}
