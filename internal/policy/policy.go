// SPDX-License-Identifier: Apache-2.0

// Package policy enforces the cluster's NetworkPolicies on the pods of a node:
// it watches policies, pods and namespaces, lets package plan decide what is
// allowed, and package kernel program it. Package app runs it.
//
// It writes nothing to the API. As long as the cluster has no policy it watches
// no pods and the kernel has no table of it. A pod that comes or goes costs its
// elements in a few sets, whatever the number of others.
package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"kaji/internal/client"
	"kaji/internal/policy/kernel"
	"kaji/internal/policy/plan"
)

// Config says which node is programmed, and how.
type Config struct {
	Client   client.Interface
	NodeName string
	// IPv4 and IPv6 say which families are programmed; both false means IPv4.
	IPv4, IPv6 bool
	// NetNS is a file descriptor of the network namespace; zero is the own one.
	NetNS  int
	Logger *slog.Logger
}

// retryPeriod is how long a failed write waits before everything is written anew.
const retryPeriod = 5 * time.Second

// Enforcer programs one node. Create it with New.
type Enforcer struct {
	c          Config
	policies   client.Typed[*networkingv1.NetworkPolicy]
	pods       client.Typed[*corev1.Pod]
	namespaces client.Typed[*corev1.Namespace]
	nodes      client.Typed[*corev1.Node]
	kernels    []*kernel.Kernel
	changes    *changes
	arrivals   arrivals

	// What follows belongs to the goroutine of Run.
	plan     *plan.Plan
	podCIDRs []netip.Prefix
	hold     [2]bool
}

