// SPDX-License-Identifier: Apache-2.0

// Package cloudroute keeps a cloud's routes to the pods of every node, and says
// on nodes whether theirs are there. The manager of cloud controllers runs it.
// Nodes of clouds without routes reach one another by the pod network.
package cloudroute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/cloud"
	"kaji/internal/controller/event"
	"kaji/internal/controller/queue"
)

// DefaultPeriod is how often routes are looked at besides changes of nodes.
const DefaultPeriod = 10 * time.Second

var nodeKind = corev1.SchemeGroupVersion.WithKind("Node")

// Config says what the controller works with.
type Config struct {
	Client client.Interface
	Routes cloud.Routes
	// Cluster is the cluster's name in the cloud.
	Cluster string
	// CIDRs are the cluster's ranges of pods: other routes are left alone.
	CIDRs []netip.Prefix
	// Period is how often the cloud is asked, DefaultPeriod when zero.
	Period time.Duration
	Logger *slog.Logger
}

// Controller keeps routes.
type Controller struct {
	c      Config
	nodes  client.Typed[*corev1.Node]
	events *event.Recorder
	queue  *queue.Queue[struct{}]
}

// New returns the controller.
func New(config Config) *Controller {
	if config.Period == 0 {
		config.Period = DefaultPeriod
	}
	c := &Controller{c: config, nodes: client.For[*corev1.Node](config.Client), events: event.New(config.Client, "route_controller", config.Logger)}
	c.queue = queue.New("Routes", config.Logger, c.reconcile)
	again := func(*corev1.Node) { c.queue.Add(struct{}{}) }
	c.nodes.AddHandler(client.Handler[*corev1.Node]{Add: again, Delete: again, Update: func(old, n *corev1.Node) {
		if !slices.Equal(old.Spec.PodCIDRs, n.Spec.PodCIDRs) || !slices.Equal(old.Status.Addresses, n.Status.Addresses) {
			again(n)
		}
	}})
	return c
}

// Run keeps routes until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.nodes.Informer()) {
		c.queue.Add(struct{}{})
		c.queue.Run(ctx, 1)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, _ struct{}) error {
	routes, err := c.c.Routes.List(ctx, c.c.Cluster)
	if err != nil {
		return fmt.Errorf("error listing routes: %w", err)
	}
	nodes := c.nodes.CachedList("", labels.Everything())
	var errs []error
	kept := map[[2]string]bool{} // node, range
	for _, r := range routes {
		if !c.responsible(r) {
			continue
		}
		if n := find(nodes, r.Node); n != nil && !r.Blackhole && slices.Contains(n.Spec.PodCIDRs, r.CIDR) &&
			(len(r.Addresses) == 0 || equality.Semantic.DeepEqual(r.Addresses, n.Status.Addresses)) {
			kept[[2]string{r.Node, r.CIDR}] = true
			continue
		}
		errs = append(errs, c.c.Routes.Delete(ctx, c.c.Cluster, r))
	}
	for _, n := range nodes {
		errs = append(errs, c.lead(ctx, n, kept))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c.queue.AddAfter(struct{}{}, c.c.Period)
	return nil
}

func find(nodes []*corev1.Node, name string) *corev1.Node {
	if i := slices.IndexFunc(nodes, func(n *corev1.Node) bool { return n.Name == name }); i >= 0 {
		return nodes[i]
	}
	return nil
}

// responsible says whether a route is of the cluster's pods.
func (c *Controller) responsible(r cloud.Route) bool {
	p, err := netip.ParsePrefix(r.CIDR)
	return err == nil && slices.ContainsFunc(c.c.CIDRs, func(all netip.Prefix) bool { return all.Contains(p.Addr()) && all.Bits() <= p.Bits() })
}

// lead makes the routes that lack to a node, and says so on it.
func (c *Controller) lead(ctx context.Context, n *corev1.Node, kept map[[2]string]bool) error {
	if len(n.Spec.PodCIDRs) == 0 {
		return nil
	}
	var failed error
	for _, cidr := range n.Spec.PodCIDRs {
		if kept[[2]string{n.Name, cidr}] {
			continue
		}
		r := cloud.Route{Node: n.Name, CIDR: cidr, Addresses: n.Status.Addresses}
		if err := c.c.Routes.Create(ctx, c.c.Cluster, string(n.UID), r); err != nil {
			message := fmt.Sprintf("Could not create route %s %s for node %s: %v", n.UID, cidr, n.Name, err)
			c.events.Record(ctx, n, nodeKind, corev1.EventTypeWarning, "FailedToCreateRoute", "%s", message)
			failed = errors.Join(failed, errors.New(message))
		}
	}
	return errors.Join(failed, c.say(ctx, n, failed == nil))
}

// say writes the condition of a node's network.
func (c *Controller) say(ctx context.Context, n *corev1.Node, good bool) error {
	now := metav1.Now()
	want := corev1.NodeCondition{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionTrue, Reason: "NoRouteCreated",
		Message: "RouteController failed to create a route", LastTransitionTime: now, LastHeartbeatTime: now}
	if good {
		want.Status, want.Reason, want.Message = corev1.ConditionFalse, "RouteCreated", "RouteController created a route"
	}
	for _, have := range n.Status.Conditions {
		if have.Type == want.Type && have.Status == want.Status && (good || have.Reason == want.Reason) {
			return nil
		}
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{want}}})
	if err != nil {
		return err
	}
	_, err = c.nodes.Patch(ctx, "", n.Name, types.StrategicMergePatchType, patch, "status")
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
