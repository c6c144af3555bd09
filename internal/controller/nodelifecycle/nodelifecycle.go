// SPDX-License-Identifier: Apache-2.0

// Package nodelifecycle watches whether the nodes live. A node whose Lease and
// status both stay still becomes Unknown; conditions become taints, NoSchedule
// at once and NoExecute at a rate per zone, so that a broken network does not
// empty a cluster; the pods of a dead node become not ready. The controller
// manager runs it; package tainteviction removes the pods.
//
// Judging a node needs the passing of time, so this controller looks at all
// nodes in the informer every few seconds, as upstream's does. It writes only
// what changes.
package nodelifecycle

import (
	"context"
	"log/slog"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/controller/event"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/queue"
)

const (
	podNodeIndex = "controller.node"
	workers      = 8
)

// Config says how patient the controller is. Zero values are upstream's defaults.
type Config struct {
	Client client.Interface
	Logger *slog.Logger
	// MonitorPeriod is how often nodes are looked at: 5 s.
	MonitorPeriod time.Duration
	// MonitorGrace is how long a node may be silent: 50 s; StartupGrace is for
	// one that never reported: 60 s.
	MonitorGrace, StartupGrace time.Duration
	// EvictionRate is how many nodes of a healthy zone are tainted NoExecute in
	// a second: 0.1; SecondaryRate that of an unhealthy one with more than
	// LargeZone nodes: 0.01 and 50. Negative rates evict nothing.
	EvictionRate, SecondaryRate float64
	LargeZone                   int
	// UnhealthyZone is the part of not ready nodes that makes a zone unhealthy: 0.55.
	UnhealthyZone float64
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		to    *time.Duration
		value time.Duration
	}{{&c.MonitorPeriod, 5 * time.Second}, {&c.MonitorGrace, 50 * time.Second}, {&c.StartupGrace, time.Minute}} {
		if *d.to == 0 {
			*d.to = d.value
		}
	}
	for _, d := range []struct {
		to    *float64
		value float64
	}{{&c.EvictionRate, 0.1}, {&c.SecondaryRate, 0.01}, {&c.UnhealthyZone, 0.55}} {
		if *d.to == 0 {
			*d.to = d.value
		}
	}
	if c.LargeZone == 0 {
		c.LargeZone = 50
	}
	return c
}

// Controller judges nodes.
type Controller struct {
	c      Config
	log    *slog.Logger
	nodes  client.Typed[*corev1.Node]
	leases client.Typed[*coordinationv1.Lease]
	pods   client.Typed[*corev1.Pod]
	events *event.Recorder

	changed  *queue.Queue[string]    // nodes whose NoSchedule taints may differ
	assigned *queue.Queue[queue.Key] // pods that came to a node
	tainter  *tainter

	// known and zones belong to the monitor alone.
	known map[string]types.UID
	zones map[string]zoneState

	mu     sync.Mutex
	health map[string]*health // guarded by mu
}

