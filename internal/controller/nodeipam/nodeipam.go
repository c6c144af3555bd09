// SPDX-License-Identifier: Apache-2.0

// Package nodeipam gives every Node its part of the cluster's pod ranges. The
// controller manager runs it.
package nodeipam

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

// Config says what is given out.
type Config struct {
	Client client.Interface
	// CIDRs are the cluster's ranges, one a family; none leaves nodes alone.
	CIDRs []netip.Prefix
	// Services are ranges that are not given to nodes.
	Services []netip.Prefix
	// MaskIPv4 and MaskIPv6 are the sizes of a node's part, 24 and 64 when zero.
	MaskIPv4, MaskIPv6 int
	Logger             *slog.Logger
}

// Controller gives ranges to nodes.
type Controller struct {
	log    *slog.Logger
	nodes  client.Typed[*corev1.Node]
	events *event.Recorder
	queue  *queue.Queue[queue.Key]

	mu    sync.Mutex
	pools []*pool
}

// New returns the controller of a configuration.
func New(c Config) (*Controller, error) {
	if c.MaskIPv4 == 0 {
		c.MaskIPv4 = 24
	}
	if c.MaskIPv6 == 0 {
		c.MaskIPv6 = 64
	}
	n := &Controller{log: c.Logger, nodes: client.For[*corev1.Node](c.Client), events: event.New(c.Client, "cidrAllocator", c.Logger)}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	for _, cidr := range c.CIDRs {
		mask := c.MaskIPv4
		if cidr.Addr().Is6() {
			mask = c.MaskIPv6
		}
		p, err := newPool(cidr, mask)
		if err != nil {
			return nil, err
		}
		p.out = c.Services
		n.pools = append(n.pools, p)
	}
	n.queue = queue.New("node_ipam", c.Logger, n.reconcile)
	if len(n.pools) == 0 {
		return n, nil
	}
	add := func(node *corev1.Node) { n.queue.Add(queue.Key{Name: node.Name}) }
	n.nodes.AddHandler(client.Handler[*corev1.Node]{Add: add, Update: func(_, node *corev1.Node) {
		if len(node.Spec.PodCIDRs) == 0 {
			add(node)
		}
	}, Delete: add})
	return n, nil
}

// Run gives out ranges until ctx ends.
func (n *Controller) Run(ctx context.Context) error {
	if len(n.pools) == 0 || !client.WaitForSync(ctx, n.nodes.Informer()) {
		return nil
	}
	// What nodes have already must be known before anything is given out.
	for _, node := range n.nodes.CachedList("", nil) {
		n.hold(node)
	}
	for _, p := range n.pools {
		p.observe(ctx)
	}
	n.queue.Run(ctx, 1)
	return nil
}

func (n *Controller) hold(node *corev1.Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, text := range node.Spec.PodCIDRs {
		if cidr, err := netip.ParsePrefix(text); err == nil {
			for _, p := range n.pools {
				p.hold(cidr, node.Name)
			}
		}
	}
}

func (n *Controller) reconcile(ctx context.Context, key queue.Key) error {
	node, err := n.nodes.Cached("", key.Name)
	if apierrors.IsNotFound(err) {
		n.release(ctx, key.Name)
		return nil
	}
	if err != nil {
		return err
	}
	if len(node.Spec.PodCIDRs) > 0 {
		n.hold(node)
		return nil
	}
	cidrs, err := n.take(ctx, node.Name)
	if err != nil {
		n.tell(ctx, node, "CIDRNotAvailable")
		return err
	}
	patch := map[string]any{"spec": map[string]any{"podCIDR": cidrs[0], "podCIDRs": cidrs}}
	if _, err := n.nodes.MergePatch(ctx, "", node.Name, patch, ""); err != nil && !apierrors.IsNotFound(err) {
		n.tell(ctx, node, "CIDRAssignmentFailed")
		return fmt.Errorf("giving %v to node %s: %w", cidrs, node.Name, err)
	}
	n.log.Info("node has its pod range", "node", node.Name, "podCIDRs", cidrs)
	return nil
}

// release frees what a node had; others may have waited for it.
func (n *Controller) release(ctx context.Context, node string) {
	n.mu.Lock()
	for _, p := range n.pools {
		if p.release(node) {
			meter.From(ctx).RangeFreed(p.cidr.String())
		}
		p.observe(ctx)
	}
	n.mu.Unlock()
	for _, other := range n.nodes.CachedList("", nil) {
		if len(other.Spec.PodCIDRs) == 0 {
			n.queue.Add(queue.Key{Name: other.Name})
		}
	}
}

// tell records why a node has no range.
func (n *Controller) tell(ctx context.Context, node *corev1.Node, what string) {
	n.events.Record(ctx, node, corev1.SchemeGroupVersion.WithKind("Node"), corev1.EventTypeNormal, what, "Node %s status is now: %s", node.Name, what)
}

// take reserves a part of each range; a node keeps what it was given before.
func (n *Controller) take(ctx context.Context, node string) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, p := range n.pools {
		cidr, tries, err := p.take(node)
		if err != nil {
			return nil, err
		}
		if tries >= 0 {
			meter.From(ctx).RangeGiven(p.cidr.String(), tries)
		}
		p.observe(ctx)
		out = append(out, cidr.String())
	}
	return out, nil
}
