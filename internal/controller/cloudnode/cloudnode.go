// SPDX-License-Identifier: Apache-2.0

// Package cloudnode has two controllers of nodes that come from a cloud: one
// writes on nodes what the cloud knows of their machines and lets pods onto them
// then, one deletes nodes whose machines are gone. The manager of cloud
// controllers runs them. Machines are never changed.
package cloudnode

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"

	"kaji/internal/client"
	"kaji/internal/cloud"
	"kaji/internal/controller/event"
	"kaji/internal/controller/queue"
)

const (
	// uninitialized keeps pods off nodes that the cloud has not described.
	uninitialized = "node.cloudprovider.kubernetes.io/uninitialized"
	// providedIP is the annotation by which a node agent says its addresses.
	providedIP = "alpha.kubernetes.io/provided-node-ip"
	// DefaultRefresh is how often addresses are looked at.
	DefaultRefresh = 5 * time.Minute
)

var nodeKind = corev1.SchemeGroupVersion.WithKind("Node")

// Config says what the controllers work with.
type Config struct {
	Client client.Interface
	Cloud  cloud.Provider
	// Refresh is how often addresses are looked at, DefaultRefresh when zero.
	Refresh time.Duration
	// Period is how often a node that is not ready is looked at, five seconds
	// when zero.
	Period time.Duration
	Logger *slog.Logger
}

// Initializer describes nodes.
type Initializer struct {
	nodes   client.Typed[*corev1.Node]
	cloud   cloud.Machines
	refresh time.Duration
	events  *event.Recorder
	queue   *queue.Queue[string]
	// started are nodes whose description was sent; the one worker's.
	started map[string]bool
}

// NewInitializer returns the controller that describes nodes.
func NewInitializer(c Config) *Initializer {
	if c.Refresh == 0 {
		c.Refresh = DefaultRefresh
	}
	i := &Initializer{nodes: client.For[*corev1.Node](c.Client), cloud: c.Cloud.Machines(), refresh: c.Refresh, started: map[string]bool{}, events: event.New(c.Client, "cloud-node-controller", c.Logger)}
	i.queue = queue.New("Nodes", c.Logger, i.reconcile)
	i.nodes.AddHandler(client.Handler[*corev1.Node]{Add: func(n *corev1.Node) { i.queue.Add(n.Name) }, Update: func(old, n *corev1.Node) {
		if waits(n) || !sameLabels(old, n) {
			i.queue.Add(n.Name)
		}
	}})
	return i
}

// Run describes nodes until ctx ends.
func (i *Initializer) Run(ctx context.Context) error {
	if !client.WaitForSync(ctx, i.nodes.Informer()) {
		return nil
	}
	tick := time.NewTicker(i.refresh)
	defer tick.Stop()
	ended := make(chan struct{})
	go func() { defer close(ended); i.queue.Run(ctx, 1) }()
	for {
		select {
		case <-ended:
			return nil
		case <-tick.C:
			for _, n := range i.nodes.CachedList("", labels.Everything()) {
				i.queue.Add(n.Name)
			}
		}
	}
}

func (i *Initializer) reconcile(ctx context.Context, name string) error {
	n, err := i.nodes.Cached("", name)
	if apierrors.IsNotFound(err) {
		delete(i.started, name)
		return nil
	}
	if err != nil {
		return err
	}
	if !waits(n) {
		if err := i.mirror(ctx, n); err != nil {
			return err
		}
	}
	m, err := i.cloud.Describe(ctx, n)
	if err != nil && !waits(n) {
		return nil // its machine may be gone: the other controller's business
	}
	if err != nil {
		return fmt.Errorf("failed to get instance metadata for node %s: %w", name, err)
	}
	addresses, err := addressesOf(n, m)
	if err != nil {
		return fmt.Errorf("provided node ip for node %q is not valid: %w", name, err)
	}
	if waits(n) {
		if m.ProviderID == "" && n.Spec.ProviderID == "" {
			return fmt.Errorf("cloud provider does not set node provider ID for node %s", name)
		}
		i.started[name] = true
		if n, err = i.nodes.Update(ctx, described(n, m)); err != nil {
			return ignoreGone(err)
		}
	}
	if i.started[name] { // also where the answer to the update was lost
		delete(i.started, name)
		i.events.Record(ctx, n, nodeKind, corev1.EventTypeNormal, "Synced", "Node synced successfully")
	}
	if len(m.Addresses) == 0 || slices.Equal(n.Status.Addresses, addresses) {
		return nil
	}
	_, err = i.nodes.MergePatch(ctx, "", name, map[string]any{"status": map[string]any{"addresses": addresses}}, "status")
	return ignoreGone(err)
}

