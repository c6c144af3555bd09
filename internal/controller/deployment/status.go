// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// status is what the sets' statuses add up to, with the conditions.
func (r *rollout) status() appsv1.DeploymentStatus {
	s := *r.d.Status.DeepCopy()
	all := r.all()
	s.ObservedGeneration = r.d.Generation
	s.Replicas = sum(all, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.Replicas })
	s.ReadyReplicas = sum(all, func(rs *appsv1.ReplicaSet) int32 { return rs.Status.ReadyReplicas })
	s.AvailableReplicas = sum(all, available)
	s.UnavailableReplicas = max(0, sum(all, wanted)-s.AvailableReplicas)
	s.UpdatedReplicas = 0
	if r.current != nil {
		s.UpdatedReplicas = r.current.Status.Replicas
	}
	_, unavailable := r.bounds()
	if s.AvailableReplicas >= *r.d.Spec.Replicas-unavailable {
		set(&s, appsv1.DeploymentAvailable, corev1.ConditionTrue, "MinimumReplicasAvailable", "Deployment has minimum availability.")
	} else {
		set(&s, appsv1.DeploymentAvailable, corev1.ConditionFalse, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
	}
	return s
}

// set writes a condition; one that says the same keeps its times.
func set(s *appsv1.DeploymentStatus, kind appsv1.DeploymentConditionType, is corev1.ConditionStatus, reason, message string) {
	c := appsv1.DeploymentCondition{Type: kind, Status: is, Reason: reason, Message: message, LastUpdateTime: now(), LastTransitionTime: now()}
	for i := range s.Conditions {
		have := &s.Conditions[i]
		if have.Type != kind {
			continue
		}
		if have.Status == is && have.Reason == reason && kind == appsv1.DeploymentAvailable {
			return
		}
		if have.Status == is {
			c.LastTransitionTime = have.LastTransitionTime
		}
		*have = c
		return
	}
	s.Conditions = append(s.Conditions, c)
}

func condition(s *appsv1.DeploymentStatus, kind appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == kind {
			return &s.Conditions[i]
		}
	}
	return nil
}

func unset(s *appsv1.DeploymentStatus, kind appsv1.DeploymentConditionType) {
	var out []appsv1.DeploymentCondition
	for _, c := range s.Conditions {
		if c.Type != kind {
			out = append(out, c)
		}
	}
	s.Conditions = out
}

// deadline keeps the condition Progressing and returns when to look again
// whether the rollout still moves; zero means never.
func (r *rollout) deadline(s *appsv1.DeploymentStatus) time.Duration {
	r.replicaFailure(s)
	if r.d.Spec.ProgressDeadlineSeconds == nil || *r.d.Spec.ProgressDeadlineSeconds == 1<<31-1 {
		unset(s, appsv1.DeploymentProgressing)
		return 0
	}
	subject := fmt.Sprintf("Deployment %q", r.d.Name)
	if r.current != nil {
		subject = fmt.Sprintf("ReplicaSet %q", r.current.Name)
	}
	limit := time.Duration(*r.d.Spec.ProgressDeadlineSeconds) * time.Second
	have := condition(s, appsv1.DeploymentProgressing)
	before := &r.d.Status
	switch {
	case r.failed != nil:
		set(s, appsv1.DeploymentProgressing, corev1.ConditionFalse, "ReplicaSetCreateError", fmt.Sprintf("Failed to create new replica set: %v", r.failed))
		return 0
	case r.d.Spec.Paused:
		if have == nil || have.Reason != "DeploymentPaused" {
			set(s, appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentPaused", "Deployment is paused")
		}
		return 0
	case r.finished():
		if have == nil || have.Reason != "NewReplicaSetAvailable" || have.Status != corev1.ConditionTrue {
			set(s, appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetAvailable", subject+" has successfully progressed.")
		}
		return 0
	case have == nil, have.Reason == "DeploymentPaused":
		reason, message := "NewReplicaSetCreated", fmt.Sprintf("Created new replica set %q", setName(r.current))
		if have != nil {
			reason, message = "DeploymentResumed", "Deployment is resumed"
		}
		set(s, appsv1.DeploymentProgressing, corev1.ConditionTrue, reason, message)
		return limit + time.Second
	case s.UpdatedReplicas > before.UpdatedReplicas, s.Replicas-s.UpdatedReplicas < before.Replicas-before.UpdatedReplicas,
		s.ReadyReplicas > before.ReadyReplicas, s.AvailableReplicas > before.AvailableReplicas,
		have.Reason == "NewReplicaSetAvailable" && r.d.Generation != before.ObservedGeneration:
		set(s, appsv1.DeploymentProgressing, corev1.ConditionTrue, "ReplicaSetUpdated", subject+" is progressing.")
		return limit + time.Second
	case have.Reason == "NewReplicaSetAvailable", have.Reason == "ProgressDeadlineExceeded":
		return 0 // it was complete once, or is late already
	}
	if due := time.Until(have.LastUpdateTime.Add(limit)); due > 0 {
		return due + time.Second
	}
	set(s, appsv1.DeploymentProgressing, corev1.ConditionFalse, "ProgressDeadlineExceeded", subject+" has timed out progressing.")
	return 0
}

func setName(rs *appsv1.ReplicaSet) string {
	if rs == nil {
		return ""
	}
	return rs.Name
}

// replicaFailure takes over why a set could not make its pods.
func (r *rollout) replicaFailure(s *appsv1.DeploymentStatus) {
	for _, rs := range r.all() {
		for _, c := range rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue {
				have := condition(s, appsv1.DeploymentReplicaFailure)
				if have == nil || have.Message != c.Message {
					set(s, appsv1.DeploymentReplicaFailure, c.Status, c.Reason, c.Message)
				}
				return
			}
		}
	}
	unset(s, appsv1.DeploymentReplicaFailure)
}
