// SPDX-License-Identifier: Apache-2.0

// Package cloudservice asks a cloud for the balancers of Services of type
// LoadBalancer and writes what they are reached by. The manager of cloud
// controllers runs it for clouds that have balancers; package servicelb does
// the same work without one.
package cloudservice

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"

	"kaji/internal/client"
	"kaji/internal/cloud"
	"kaji/internal/controller/balance"
	"kaji/internal/controller/event"
	"kaji/internal/controller/queue"
)

var kind = corev1.SchemeGroupVersion.WithKind("Service")

// Config says what the controller works with.
type Config struct {
	Client    client.Interface
	Balancers cloud.Balancers
	// Cluster is the cluster's name in the cloud.
	Cluster string
	Logger  *slog.Logger
}

// Controller asks for balancers.
type Controller struct {
	c        Config
	services client.Typed[*corev1.Service]
	nodes    client.Typed[*corev1.Node]
	events   *event.Recorder
	queue    *queue.Queue[queue.Key]
	hosts    *queue.Queue[queue.Key]
}

// New returns the controller.
func New(config Config) *Controller {
	c := &Controller{c: config, services: client.For[*corev1.Service](config.Client), nodes: client.For[*corev1.Node](config.Client),
		events: event.New(config.Client, "service-controller", config.Logger)}
	c.queue, c.hosts = queue.New("service", config.Logger, c.reconcile), queue.New("node", config.Logger, c.update)
	add := func(s *corev1.Service) {
		if wants(s) || balance.Kept(s) {
			c.queue.Add(queue.Key{Namespace: s.Namespace, Name: s.Name})
		}
	}
	c.services.AddHandler(client.Handler[*corev1.Service]{Add: add, Update: func(old, s *corev1.Service) {
		if old.UID != s.UID || (old.DeletionTimestamp == nil) != (s.DeletionTimestamp == nil) ||
			!equality.Semantic.DeepEqual(old.Spec, s.Spec) || !maps.Equal(old.Annotations, s.Annotations) {
			add(s)
		}
	}})
	again := func(*corev1.Node) {
		for _, s := range c.services.CachedList("", nil) {
			if wants(s) && balance.Kept(s) {
				c.hosts.Add(queue.Key{Namespace: s.Namespace, Name: s.Name})
			}
		}
	}
	c.nodes.AddHandler(client.Handler[*corev1.Node]{Add: again, Delete: again, Update: func(old, n *corev1.Node) {
		if balance.Targets(old) != balance.Targets(n) || old.Spec.ProviderID != n.Spec.ProviderID {
			again(n)
		}
	}})
	return c
}

// Run asks until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if !client.WaitForSync(ctx, c.services.Informer(), c.nodes.Informer()) {
		return nil
	}
	var group sync.WaitGroup
	group.Go(func() { c.hosts.Run(ctx, 1) })
	c.queue.Run(ctx, 1)
	group.Wait()
	return nil
}

// wants says whether a Service is to have a balancer of the cloud.
func wants(s *corev1.Service) bool {
	return balance.Of(s, "") && s.DeletionTimestamp == nil
}

