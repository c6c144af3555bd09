// SPDX-License-Identifier: Apache-2.0

package nodelifecycle

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/controller/queue"
)

// health is what is remembered of a node. Only the monitor's worker that has
// the node writes it.
type health struct {
	// probe is when the node was last heard of, by this process's clock: a
	// node's own clock may be wrong.
	probe     time.Time
	reported  bool        // the node had a Ready condition
	heartbeat metav1.Time // that condition's
	renewed   *metav1.MicroTime
	ready     corev1.ConditionStatus
	retryPods bool // pods could not all be marked
}

func condition(node *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == t {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}

// observe notes the signs of life of a node and writes Unknown where there were
// none for too long. It returns the Ready condition before and after that; a
// node that never reported counts as Unknown before and as nil after.
func (n *Controller) observe(ctx context.Context, node *corev1.Node) (before, after *corev1.NodeCondition, err error) {
	now := time.Now()
	ready := condition(node, corev1.NodeReady)
	h, grace := n.heard(node, ready, now)
	before, after = ready, ready
	if ready == nil {
		before = &corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionUnknown,
			LastHeartbeatTime: node.CreationTimestamp, LastTransitionTime: node.CreationTimestamp}
	}
	if now.After(h.probe.Add(grace)) {
		silent := silenced(node, metav1.NewTime(now))
		after = condition(silent, corev1.NodeReady)
		if !equality.Semantic.DeepEqual(before, after) {
			if _, err := n.nodes.UpdateStatus(ctx, silent); err != nil {
				return before, after, err
			}
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if after != nil {
		h.reported, h.heartbeat, h.ready = true, after.LastHeartbeatTime, after.Status
	}
	return before, after, nil
}

// heard brings what is known of a node up to date.
func (n *Controller) heard(node *corev1.Node, ready *corev1.NodeCondition, now time.Time) (h *health, grace time.Duration) {
	lease, _ := n.leases.Cached(corev1.NamespaceNodeLease, node.Name)
	n.mu.Lock()
	defer n.mu.Unlock()
	h = n.health[node.Name]
	switch {
	case h == nil && ready == nil:
		h = &health{probe: node.CreationTimestamp.Time}
	case h == nil: // its pods may wait to be marked: another controller manager was at it
		h = &health{probe: now, retryPods: ready.Status != corev1.ConditionTrue}
	case ready != nil && (!h.reported || !h.heartbeat.Equal(&ready.LastHeartbeatTime)):
		h.probe = now
	}
	n.health[node.Name] = h
	if lease != nil && lease.Spec.RenewTime != nil && (h.renewed == nil || h.renewed.Before(lease.Spec.RenewTime)) {
		h.renewed, h.probe = lease.Spec.RenewTime, now
	}
	if ready == nil {
		h.reported = false
		return h, n.c.StartupGrace
	}
	return h, n.c.MonitorGrace
}

// silenced returns the node with the conditions of one that stopped reporting.
// NetworkUnavailable is not among them: the network's controller reports it.
func silenced(node *corev1.Node, now metav1.Time) *corev1.Node {
	node = node.DeepCopy()
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		c := condition(node, t)
		if c == nil {
			node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{Type: t, Status: corev1.ConditionUnknown,
				Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.", LastHeartbeatTime: node.CreationTimestamp, LastTransitionTime: now})
		} else if c.Status != corev1.ConditionUnknown {
			c.Status, c.Reason, c.Message, c.LastTransitionTime = corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status.", now
		}
	}
	return node
}

// markPods makes the pods of a node not ready when it has just gone.
func (n *Controller) markPods(ctx context.Context, node *corev1.Node, before, after *corev1.NodeCondition) {
	n.mu.Lock()
	h := n.health[node.Name]
	retry := h != nil && h.retryPods
	n.mu.Unlock()
	gone := after.Status != corev1.ConditionTrue && before.Status == corev1.ConditionTrue
	if gone {
		about := &metav1.ObjectMeta{Name: node.Name, UID: node.UID}
		n.events.Record(ctx, about, corev1.SchemeGroupVersion.WithKind("Node"), corev1.EventTypeNormal, "NodeNotReady", "Node %s status is now: %s", node.Name, "NodeNotReady")
	}
	failed := false
	if gone || retry && before.Status != corev1.ConditionTrue {
		for _, pod := range n.pods.ByIndex(podNodeIndex, node.Name) {
			if err := n.markPod(ctx, pod); err != nil {
				n.log.Warn("a pod of a lost node could not be marked not ready, it is tried again", "pod", pod.Namespace+"/"+pod.Name, "err", err)
				failed = true
			}
		}
	}
	if h != nil {
		n.mu.Lock()
		h.retryPods = failed
		n.mu.Unlock()
	}
}

// markPod makes a pod not ready.
func (n *Controller) markPod(ctx context.Context, pod *corev1.Pod) error {
	changed := pod.DeepCopy()
	for i := range changed.Status.Conditions {
		c := &changed.Status.Conditions[i]
		if c.Type != corev1.PodReady || c.Status == corev1.ConditionFalse {
			continue
		}
		c.Status, c.LastTransitionTime = corev1.ConditionFalse, metav1.Now()
		if _, err := n.pods.UpdateStatus(ctx, changed); err != nil {
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		}
		n.events.Record(ctx, pod, corev1.SchemeGroupVersion.WithKind("Pod"), corev1.EventTypeWarning, "NodeNotReady", "Node is not ready")
	}
	return nil
}

// reconcilePod marks a pod that came to a node that is not ready.
func (n *Controller) reconcilePod(ctx context.Context, key queue.Key) error {
	pod, err := n.pods.Cached(key.Namespace, key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	n.mu.Lock()
	h := n.health[pod.Spec.NodeName]
	lost := h != nil && h.reported && h.ready != corev1.ConditionTrue
	n.mu.Unlock()
	if !lost {
		return nil
	}
	return n.markPod(ctx, pod)
}

// giveTime lets all nodes report anew before they are judged: it was the
// control plane that did not hear them.
func (n *Controller) giveTime() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.health {
		h.probe = time.Now()
	}
}