// mirrored are labels' former names, and their names now, which follow them.
var mirrored = map[string]string{
	corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
	corev1.LabelInstanceType: corev1.LabelInstanceTypeStable,
}

// mirror lets both names of labels say the same.
func (i *Initializer) mirror(ctx context.Context, n *corev1.Node) error {
	late := map[string]string{}
	for former, now := range mirrored {
		if value, ok := n.Labels[former]; ok && n.Labels[now] != value {
			late[now] = value
		}
	}
	if len(late) == 0 {
		return nil
	}
	_, err := i.nodes.MergePatch(ctx, "", n.Name, map[string]any{"metadata": map[string]any{"labels": late}}, "")
	return ignoreGone(err)
}

func sameLabels(a, b *corev1.Node) bool {
	for former, now := range mirrored {
		if a.Labels[now] != b.Labels[now] || a.Labels[former] != b.Labels[former] {
			return false
		}
	}
	return true
}

// waits says whether a node waits for the cloud.
func waits(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == uninitialized })
}

// reserved are labels that clouds must not set.
var reserved = regexp.MustCompile(`(^|\.)(kubernetes|k8s)\.io/`)

// described returns a node with what its machine says, and without the taint.
func described(n *corev1.Node, m *cloud.Machine) *corev1.Node {
	next := n.DeepCopy()
	if next.Labels == nil {
		next.Labels = map[string]string{}
	}
	if next.Spec.ProviderID == "" {
		next.Spec.ProviderID = m.ProviderID
	}
	for name, value := range map[string]string{corev1.LabelInstanceType: m.Type, corev1.LabelFailureDomainBetaZone: m.Zone, corev1.LabelFailureDomainBetaRegion: m.Region} {
		if value != "" {
			next.Labels[name], next.Labels[mirrored[name]] = value, value
		}
	}
	for name, value := range m.Labels {
		if _, has := next.Labels[name]; !has && !reserved.MatchString(name) {
			next.Labels[name] = value
		}
	}
	next.Spec.Taints = slices.DeleteFunc(next.Spec.Taints, func(t corev1.Taint) bool { return t.Key == uninitialized })
	return next
}

// addressesOf returns a node's addresses: the machine's, those the node agent
// names first and in place of others of their type, and the node's host name.
func addressesOf(n *corev1.Node, m *cloud.Machine) ([]corev1.NodeAddress, error) {
	all := slices.Clone(m.Addresses)
	isName := func(a corev1.NodeAddress) bool { return a.Type == corev1.NodeHostName }
	if len(all) > 0 && !slices.ContainsFunc(all, isName) {
		for _, a := range n.Status.Addresses {
			if isName(a) {
				all = append(all, a)
			}
		}
	}
	named := n.Annotations[providedIP]
	if named == "" {
		return all, nil
	}
	var out []corev1.NodeAddress
	taken := map[corev1.NodeAddressType]bool{}
	for _, text := range strings.Split(named, ",") {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("failed to parse node IP %q: %w", text, err)
		}
		found := false
		for _, a := range all {
			if addr, err := netip.ParseAddr(a.Address); err == nil && addr == ip {
				out, found, taken[a.Type] = append(out, a), true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("failed to get node address from cloud provider that matches ip: %v", ip)
		}
	}
	for _, a := range all {
		if !taken[a.Type] {
			out = append(out, a)
		}
	}
	return out, nil
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
