// SPDX-License-Identifier: Apache-2.0

// Package endpointslice writes the EndpointSlices of Services with a selector:
// the addresses of their pods, in slices of at most a hundred. The controller
// manager runs it; proxies and DNS servers read what it writes. Slices that
// others manage are never touched.
package endpointslice

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/endpointslice/topologycache"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
	"kaji/internal/controller/trigger"
)

const (
	managedBy    = "endpointslice-controller.k8s.io"
	serviceIndex = "endpointslice.service"
	workers      = 5
)

var kind = corev1.SchemeGroupVersion.WithKind("Service")

// Controller writes slices.
type Controller struct {
	services client.Typed[*corev1.Service]
	pods     client.Typed[*corev1.Pod]
	nodes    client.Typed[*corev1.Node]
	slices   client.Typed[*discoveryv1.EndpointSlice]
	queue    *queue.Queue[queue.Key]
	times    *trigger.Times
	events   *event.Recorder
	max      int
	batch    time.Duration
	// zones knows the zones' shares of the nodes, as of when nodesChanged was
	// last unset.
	zones        *topologycache.TopologyCache
	nodesChanged atomic.Bool

	mu sync.Mutex
	// created are the slices of a Service that the informer does not show yet:
	// deciding without them would make them twice.
	created map[queue.Key]map[string]bool
}

// Config says what the controller works with.
type Config struct {
	Client client.Interface
	// Max is how many endpoints a slice holds, DefaultMax when zero.
	Max int
	// Batch is how long changes of pods and slices wait for others.
	Batch  time.Duration
	Logger *slog.Logger
}

// New returns the controller.
func New(config Config) *Controller {
	api, log := config.Client, config.Logger
	if config.Max == 0 {
		config.Max = DefaultMax
	}
	c := &Controller{services: client.For[*corev1.Service](api), pods: client.For[*corev1.Pod](api), nodes: client.For[*corev1.Node](api),
		slices:  client.For[*discoveryv1.EndpointSlice](api).With(client.InformerOptions{LabelSelector: discoveryv1.LabelManagedBy + "=" + managedBy}),
		created: map[queue.Key]map[string]bool{}, times: trigger.New(), events: event.New(api, "endpoint-slice-controller", log),
		max: config.Max, batch: config.Batch, zones: topologycache.NewTopologyCache()}
	c.queue = queue.New("endpoint_slice", log, c.reconcile)
	c.slices.AddIndex(serviceIndex, func(s *discoveryv1.EndpointSlice) []string { return []string{owner(s).String()} })
	c.services.AddHandler(client.Handler[*corev1.Service]{Add: c.add, Update: func(_, svc *corev1.Service) { c.add(svc) }, Delete: c.add})
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
	all := func(*corev1.Node) {
		c.nodesChanged.Store(true)
		for _, svc := range c.services.CachedList("", nil) {
			c.add(svc)
		}
	}
	c.nodes.AddHandler(client.Handler[*corev1.Node]{Add: all, Delete: all, Update: func(old, node *corev1.Node) {
		if old.Labels[corev1.LabelTopologyZone] != node.Labels[corev1.LabelTopologyZone] {
			all(node)
			return
		}
		wasReady, had := share(old)
		if ready, has := share(node); ready != wasReady || has != had || len(old.Labels) != len(node.Labels) {
			c.nodeChanged()
		}
	}})
	c.slices.AddHandler(client.Handler[*discoveryv1.EndpointSlice]{Add: c.sliceSeen, Delete: c.sliceSeen,
		Update: func(_, s *discoveryv1.EndpointSlice) { c.sliceSeen(s) }})
	return c
}

func (c *Controller) add(svc *corev1.Service) {
	c.queue.Add(queue.Key{Namespace: svc.Namespace, Name: svc.Name})
}

// relevant says whether an endpoint may look different after a pod's change.
func relevant(old, pod *corev1.Pod) bool {
	return old.Status.Phase != pod.Status.Phase || old.UID != pod.UID ||
		(old.DeletionTimestamp == nil) != (pod.DeletionTimestamp == nil) ||
		old.Spec.NodeName != pod.Spec.NodeName || !labels.Equals(old.Labels, pod.Labels) ||
		!equality.Semantic.DeepEqual(old.Status.PodIPs, pod.Status.PodIPs) ||
		old.Status.PodIP != pod.Status.PodIP ||
		!equality.Semantic.DeepEqual(old.Status.Conditions, pod.Status.Conditions)
}

func owner(s *discoveryv1.EndpointSlice) queue.Key {
	return queue.Key{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
}

func (c *Controller) podChanged(pod *corev1.Pod) {
	for _, svc := range c.services.CachedList(pod.Namespace, nil) {
		if len(svc.Spec.Selector) > 0 && labels.SelectorFromSet(svc.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			c.queue.AddAfter(queue.Key{Namespace: svc.Namespace, Name: svc.Name}, c.batch)
		}
	}
}

func (c *Controller) sliceSeen(s *discoveryv1.EndpointSlice) {
	key := owner(s)
	c.mu.Lock()
	delete(c.created[key], s.Name)
	if len(c.created[key]) == 0 {
		delete(c.created, key)
	}
	c.mu.Unlock()
	c.queue.AddAfter(key, c.batch)
}

// Run writes slices until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.services.Informer(), c.pods.Informer(), c.nodes.Informer(), c.slices.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	err := c.sync(ctx, key)
	meter.From(ctx).SlicesSynced(err)
	return err
}

func (c *Controller) sync(ctx context.Context, key queue.Key) error {
	svc, err := c.services.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		// The garbage collector takes the slices.
		c.times.Forget(key)
		c.mu.Lock()
		delete(c.created, key)
		c.mu.Unlock()
		meter.From(ctx).SlicesOf(key.String(), nil)
		return nil
	}
	if err != nil {
		return err
	}
	if svc.DeletionTimestamp != nil || svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.Selector == nil {
		return nil
	}
	c.mu.Lock()
	waiting := len(c.created[key]) > 0
	c.mu.Unlock()
	if waiting {
		return nil // their events bring the Service back
	}
	pods := c.pods.CachedList(svc.Namespace, labels.SelectorFromSet(svc.Spec.Selector))
	wanted, problems := c.wanted(svc, pods)
	p := plan(svc, c.max, wanted, c.slices.ByIndex(serviceIndex, key.String()))
	err = c.write(ctx, key, svc, p, c.times.Next(key, svc, pods))
	if err != nil && !apierrors.IsConflict(err) {
		problems = append(problems, err)
	}
	if len(problems) > 0 {
		c.events.Record(ctx, svc, kind, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices",
			"Error updating Endpoint Slices for Service %s/%s: %v", svc.Namespace, svc.Name, utilerrors.NewAggregate(problems))
	}
	return err
}
