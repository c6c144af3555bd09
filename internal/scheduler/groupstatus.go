// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kaji/internal/client"
	"kaji/internal/scheduler/plugin"
	"kaji/internal/scheduler/podgroup"
)

// joined is how upstream prints a list of reasons.
func joined(reasons []string) string { return strings.Join(reasons, ", ") }

// report tells the group's owner and the metrics how an attempt ended.
func (a *groupAttempt) report(r *groupResult) {
	status, reason := metav1.ConditionFalse, schedulingv1beta1.PodGroupReasonUnschedulable
	result := "unschedulable"
	switch {
	case r.ok():
		status, reason, result = metav1.ConditionTrue, "Scheduled", "scheduled"
	case r.failed:
		reason, result = schedulingv1beta1.PodGroupReasonSchedulerError, "error"
	case r.waiting:
		result = "waiting_on_preemption"
	}
	a.s.metrics.groupAttempts.WithLabelValues(result, a.chooser.profile.name).Inc()
	a.s.metrics.groupDuration.WithLabelValues(result, a.chooser.profile.name).Observe(time.Since(a.began).Seconds())
	a.s.groupCondition(a.group, status, reason, r.message())
}

// groupCondition writes the condition PodGroupInitiallyScheduled, which stays
// true once it was.
func (s *Scheduler) groupCondition(g *podgroup.Group, status metav1.ConditionStatus, reason, message string) {
	obj := g.Object
	if g.Placed || meta.IsStatusConditionTrue(obj.Status.Conditions, schedulingv1beta1.PodGroupInitiallyScheduled) && status != metav1.ConditionTrue {
		return
	}
	g.Placed = status == metav1.ConditionTrue
	conditions := append([]metav1.Condition(nil), obj.Status.Conditions...)
	if !meta.SetStatusCondition(&conditions, metav1.Condition{Type: schedulingv1beta1.PodGroupInitiallyScheduled,
		Status: status, Reason: reason, Message: message, ObservedGeneration: obj.Generation}) {
		return
	}
	written := meta.FindStatusCondition(conditions, schedulingv1beta1.PodGroupInitiallyScheduled)
	s.patches.put(s, obj.UID, map[string]any{"conditions": []metav1.Condition{*written}}, func(status map[string]any) {
		s.patchGroup(s.ctx, obj, status)
	})
}

func (s *Scheduler) patchGroup(ctx context.Context, g *schedulingv1beta1.PodGroup, status map[string]any) {
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": g.UID}, "status": status})
	if err == nil {
		_, err = client.For[*schedulingv1beta1.PodGroup](s.client).Patch(ctx, g.Namespace, g.Name, types.StrategicMergePatchType, data, "status")
	}
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
		s.log.Error("pod group status not written", "podGroup", g.Namespace+"/"+g.Name, "err", err)
	}
}

// groupChanged follows the objects of groups.
func (s *Scheduler) groupChanged(old, g *schedulingv1beta1.PodGroup) {
	switch {
	case g == nil:
		key := podgroup.Key{Namespace: old.Namespace, Name: old.Name}
		s.groups.Set(key, nil)
		s.queue.RemoveGroup(key)
		s.happened(plugin.Event{Resource: plugin.PodGroup, Action: plugin.Delete}, old, nil)
	default:
		key := podgroup.Key{Namespace: g.Namespace, Name: g.Name}
		s.groups.Set(key, g)
		s.queue.SetGroup(key, s.groups.Get(key).Priority())
		if old == nil {
			s.happened(plugin.Event{Resource: plugin.PodGroup, Action: plugin.Add}, nil, g)
		} else {
			s.happened(plugin.Event{Resource: plugin.PodGroup, Action: plugin.Update}, old, g)
		}
	}
}