func (c *Controller) targets() []*corev1.Node {
	out := slices.DeleteFunc(slices.Clone(c.nodes.CachedList("", labels.Everything())), func(n *corev1.Node) bool { return !balance.Targets(n) })
	slices.SortFunc(out, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (c *Controller) tell(ctx context.Context, s *corev1.Service, kindOf, reason, format string, args ...any) {
	c.events.Record(ctx, s, kind, kindOf, reason, format, args...)
}

func (c *Controller) reconcile(ctx context.Context, key queue.Key) error {
	s, err := c.services.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	switch {
	case err != nil:
	case wants(s):
		err = c.ensure(ctx, s)
	case balance.Kept(s):
		err = c.remove(ctx, s)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil && !apierrors.IsConflict(err) && s != nil {
		c.tell(ctx, s, corev1.EventTypeWarning, "SyncLoadBalancerFailed", "Error syncing load balancer: %v", err)
	}
	return err
}

// ensure makes a Service's balancer, or changes it.
func (c *Controller) ensure(ctx context.Context, s *corev1.Service) error {
	c.tell(ctx, s, corev1.EventTypeNormal, "EnsuringLoadBalancer", "Ensuring load balancer")
	if !balance.Kept(s) {
		if err := c.finalizers(ctx, s, balance.With(s)); err != nil {
			return fmt.Errorf("failed to add load balancer cleanup finalizer: %w", err)
		}
	}
	nodes := c.targets()
	if len(nodes) == 0 {
		c.tell(ctx, s, corev1.EventTypeWarning, "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer")
	}
	status, err := c.c.Balancers.Ensure(ctx, c.c.Cluster, s, nodes)
	if err != nil {
		return fmt.Errorf("failed to ensure load balancer: %w", err)
	}
	c.tell(ctx, s, corev1.EventTypeNormal, "EnsuredLoadBalancer", "Ensured load balancer")
	return c.write(ctx, s, status)
}

// remove deletes the balancer of a Service that wants none any more.
func (c *Controller) remove(ctx context.Context, s *corev1.Service) error {
	c.tell(ctx, s, corev1.EventTypeNormal, "DeletingLoadBalancer", "Deleting load balancer")
	if err := c.c.Balancers.Delete(ctx, c.c.Cluster, s); err != nil {
		return fmt.Errorf("failed to delete load balancer: %w", err)
	}
	if err := c.write(ctx, s, &corev1.LoadBalancerStatus{}); err != nil {
		return err
	}
	if err := c.finalizers(ctx, s, balance.Without(s)); err != nil {
		return fmt.Errorf("failed to remove load balancer cleanup finalizer: %w", err)
	}
	c.tell(ctx, s, corev1.EventTypeNormal, "DeletedLoadBalancer", "Deleted load balancer")
	return nil
}

// finalizers replaces a Service's finalizers, if nobody else changes them
// meanwhile. It writes them with the status: the account has no right to write
// more of Services, in no cluster.
func (c *Controller) finalizers(ctx context.Context, s *corev1.Service, list []string) error {
	_, err := c.services.MergePatch(ctx, s.Namespace, s.Name, map[string]any{"metadata": map[string]any{"finalizers": list, "uid": s.UID, "resourceVersion": s.ResourceVersion}}, "status")
	return err
}

func (c *Controller) write(ctx context.Context, s *corev1.Service, status *corev1.LoadBalancerStatus) error {
	if equality.Semantic.DeepEqual(&s.Status.LoadBalancer, status) {
		return nil
	}
	_, err := c.services.MergePatch(ctx, s.Namespace, s.Name, map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": status.Ingress}}}, "status")
	if err != nil {
		return fmt.Errorf("failed to update load balancer status: %w", err)
	}
	return nil
}

// update tells a Service's balancer its nodes.
func (c *Controller) update(ctx context.Context, key queue.Key) error {
	s, err := c.services.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) || err == nil && (!wants(s) || !balance.Kept(s)) {
		return nil
	}
	if err != nil {
		return err
	}
	nodes := c.targets()
	if err := c.c.Balancers.Update(ctx, c.c.Cluster, s, nodes); err != nil {
		names := make([]string, len(nodes))
		for i, n := range nodes {
			names[i] = n.Name
		}
		c.tell(ctx, s, corev1.EventTypeWarning, "UpdateLoadBalancerFailed", "Error updating load balancer with new hosts %v [node names limited, total number of nodes: %d], error: %v",
			names[:min(len(names), 20)], len(names), err)
		return err
	}
	if len(nodes) == 0 {
		c.tell(ctx, s, corev1.EventTypeWarning, "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer")
	} else {
		c.tell(ctx, s, corev1.EventTypeNormal, "UpdatedLoadBalancer", "Updated load balancer with new hosts")
	}
	return nil
}
