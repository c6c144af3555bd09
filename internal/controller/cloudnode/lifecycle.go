// SPDX-License-Identifier: Apache-2.0

package cloudnode

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
	"kaji/internal/cloud"
	"kaji/internal/controller/event"
	"kaji/internal/controller/queue"
)

// off is on nodes whose machines do not run.
var off = corev1.Taint{Key: "node.cloudprovider.kubernetes.io/shutdown", Effect: corev1.TaintEffectNoSchedule}

const defaultPeriod = 5 * time.Second

// Lifecycle deletes nodes.
type Lifecycle struct {
	nodes  client.Typed[*corev1.Node]
	cloud  cloud.Machines
	period time.Duration
	events *event.Recorder
	queue  *queue.Queue[string]
}

// NewLifecycle returns the controller that deletes nodes. Only nodes that are
// not ready are looked at.
func NewLifecycle(c Config) *Lifecycle {
	if c.Period == 0 {
		c.Period = defaultPeriod
	}
	l := &Lifecycle{nodes: client.For[*corev1.Node](c.Client), cloud: c.Cloud.Machines(), period: c.Period, events: event.New(c.Client, "cloud-node-lifecycle-controller", c.Logger)}
	l.queue = queue.New("cloud_node_lifecycle", c.Logger, l.reconcile)
	l.nodes.AddHandler(client.Handler[*corev1.Node]{Add: func(n *corev1.Node) { l.queue.Add(n.Name) }, Update: func(old, n *corev1.Node) {
		if ready(old) != ready(n) {
			l.queue.Add(n.Name)
		}
	}})
	return l
}

// Run deletes nodes until ctx ends.
func (l *Lifecycle) Run(ctx context.Context) error {
	if client.WaitForSync(ctx, l.nodes.Informer()) {
		l.queue.Run(ctx, 1)
	}
	return nil
}

func ready(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func (l *Lifecycle) reconcile(ctx context.Context, name string) error {
	n, err := l.nodes.Cached("", name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if ready(n) {
		return l.taint(ctx, n, false)
	}
	there, err := l.cloud.Exists(ctx, n)
	if err != nil {
		return err
	}
	if !there {
		return l.remove(ctx, n)
	}
	isOff, err := l.cloud.Shutdown(ctx, n)
	if err == nil && isOff {
		err = l.taint(ctx, n, true)
	}
	if err == nil {
		l.queue.AddAfter(name, l.period)
	}
	return err
}

func (l *Lifecycle) remove(ctx context.Context, n *corev1.Node) error {
	l.events.Record(ctx, n, nodeKind, corev1.EventTypeNormal, "DeletingNode", "Deleting node %s because it does not exist in the cloud provider", n.Name)
	err := l.nodes.Delete(ctx, "", n.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &n.UID}})
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	l.events.Record(ctx, n, nodeKind, corev1.EventTypeWarning, "DeletingNodeFailed", "Failed deleting node %s: %v", n.Name, err)
	return err
}

// taint sets or removes the taint of machines that do not run.
func (l *Lifecycle) taint(ctx context.Context, n *corev1.Node, want bool) error {
	is := func(t corev1.Taint) bool { return t.MatchTaint(&off) }
	if slices.ContainsFunc(n.Spec.Taints, is) == want {
		return nil
	}
	next := n.DeepCopy()
	next.Spec.Taints = slices.DeleteFunc(next.Spec.Taints, is)
	if want {
		next.Spec.Taints = append(next.Spec.Taints, off)
	}
	_, err := l.nodes.Update(ctx, next)
	return ignoreGone(err)
}
