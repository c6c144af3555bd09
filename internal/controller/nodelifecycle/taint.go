// SPDX-License-Identifier: Apache-2.0

package nodelifecycle

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// conditionTaints are the taints that conditions of a node stand for.
var conditionTaints = map[corev1.NodeConditionType]map[corev1.ConditionStatus]string{
	corev1.NodeReady: {
		corev1.ConditionFalse: corev1.TaintNodeNotReady, corev1.ConditionUnknown: corev1.TaintNodeUnreachable,
	},
	corev1.NodeMemoryPressure:     {corev1.ConditionTrue: corev1.TaintNodeMemoryPressure},
	corev1.NodeDiskPressure:       {corev1.ConditionTrue: corev1.TaintNodeDiskPressure},
	corev1.NodePIDPressure:        {corev1.ConditionTrue: corev1.TaintNodePIDPressure},
	corev1.NodeNetworkUnavailable: {corev1.ConditionTrue: corev1.TaintNodeNetworkUnavailable},
}

// ownTaints are the keys that this controller puts on nodes and takes off.
var ownTaints = []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeMemoryPressure, corev1.TaintNodeDiskPressure,
	corev1.TaintNodePIDPressure, corev1.TaintNodeNetworkUnavailable, corev1.TaintNodeUnschedulable}

// formerLabels are older names of labels, kept equal to the new ones.
var formerLabels = map[string]string{corev1.LabelOSStable: "beta.kubernetes.io/os", corev1.LabelArchStable: "beta.kubernetes.io/arch"}

// reconcileNode brings a node's NoSchedule taints and former labels into line.
func (n *Controller) reconcileNode(ctx context.Context, name string) error {
	node, err := n.nodes.Cached("", name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	wanted := noScheduleTaints(node)
	var drop []corev1.Taint
	for _, t := range node.Spec.Taints {
		if t.Effect == corev1.TaintEffectNoSchedule && slices.Contains(ownTaints, t.Key) && !hasTaint(wanted, t) {
			drop = append(drop, t)
		}
	}
	if err := n.swap(ctx, node, wanted, drop); err != nil {
		return err
	}
	labels := map[string]string{}
	for now, former := range formerLabels {
		if value, ok := node.Labels[now]; ok && node.Labels[former] != value {
			labels[former] = value
		}
	}
	if len(labels) == 0 {
		return nil
	}
	_, err = n.nodes.MergePatch(ctx, "", name, map[string]any{"metadata": map[string]any{"labels": labels}}, "")
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func noScheduleTaints(node *corev1.Node) []corev1.Taint {
	var out []corev1.Taint
	for _, c := range node.Status.Conditions {
		if key := conditionTaints[c.Type][c.Status]; key != "" {
			out = append(out, corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
		}
	}
	if node.Spec.Unschedulable {
		out = append(out, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}
	return out
}

func hasTaint(taints []corev1.Taint, t corev1.Taint) bool {
	return slices.ContainsFunc(taints, func(o corev1.Taint) bool { return o.MatchTaint(&t) })
}

// swap puts taints on a node and takes others off; it writes nothing when they
// are so already. On a conflict it looks again, since other writers own the
// other taints in the list.
func (n *Controller) swap(ctx context.Context, node *corev1.Node, add, drop []corev1.Taint) error {
	for attempt := 0; ; attempt++ {
		var out []corev1.Taint
		changed := false
		for _, t := range node.Spec.Taints {
			if hasTaint(drop, t) && !hasTaint(add, t) {
				changed = true
				continue
			}
			out = append(out, t)
		}
		now := metav1.Now()
		for _, t := range add {
			if !hasTaint(out, t) {
				t.TimeAdded, changed = &now, true
				out = append(out, t)
			}
		}
		if !changed {
			return nil
		}
		_, err := n.nodes.MergePatch(ctx, "", node.Name, map[string]any{
			"metadata": map[string]any{"resourceVersion": node.ResourceVersion}, "spec": map[string]any{"taints": out}}, "")
		if apierrors.IsNotFound(err) {
			return nil
		}
		if !apierrors.IsConflict(err) || attempt == 5 {
			return err
		}
		if node, err = n.nodes.Get(ctx, "", node.Name); err != nil {
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		}
	}
}

var (
	notReady    = corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute}
	unreachable = corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}
)

// noExecute returns the taint of a readiness and the one that it replaces.
func noExecute(status corev1.ConditionStatus) (add, drop corev1.Taint) {
	if status == corev1.ConditionFalse {
		return notReady, unreachable
	}
	return unreachable, notReady
}

// evict queues a node for its NoExecute taint, or takes that off.
func (n *Controller) evict(ctx context.Context, node *corev1.Node, status corev1.ConditionStatus) {
	if status == corev1.ConditionTrue {
		if err := n.reachable(ctx, node); err != nil {
			n.log.Warn("a healthy node keeps its taints for now", "node", node.Name, "err", err)
		}
		return
	}
	add, drop := noExecute(status)
	switch {
	case hasTaint(node.Spec.Taints, drop):
		// It is being emptied already: only the reason differs.
		if err := n.swap(ctx, node, []corev1.Taint{add}, []corev1.Taint{drop}); err != nil {
			n.log.Warn("a node keeps its former taint for now", "node", node.Name, "err", err)
		}
	case !hasTaint(node.Spec.Taints, add):
		n.tainter.add(zoneOf(node), node.Name)
	}
}

// reachable takes a node out of the tainter's queue and its taints off.
func (n *Controller) reachable(ctx context.Context, node *corev1.Node) error {
	n.tainter.remove(zoneOf(node), node.Name)
	return n.swap(ctx, node, nil, []corev1.Taint{unreachable, notReady})
}

var errNoReadiness = errors.New("the node has no Ready condition")

// taintNoExecute is what the tainter does with a node whose turn it is.
func (n *Controller) taintNoExecute(ctx context.Context, name string) error {
	node, err := n.nodes.Cached("", name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	ready := condition(node, corev1.NodeReady)
	if ready == nil {
		return errNoReadiness
	}
	if ready.Status == corev1.ConditionTrue {
		return nil
	}
	add, drop := noExecute(ready.Status)
	return n.swap(ctx, node, []corev1.Taint{add}, []corev1.Taint{drop})
}
