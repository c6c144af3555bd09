// SPDX-License-Identifier: Apache-2.0

// Package endpointslicemirroring copies hand-made Endpoints of Services without
// a selector into EndpointSlices, the only thing proxies read. The controller
// manager runs it. Slices of others are never touched.
package endpointslicemirroring

import (
	"context"
	"log/slog"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

const (
	managedBy = "endpointslicemirroring-controller.k8s.io"
	workers   = 5
)

var kind = corev1.SchemeGroupVersion.WithKind("Endpoints")

// Controller mirrors.
type Controller struct {
	services  client.Typed[*corev1.Service]
	endpoints client.Typed[*corev1.Endpoints]
	slices    client.Typed[*discoveryv1.EndpointSlice]
	queue     *queue.Queue[queue.Key]
	events    *event.Recorder
	max       int // addresses of a subset, and of a slice
}

// Config says what the controller works with.
type Config struct {
	Client client.Interface
	// Batch is how long changes of Endpoints wait for others.
	Batch time.Duration
	// Max is how many addresses of a subset are mirrored, DefaultMax when zero.
	Max    int
	Logger *slog.Logger
}

// New returns the controller.
func New(config Config) *Controller {
	api, log := config.Client, config.Logger
	if config.Max == 0 {
		config.Max = DefaultMax
	}
	c := &Controller{max: config.Max, services: client.For[*corev1.Service](api), endpoints: client.For[*corev1.Endpoints](api), events: event.New(api, "endpoint-slice-mirroring-controller", log),
		slices: client.For[*discoveryv1.EndpointSlice](api).With(client.InformerOptions{LabelSelector: discoveryv1.LabelManagedBy + "=" + managedBy})}
	c.queue = queue.New("endpoint_slice_mirroring", log, c.reconcile)
	service := func(svc *corev1.Service) {
		if svc.Spec.Selector == nil {
			c.queue.Add(queue.Key{Namespace: svc.Namespace, Name: svc.Name})
		}
	}
	c.services.AddHandler(client.Handler[*corev1.Service]{Add: service, Delete: service, Update: func(old, svc *corev1.Service) {
		if (old.Spec.Selector == nil) != (svc.Spec.Selector == nil) {
			c.queue.Add(queue.Key{Namespace: svc.Namespace, Name: svc.Name})
		}
	}})
	changed := func(e *corev1.Endpoints) {
		if mirrored(e) {
			c.queue.AddAfter(queue.Key{Namespace: e.Namespace, Name: e.Name}, config.Batch)
		}
	}
	c.endpoints.AddHandler(client.Handler[*corev1.Endpoints]{Add: changed, Delete: changed, Update: func(old, e *corev1.Endpoints) {
		if mirrored(old) || mirrored(e) {
			c.queue.AddAfter(queue.Key{Namespace: e.Namespace, Name: e.Name}, config.Batch)
		}
	}})
	slice := func(s *discoveryv1.EndpointSlice) {
		if name := s.Labels[discoveryv1.LabelServiceName]; name != "" {
			c.queue.Add(queue.Key{Namespace: s.Namespace, Name: name})
		}
	}
	c.slices.AddHandler(client.Handler[*discoveryv1.EndpointSlice]{Add: slice, Delete: slice, Update: func(old, s *discoveryv1.EndpointSlice) {
		slice(old)
		slice(s)
	}})
	return c
}

// mirrored says whether Endpoints may be mirrored: not the API server's own,
// and not old locks of leader elections.
func mirrored(e *corev1.Endpoints) bool {
	_, lock := e.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]
	return !lock && e.Labels[discoveryv1.LabelSkipMirror] != "true"
}

