// SPDX-License-Identifier: Apache-2.0

// Package podgc collects pods that nobody else ends: those of nodes that are no
// more, those being deleted that no node has or whose node is out of service,
// and the oldest of too many that have ended. The controller manager runs it.
//
// As upstream's it looks at all pods every 20 s, in the informer; it writes only
// what it collects.
package podgc

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/controller/meter"
	"kaji/internal/controller/podend"
)

const (
	period = 20 * time.Second
	// quarantine is how long a node must be missing: it may register late.
	quarantine = 40 * time.Second
)

// Config says what is collected.
type Config struct {
	Client client.Interface
	// Threshold is how many ended pods are kept: 12,500 when zero, all when
	// negative.
	Threshold int
	Logger    *slog.Logger
}

// Controller collects pods.
type Controller struct {
	pods      client.Typed[*corev1.Pod]
	nodes     client.Typed[*corev1.Node]
	threshold int
	log       *slog.Logger
	// missing are nodes that pods name and that are not there, since when.
	missing map[string]time.Time
}

// New returns the controller.
func New(c Config) *Controller {
	if c.Threshold == 0 {
		c.Threshold = 12500
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Controller{pods: client.For[*corev1.Pod](c.Client), nodes: client.For[*corev1.Node](c.Client), threshold: c.Threshold, log: c.Logger,
		missing: map[string]time.Time{}}
	g.pods.Informer()
	g.nodes.Informer()
	return g
}

// Run collects pods until ctx ends.
func (g *Controller) Run(ctx context.Context) error {
	if !client.WaitForSync(ctx, g.pods.Informer(), g.nodes.Informer()) {
		return nil
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	for ctx.Err() == nil {
		g.collect(ctx)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return nil
}

func (g *Controller) collect(ctx context.Context) {
	pods := g.pods.CachedList("", nil)
	nodes := map[string]*corev1.Node{}
	for _, node := range g.nodes.CachedList("", nil) {
		nodes[node.Name] = node
	}
	gone := g.goneNodes(ctx, pods, nodes)
	var ended []*corev1.Pod
	for _, pod := range pods {
		switch node := nodes[pod.Spec.NodeName]; {
		case pod.Spec.NodeName != "" && gone[pod.Spec.NodeName]:
			g.remove(ctx, pod, "orphaned", "DeletionByPodGC", "PodGC: node no longer exists")
		case pod.DeletionTimestamp != nil && pod.Spec.NodeName == "":
			g.remove(ctx, pod, "unscheduled", "", "")
		case pod.DeletionTimestamp != nil && node != nil && outOfService(node):
			g.remove(ctx, pod, "out-of-service", "", "")
		case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
			ended = append(ended, pod)
		}
	}
	if g.threshold < 0 || len(ended) <= g.threshold {
		return
	}
	slices.SortFunc(ended, oldestFirst)
	for _, pod := range ended[:len(ended)-g.threshold] {
		g.remove(ctx, pod, "terminated", "", "")
	}
}

// goneNodes returns the nodes that have been missing for long enough and that
// the server does not know either.
func (g *Controller) goneNodes(ctx context.Context, pods []*corev1.Pod, nodes map[string]*corev1.Node) map[string]bool {
	now, named := time.Now(), map[string]bool{}
	for _, pod := range pods {
		if name := pod.Spec.NodeName; name != "" && nodes[name] == nil {
			named[name] = true
			if _, known := g.missing[name]; !known {
				g.missing[name] = now
			}
		}
	}
	gone := map[string]bool{}
	for name, since := range g.missing {
		if !named[name] {
			delete(g.missing, name)
			continue
		}
		if now.Sub(since) < quarantine {
			continue
		}
		if _, err := g.nodes.Get(ctx, "", name); apierrors.IsNotFound(err) {
			gone[name] = true
		}
	}
	return gone
}

// outOfService says that a node is down for good: its pods have no one to end them.
func outOfService(node *corev1.Node) bool {
	ready := slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	return !ready && slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

// oldestFirst orders ended pods, those that their node evicted before all others.
func oldestFirst(a, b *corev1.Pod) int {
	rank := func(pod *corev1.Pod) int {
		if pod.Status.Phase == corev1.PodFailed && pod.Status.Reason == "Evicted" {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// remove marks a pod as failed, so that its controllers count it, and deletes it;
// why is for the metrics.
func (g *Controller) remove(ctx context.Context, pod *corev1.Pod, why, reason, message string) {
	var err error
	if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
		err = podend.Mark(ctx, g.pods, pod, true, podend.Why{Reason: reason, Message: message, Generation: pod.Generation})
	}
	if err == nil {
		uid, now := pod.UID, int64(0)
		err = g.pods.Delete(ctx, pod.Namespace, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &uid}})
	}
	if apierrors.IsNotFound(err) {
		err = nil
	}
	meter.From(ctx).PodCollected(pod.Namespace, why, err)
	if err != nil && ctx.Err() == nil {
		g.log.Warn("a pod could not be collected, it is tried again", "pod", pod.Namespace+"/"+pod.Name, "err", err)
		return
	}
	g.log.Info("pod collected", "pod", pod.Namespace+"/"+pod.Name, "node", pod.Spec.NodeName)
}
