// SPDX-License-Identifier: Apache-2.0

// Package servicecidr keeps a ServiceCIDR as long as an address of it would be
// left without one, and says whether it is ready. The controller manager runs
// it. Addresses are given out by the API server.
package servicecidr

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/queue"
)

const (
	name      = "service-cidr-controller"
	finalizer = "networking.k8s.io/service-cidr-finalizer"
	// allocator is the manager of the addresses that Services have.
	allocator = "ipallocator.k8s.io"
	// grace lets API servers know of a deletion before the range goes, so that
	// none gives out an address of it.
	grace   = 10 * time.Second
	workers = 5
)

// Controller keeps ServiceCIDRs.
type Controller struct {
	api       client.Interface
	ranges    client.Typed[*networkingv1.ServiceCIDR]
	addresses client.Typed[*networkingv1.IPAddress]
	events    *event.Recorder
	queue     *queue.Queue[string]
}

// New returns the controller.
func New(api client.Interface, log *slog.Logger) *Controller {
	c := &Controller{api: api, ranges: client.For[*networkingv1.ServiceCIDR](api), events: event.New(api, name, log),
		addresses: client.For[*networkingv1.IPAddress](api).With(client.InformerOptions{LabelSelector: networkingv1.LabelManagedBy + "=" + allocator})}
	c.queue = queue.New("ipaddresses", log, c.reconcile)
	// What a range holds can fall to those that overlap it.
	around := func(r *networkingv1.ServiceCIDR) {
		c.queue.Add(r.Name)
		for _, other := range c.ranges.CachedList("", labels.Everything()) {
			if overlap(r, other) {
				c.queue.Add(other.Name)
			}
		}
	}
	c.ranges.AddHandler(client.Handler[*networkingv1.ServiceCIDR]{Add: around, Delete: around,
		Update: func(_, r *networkingv1.ServiceCIDR) { c.queue.Add(r.Name) }})
	used := func(a *networkingv1.IPAddress) {
		for _, r := range c.holding(a.Name) {
			c.queue.Add(r.Name)
		}
	}
	c.addresses.AddHandler(client.Handler[*networkingv1.IPAddress]{Add: used, Delete: used})
	return c
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, c.ranges.Informer(), c.addresses.Informer()) {
		c.queue.Run(ctx, workers)
	}
	return nil
}

func (c *Controller) reconcile(ctx context.Context, key string) error {
	r, err := c.ranges.Cached("", key)
	if err == nil && r.DeletionTimestamp != nil {
		err = c.end(ctx, r)
	} else if err == nil {
		err = c.keep(ctx, r)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// keep lets a range be protected and ready.
func (c *Controller) keep(ctx context.Context, r *networkingv1.ServiceCIDR) error {
	if !slices.Contains(r.Finalizers, finalizer) {
		if err := c.finalizers(ctx, r, "finalizers"); err != nil {
			return err
		}
	}
	err := c.say(ctx, r, metav1.ConditionTrue, "", "Kubernetes Service CIDR is ready")
	if err != nil && !apierrors.IsNotFound(err) {
		c.events.Record(ctx, r, networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR"), corev1.EventTypeWarning, "KubernetesServiceCIDRError",
			"The ServiceCIDR Status can not be set to Ready=True")
	}
	return err
}

// end lets a range go once no address needs it.
func (c *Controller) end(ctx context.Context, r *networkingv1.ServiceCIDR) error {
	if !slices.Contains(r.Finalizers, finalizer) {
		return nil
	}
	if c.needed(r) {
		return c.say(ctx, r, metav1.ConditionFalse, networkingv1.ServiceCIDRReasonTerminating,
			"There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR")
	}
	if left := grace - time.Since(r.DeletionTimestamp.Time); left > 0 {
		c.queue.AddAfter(r.Name, left)
		return nil
	}
	return c.finalizers(ctx, r, "$deleteFromPrimitiveList/finalizers")
}

// needed says whether an address would be in no range without this one.
func (c *Controller) needed(r *networkingv1.ServiceCIDR) bool {
	for _, text := range r.Spec.CIDRs {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			continue
		}
		for _, a := range c.addresses.CachedList("", labels.Everything()) {
			addr, err := netip.ParseAddr(a.Name)
			if err != nil || !p.Contains(addr) {
				continue
			}
			if holders := c.holding(a.Name); len(holders) == 1 && holders[0].Name == r.Name {
				return true
			}
		}
	}
	return false
}

// holding returns the ranges that have an address.
func (c *Controller) holding(address string) []*networkingv1.ServiceCIDR {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return nil
	}
	var out []*networkingv1.ServiceCIDR
	for _, r := range c.ranges.CachedList("", labels.Everything()) {
		if slices.ContainsFunc(r.Spec.CIDRs, func(text string) bool {
			p, err := netip.ParsePrefix(text)
			return err == nil && p.Contains(addr)
		}) {
			out = append(out, r)
		}
	}
	return out
}

// overlap says whether two ranges have addresses in common.
func overlap(a, b *networkingv1.ServiceCIDR) bool {
	for _, x := range a.Spec.CIDRs {
		for _, y := range b.Spec.CIDRs {
			p, errP := netip.ParsePrefix(x)
			q, errQ := netip.ParsePrefix(y)
			if errP == nil && errQ == nil && p.Overlaps(q) {
				return true
			}
		}
	}
	return false
}

// finalizers adds or removes the finalizer, as the directive says.
func (c *Controller) finalizers(ctx context.Context, r *networkingv1.ServiceCIDR, directive string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{directive: []string{finalizer}}})
	if err != nil {
		return err
	}
	_, err = c.ranges.Patch(ctx, "", r.Name, types.StrategicMergePatchType, patch, "")
	return err
}

// say applies the condition Ready where it says something else.
func (c *Controller) say(ctx context.Context, r *networkingv1.ServiceCIDR, status metav1.ConditionStatus, reason, message string) error {
	if was := meta.FindStatusCondition(r.Status.Conditions, networkingv1.ServiceCIDRConditionReady); was != nil &&
		was.Status == status && was.Reason == reason && was.Message == message {
		return nil
	}
	applied, err := json.Marshal(map[string]any{
		"apiVersion": networkingv1.SchemeGroupVersion.String(), "kind": "ServiceCIDR", "metadata": map[string]any{"name": r.Name},
		"status": map[string]any{"conditions": []metav1.Condition{{Type: networkingv1.ServiceCIDRConditionReady,
			Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.Now()}}},
	})
	if err != nil {
		return err
	}
	at, force := c.ranges.Resource(""), true
	at.Subresource = "status"
	_, err = c.api.Patch(ctx, at, r.Name, types.ApplyPatchType, applied, metav1.PatchOptions{FieldManager: name, Force: &force})
	return err
}