// New returns the controller of a configuration.
func New(c Config) *Controller {
	c = c.withDefaults()
	n := &Controller{
		c: c, log: c.Logger, nodes: client.For[*corev1.Node](c.Client), pods: client.For[*corev1.Pod](c.Client),
		leases: client.For[*coordinationv1.Lease](c.Client).With(client.InformerOptions{Namespace: corev1.NamespaceNodeLease}),
		events: event.New(c.Client, "node-controller", c.Logger),
		known:  map[string]types.UID{}, zones: map[string]zoneState{}, health: map[string]*health{},
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.changed, n.assigned = queue.New("node_lifecycle_controller", n.log, n.reconcileNode), queue.New("node_lifecycle_controller_pods", n.log, n.reconcilePod)
	n.tainter = newTainter(n.taintNoExecute, n.log)
	n.pods.AddIndex(podNodeIndex, func(p *corev1.Pod) []string { return []string{p.Spec.NodeName} })
	n.nodes.AddHandler(client.Handler[*corev1.Node]{
		Add:    func(node *corev1.Node) { n.changed.Add(node.Name) },
		Update: func(_, node *corev1.Node) { n.changed.Add(node.Name) },
	})
	n.pods.AddHandler(client.Handler[*corev1.Pod]{
		Add: func(pod *corev1.Pod) { n.podAssigned("", pod) },
		Update: func(old, pod *corev1.Pod) {
			n.podAssigned(old.Spec.NodeName, pod)
		},
	})
	n.leases.Informer()
	return n
}

func (n *Controller) podAssigned(before string, pod *corev1.Pod) {
	if pod.Spec.NodeName != "" && pod.Spec.NodeName != before {
		n.assigned.Add(queue.Key{Namespace: pod.Namespace, Name: pod.Name})
	}
}

// Run judges nodes until ctx ends.
func (n *Controller) Run(ctx context.Context) error {
	if !client.WaitForSync(ctx, n.nodes.Informer(), n.leases.Informer(), n.pods.Informer()) {
		return nil
	}
	var group sync.WaitGroup
	group.Go(func() { n.changed.Run(ctx, workers) })
	group.Go(func() { n.assigned.Run(ctx, 4) })
	group.Go(func() { n.tainter.run(ctx) })
	tick := time.NewTicker(n.c.MonitorPeriod)
	defer tick.Stop()
	for ctx.Err() == nil {
		n.monitor(ctx)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	group.Wait()
	return nil
}

// monitor looks at every node once.
func (n *Controller) monitor(ctx context.Context) {
	began := time.Now()
	defer func() { meter.From(ctx).NodesChecked(began) }()
	nodes := n.nodes.CachedList("", nil)
	n.classify(ctx, nodes)
	readiness := make([]*corev1.NodeCondition, len(nodes))
	work := make(chan int)
	var group sync.WaitGroup
	for range min(workers, len(nodes)) {
		group.Go(func() {
			for i := range work {
				began := time.Now()
				readiness[i] = n.check(ctx, nodes[i])
				meter.From(ctx).NodeChecked(began)
			}
		})
	}
	for i := range nodes {
		work <- i
	}
	close(work)
	group.Wait()
	n.weighZones(ctx, nodes, readiness)
}

// classify meets new nodes and forgets those that are gone.
func (n *Controller) classify(ctx context.Context, nodes []*corev1.Node) {
	present := map[string]bool{}
	for _, node := range nodes {
		present[node.Name] = true
		uid, met := n.known[node.Name]
		n.known[node.Name] = node.UID
		if zone := zoneOf(node); n.zones[zone] == stateUnseen {
			n.zones[zone] = stateInitial
			n.tainter.setRate(zone, n.c.EvictionRate)
		}
		if met && uid != node.UID {
			n.forget(node.Name)
		}
		if !met {
			n.log.Info("node is new", "node", node.Name)
			n.nodeEvent(ctx, node.Name, node.UID, "RegisteredNode", "Registered Node "+node.Name+" in Controller")
			if err := n.reachable(ctx, node); err != nil {
				n.log.Warn("a new node keeps its taints for now", "node", node.Name, "err", err)
			}
		}
	}
	for name, uid := range n.known {
		if !present[name] {
			n.nodeEvent(ctx, name, uid, "RemovingNode", "Removing Node "+name+" from Controller")
			delete(n.known, name)
			n.forget(name)
		}
	}
}

func (n *Controller) forget(node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.health, node)
}

func (n *Controller) nodeEvent(ctx context.Context, node string, uid types.UID, reason, what string) {
	about := &metav1.ObjectMeta{Name: node, UID: uid}
	n.events.Record(ctx, about, corev1.SchemeGroupVersion.WithKind("Node"), corev1.EventTypeNormal, reason, "Node %s event: %s", node, what)
}

// check judges one node and acts on it; it returns the Ready condition that
// counts for the zone. On an error nothing is evicted and the next round tries
// again.
func (n *Controller) check(ctx context.Context, node *corev1.Node) *corev1.NodeCondition {
	var before, after, first *corev1.NodeCondition
	for attempt := 0; ; attempt++ {
		var err error
		before, after, err = n.observe(ctx, node)
		if first == nil {
			first = before
		}
		if err == nil {
			break
		}
		if apierrors.IsNotFound(err) || ctx.Err() != nil {
			return nil
		}
		if fresh, getErr := n.nodes.Get(ctx, "", node.Name); getErr == nil && attempt < 4 {
			node = fresh
			continue
		}
		n.log.Warn("the health of a node could not be written", "node", node.Name, "err", err)
		return before
	}
	if after == nil {
		return nil
	}
	n.evict(ctx, node, before.Status)
	n.markPods(ctx, node, first, after) // the answer may be lost, the silence written
	return after
}
