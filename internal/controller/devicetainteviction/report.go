// SPDX-License-Identifier: Apache-2.0

package devicetainteviction

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
)

// reportPeriod is the shortest time between two updates of a rule's status.
const reportPeriod = 10 * time.Second

// otherEffect is the reason of a rule that ends no pods any more.
const otherEffect = "OtherEffect"

// report writes the condition that tells how far a rule has come.
func (c *Controller) report(ctx context.Context, key ruleKey) error {
	rule, err := c.rules.Cached("", key.name)
	if err != nil || rule.UID != key.uid {
		return nil
	}
	now := metav1.Now()
	before := meta.FindStatusCondition(rule.Status.Conditions, resourcev1.DeviceTaintConditionEvictionInProgress)
	if before != nil && before.ObservedGeneration == rule.Generation {
		if left := reportPeriod - now.Sub(before.LastTransitionTime.Time); left > 0 {
			c.reports.AddAfter(key, left)
			return nil
		}
	}
	condition := c.condition(rule)
	if before == nil && condition.Reason == otherEffect {
		return nil // it never had one that this would correct
	}
	if before != nil {
		condition.LastTransitionTime = before.LastTransitionTime
		if equality.Semantic.DeepEqual(*before, condition) {
			return nil
		}
	}
	condition.LastTransitionTime = now // of any change: it paces the updates
	data, err := json.Marshal(map[string]any{
		"apiVersion": resourcev1.SchemeGroupVersion.String(), "kind": "DeviceTaintRule",
		"metadata": map[string]any{"name": rule.Name, "uid": rule.UID},
		"status":   map[string]any{"conditions": []metav1.Condition{condition}},
	})
	if err != nil {
		return err
	}
	force := true
	r := c.rules.Resource("")
	_, err = c.api.Patch(ctx, client.Resource{GroupVersionResource: r.GroupVersionResource, Subresource: "status"}, rule.Name, types.ApplyPatchType, data,
		metav1.PatchOptions{FieldManager: name, Force: &force})
	return err
}

// condition tells how far a rule has come, its time left out.
func (c *Controller) condition(rule *resourcev1.DeviceTaintRule) metav1.Condition {
	out := metav1.Condition{Type: resourcev1.DeviceTaintConditionEvictionInProgress, Status: metav1.ConditionFalse, ObservedGeneration: rule.Generation}
	c.mu.Lock()
	evicted := c.evicted[rule.UID]
	c.mu.Unlock()
	switch rule.Spec.Taint.Effect {
	case resourcev1.DeviceTaintEffectNoExecute:
		switch pods, namespaces := c.pending(rule); {
		case pods > 0:
			out.Status, out.Reason = metav1.ConditionTrue, "PodsPendingEviction"
			out.Message = plural(pods, "1 pod needs", "%d pods need") + " to be evicted in " + plural(namespaces, "1 namespace", "%d different namespaces") + "."
		case evicted > 0:
			out.Reason = "Completed"
		default:
			out.Reason = "NotStarted"
		}
	case resourcev1.DeviceTaintEffectNone:
		published, allocated := c.selected(rule)
		pods, namespaces := c.pending(rule)
		out.Reason = "NoEffect"
		out.Message = plural(published, "1 published device", "%d published devices") + " selected. " +
			plural(allocated, "1 allocated device", "%d allocated devices") + " selected. " +
			plural(pods, "1 pod", "%d pods") + " would be evicted in " + plural(namespaces, "1 namespace", "%d different namespaces") +
			" if the effect was NoExecute. This information will not be updated again. Recreate the DeviceTaintRule to trigger an update."
	default:
		out.Reason, out.Message = otherEffect, "Eviction only happens for the NoExecute effect."
	}
	if evicted > 0 {
		out.Message = strings.TrimSpace(out.Message + " " + plural(evicted, "1 pod", "%d pods") + " evicted since starting the controller.")
	}
	return out
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return fmt.Sprintf(many, n)
}

// pending counts the pods that a rule ends, or would if it had that effect.
func (c *Controller) pending(rule *resourcev1.DeviceTaintRule) (pods, namespaces int) {
	seen, in := map[types.UID]bool{}, map[string]bool{}
	for _, claim := range c.claims.CachedList("", nil) {
		if claim.Status.Allocation == nil {
			continue
		}
		for _, user := range claim.Status.ReservedFor {
			pod, err := c.pods.Cached(claim.Namespace, user.Name)
			if err != nil || pod.UID != user.UID || seen[pod.UID] || pod.DeletionTimestamp != nil {
				continue
			}
			if end := c.endOf(pod, []*resourcev1.DeviceTaintRule{rule}); end != nil && end.rules[rule] {
				seen[pod.UID], in[pod.Namespace] = true, true
			}
		}
	}
	return len(seen), len(in)
}

// selected counts the devices that a rule selects.
func (c *Controller) selected(rule *resourcev1.DeviceTaintRule) (published, allocated int) {
	done := map[string]bool{}
	for _, slice := range c.slices.CachedList("", nil) {
		pool := slice.Spec.Driver + "/" + slice.Spec.Pool.Name
		if done[pool] {
			continue
		}
		done[pool] = true
		for _, s := range c.current(pool) {
			for i := range s.Spec.Devices {
				if selects(rule, s.Spec.Driver, s.Spec.Pool.Name, s.Spec.Devices[i].Name) {
					published++
				}
			}
		}
	}
	for _, claim := range c.claims.CachedList("", nil) {
		if claim.Status.Allocation == nil {
			continue
		}
		for _, d := range claim.Status.Allocation.Devices.Results {
			if selects(rule, d.Driver, d.Pool, d.Device) {
				allocated++
			}
		}
	}
	return published, allocated
}