// Run mirrors until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.services.Informer(), c.endpoints.Informer(), c.slices.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	began := time.Now()
	defer func() { meter.From(ctx).Mirrored(began) }()
	var want []*discoveryv1.EndpointSlice
	var skipped int
	e, err := c.endpoints.Cached(key.Namespace, key.Name)
	if err == nil && mirrored(e) && e.DeletionTimestamp == nil {
		svc, err := c.services.Cached(key.Namespace, key.Name)
		if err == nil && svc.Spec.Selector == nil {
			want, skipped = c.mirror(ctx, e)
		}
	}
	if want == nil && !c.shown(key) {
		meter.From(ctx).MirrorsOf(key.String(), nil)
		return nil // the usual case; a slice that is shown later comes back here
	}
	// The informer may not show yet what the last round wrote; hand-made
	// Endpoints are few, so the server is asked.
	have, err := c.slices.List(ctx, key.Namespace, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + key.Name + "," + discoveryv1.LabelManagedBy + "=" + managedBy})
	if err != nil {
		return err
	}
	now := tally(want, have)
	now.Skipped = skipped
	if err := c.write(ctx, want, have); err != nil {
		return err
	}
	meter.From(ctx).MirrorsOf(key.String(), now)
	return nil
}

// shown says whether the informer has a slice of the key.
func (c *Controller) shown(key queue.Key) bool {
	selector := labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: key.Name})
	return len(c.slices.CachedList(key.Namespace, selector)) > 0
}

// write makes the slices there are the ones wanted. A slice stays with its
// family and ports, and one left over is used again for its family.
func (c *Controller) write(ctx context.Context, want, have []*discoveryv1.EndpointSlice) error {
	take := func(fits func(*discoveryv1.EndpointSlice) bool) *discoveryv1.EndpointSlice {
		for i, s := range have {
			if s != nil && fits(s) {
				have[i] = nil
				return s
			}
		}
		return nil
	}
	found := make([]*discoveryv1.EndpointSlice, len(want))
	for i, w := range want {
		found[i] = take(func(s *discoveryv1.EndpointSlice) bool {
			return s.AddressType == w.AddressType && equality.Semantic.DeepEqual(s.Ports, w.Ports)
		})
	}
	for i, w := range want {
		if found[i] == nil {
			found[i] = take(func(s *discoveryv1.EndpointSlice) bool { return s.AddressType == w.AddressType })
		}
		if err := c.put(ctx, w, found[i]); err != nil {
			return err
		}
	}
	for _, s := range have {
		if s == nil {
			continue
		}
		if err := c.slices.Delete(ctx, s.Namespace, s.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		meter.From(ctx).MirrorChanged("delete")
	}
	return nil
}

// tally counts what is wanted and what differs from what there is.
func tally(want, have []*discoveryv1.EndpointSlice) *meter.Slices {
	out := &meter.Slices{Slices: len(want), Least: len(want)}
	had := map[string]discoveryv1.Endpoint{}
	for _, s := range have {
		for _, e := range s.Endpoints {
			had[e.Addresses[0]] = e
		}
	}
	for _, s := range want {
		out.Endpoints += len(s.Endpoints)
		for _, e := range s.Endpoints {
			before, ok := had[e.Addresses[0]]
			if !ok {
				out.Added++
			} else if !equality.Semantic.DeepEqual(before, e) {
				out.Updated++
			}
			delete(had, e.Addresses[0])
		}
	}
	out.Removed = len(had)
	return out
}

func (c *Controller) put(ctx context.Context, want, have *discoveryv1.EndpointSlice) error {
	if have == nil {
		_, err := c.slices.Create(ctx, want)
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		if err == nil {
			meter.From(ctx).MirrorChanged("create")
		}
		return err
	}
	if maps.Equal(have.Labels, want.Labels) && maps.Equal(have.Annotations, want.Annotations) &&
		equality.Semantic.DeepEqual(have.Ports, want.Ports) && equality.Semantic.DeepEqual(have.Endpoints, want.Endpoints) {
		return nil
	}
	next := have.DeepCopy()
	next.Labels, next.Annotations, next.OwnerReferences, next.Ports, next.Endpoints = want.Labels, want.Annotations, want.OwnerReferences, want.Ports, want.Endpoints
	_, err := c.slices.Update(ctx, next)
	if err == nil {
		meter.From(ctx).MirrorChanged("update")
	}
	return err
}