// New returns an enforcer; nothing is programmed before Run.
func New(c Config) (*Enforcer, error) {
	if c.NodeName == "" {
		return nil, errors.New("policy: the node's name is missing")
	}
	if !c.IPv4 && !c.IPv6 {
		c.IPv4 = true
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Enforcer{c: c, changes: newChanges(), plan: plan.New(c.NodeName)}
	for _, v6 := range []bool{false, true} {
		if v6 && !c.IPv6 || !v6 && !c.IPv4 {
			continue
		}
		k, err := kernel.New(kernel.Config{IPv6: v6, NetNS: c.NetNS})
		if err != nil {
			return nil, err
		}
		e.kernels = append(e.kernels, k)
	}
	e.policies = client.For[*networkingv1.NetworkPolicy](c.Client)
	e.pods = client.For[*corev1.Pod](c.Client)
	e.namespaces = client.For[*corev1.Namespace](c.Client)
	e.nodes = client.For[*corev1.Node](c.Client).With(client.InformerOptions{FieldSelector: "metadata.name=" + c.NodeName})
	subscribe(e, e.policies, policyKind)
	return e, nil
}

// subscribe notes every change of a kind.
func subscribe[T client.Object](e *Enforcer, to client.Typed[T], k kind) {
	changed := func(o T) { e.changes.add(change{k, plan.Key{Namespace: o.GetNamespace(), Name: o.GetName()}}) }
	to.AddHandler(client.Handler[T]{Add: changed, Delete: changed, Update: func(_, o T) { changed(o) }})
}

// Run enforces policies until ctx ends. The rules stay in the kernel then, so
// that a restart opens nothing; Cleanup removes them.
func (e *Enforcer) Run(ctx context.Context) error {
	e.c.Client.Start(ctx)
	if !client.WaitForSync(ctx, e.policies.Informer()) || !e.firstPolicy(ctx) {
		return nil
	}
	subscribe(e, e.nodes, nodeKind)
	subscribe(e, e.namespaces, namespaceKind)
	subscribe(e, e.pods, podKind)
	e.c.Client.Start(ctx)
	if !client.WaitForSync(ctx, e.nodes.Informer(), e.namespaces.Informer(), e.pods.Informer()) {
		return nil
	}
	e.changes.take()
	e.takeAll()
	fresh := false
	for {
		moved := e.observe(e.changes.take())
		e.learn()
		var wait <-chan time.Time
		if err := e.write(fresh && !moved); err != nil {
			e.c.Logger.Error("programming the network policies failed, everything will be written anew", "err", err)
			wait, fresh = time.After(retryPeriod), false
		} else {
			fresh = true
		}
		e.answer(fresh)
		select {
		case <-ctx.Done():
			return nil
		case <-wait:
		case <-e.changes.wake:
		}
	}
}

// firstPolicy waits until there is a policy. Rules of an earlier process, whose
// policies are gone, go now.
func (e *Enforcer) firstPolicy(ctx context.Context) bool {
	for first := true; len(e.policies.CachedList("", nil)) == 0; first = false {
		if first {
			for _, k := range e.kernels {
				if err := k.Remove(); err != nil {
					e.c.Logger.Warn("old rules of network policies could not be removed", "err", err)
				}
			}
		}
		e.arrivals.all(func(*arrival) bool { return true })
		select {
		case <-ctx.Done():
			return false
		case <-e.changes.wake:
		}
	}
	return true
}

// takeAll gives the plan what the informers have. The policies come last: each
// is worked out once for all pods.
func (e *Enforcer) takeAll() {
	for _, ns := range e.namespaces.CachedList("", nil) {
		e.plan.SetNamespace(ns)
	}
	for _, p := range e.pods.CachedList("", nil) {
		e.plan.SetPod(p)
	}
	for _, p := range e.policies.CachedList("", nil) {
		e.plan.SetPolicy(p)
	}
	e.observeNode()
}

// observe gives the plan what changed; true says that the node's pod ranges did.
func (e *Enforcer) observe(batch []change) bool {
	moved := false
	for _, c := range batch {
		switch c.kind {
		case policyKind:
			if p, err := e.policies.Cached(c.key.Namespace, c.key.Name); err == nil {
				e.plan.SetPolicy(p)
			} else {
				e.plan.DeletePolicy(c.key)
			}
		case podKind:
			if p, err := e.pods.Cached(c.key.Namespace, c.key.Name); err == nil {
				e.plan.SetPod(p)
			} else {
				e.plan.DeletePod(c.key)
			}
		case namespaceKind:
			if ns, err := e.namespaces.Cached("", c.key.Name); err == nil {
				e.plan.SetNamespace(ns)
			} else {
				e.plan.DeleteNamespace(c.key.Name)
			}
		case nodeKind:
			moved = e.observeNode() || moved
		}
	}
	return moved
}

func (e *Enforcer) observeNode() bool {
	node, err := e.nodes.Cached("", e.c.NodeName)
	if err != nil {
		return false
	}
	var cidrs []netip.Prefix
	for _, s := range node.Spec.PodCIDRs {
		if p, err := netip.ParsePrefix(s); err == nil {
			cidrs = append(cidrs, p.Masked())
		}
	}
	moved := !slices.Equal(e.podCIDRs, cidrs)
	e.podCIDRs = cidrs
	return moved
}

// write programs the change since the last write, or everything.
func (e *Enforcer) write(delta bool) error {
	if !delta {
		all := e.plan.All()
		for _, k := range e.kernels {
			if err := k.Reset(e.podCIDRs, all); err != nil {
				return err
			}
		}
		e.hold = all.Hold
		return nil
	}
	d := e.plan.Take()
	if d.Empty() && d.Hold == e.hold {
		return nil
	}
	for _, k := range e.kernels {
		if err := k.Apply(d); err != nil {
			return err
		}
	}
	e.hold = d.Hold
	return nil
}

// Cleanup removes the tables from the kernel.
func Cleanup() error {
	var errs []error
	for _, v6 := range []bool{false, true} {
		k, err := kernel.New(kernel.Config{IPv6: v6})
		if err == nil {
			err = k.Remove()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("removing the rules of network policies: %w", err))
		}
	}
	return errors.Join(errs...)
}
