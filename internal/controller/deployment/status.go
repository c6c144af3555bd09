// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"fmt"
	"math"
	"slices"
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
	s.TerminatingReplicas = terminatingReplicas(all)
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

// terminatingReplicas adds up the pods that are ending; nil while a set has not
// counted them.
func terminatingReplicas(sets []*appsv1.ReplicaSet) *int32 {
	n := int32(0)
	for _, rs := range sets {
		if rs.Status.TerminatingReplicas == nil {
			return nil
		}
		n += *rs.Status.TerminatingReplicas
	}
	return &n
}

// set writes a condition; one that says the same stays as it is.
func set(s *appsv1.DeploymentStatus, kind appsv1.DeploymentConditionType, is corev1.ConditionStatus, reason, message string) {
	c := appsv1.DeploymentCondition{Type: kind, Status: is, Reason: reason, Message: message, LastUpdateTime: now(), LastTransitionTime: now()}
	if have := condition(s, kind); have != nil {
		if have.Status == is && have.Reason == reason {
			return
		}
		if have.Status == is {
			c.LastTransitionTime = have.LastTransitionTime
		}
	}
	unset(s, kind)
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

func (r *rollout) hasDeadline() bool {
	return r.d.Spec.ProgressDeadlineSeconds != nil && *r.d.Spec.ProgressDeadlineSeconds != math.MaxInt32
}

// notePause tells of a pause and of its end. Lack of progress that was told of
// is not covered up.
func (r *rollout) notePause() {
	if !r.hasDeadline() {
		return
	}
	have := condition(&r.d.Status, appsv1.DeploymentProgressing)
	if have != nil && have.Reason == "ProgressDeadlineExceeded" {
		return
	}
	told := have != nil && have.Reason == "DeploymentPaused"
	if r.d.Spec.Paused && !told {
		set(&r.d.Status, appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentPaused", "Deployment is paused")
	} else if !r.d.Spec.Paused && told {
		set(&r.d.Status, appsv1.DeploymentProgressing, corev1.ConditionUnknown, "DeploymentResumed", "Deployment is resumed")
	}
}

// complete says whether only the current set has pods, all of them available.
func complete(d *appsv1.Deployment, s *appsv1.DeploymentStatus) bool {
	n := *d.Spec.Replicas
	return s.UpdatedReplicas == n && s.Replicas == n && s.AvailableReplicas == n && s.ObservedGeneration >= d.Generation
}

// progressing says whether a status is nearer to the end than the one before.
func progressing(before, s *appsv1.DeploymentStatus) bool {
	return s.UpdatedReplicas > before.UpdatedReplicas || s.Replicas-s.UpdatedReplicas < before.Replicas-before.UpdatedReplicas ||
		s.ReadyReplicas > before.ReadyReplicas || s.AvailableReplicas > before.AvailableReplicas
}

// progress keeps the conditions Progressing and ReplicaFailure and returns when
// to look again whether the rollout still moves; zero means never.
func (r *rollout) progress(s *appsv1.DeploymentStatus) time.Duration {
	r.replicaFailure(s)
	if !r.hasDeadline() {
		unset(s, appsv1.DeploymentProgressing)
		return 0
	}
	subject := fmt.Sprintf("Deployment %q", r.d.Name)
	if r.current != nil {
		subject = fmt.Sprintf("ReplicaSet %q", r.current.Name)
	}
	limit := time.Duration(*r.d.Spec.ProgressDeadlineSeconds) * time.Second
	have := condition(s, appsv1.DeploymentProgressing)
	switch {
	case s.Replicas == s.UpdatedReplicas && have != nil && have.Reason == "NewReplicaSetAvailable":
		return 0 // it was complete and is scaled now, or lost a pod
	case complete(r.d, s):
		set(s, appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetAvailable", subject+" has successfully progressed.")
		return 0
	case progressing(&r.d.Status, s):
		c := appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: "ReplicaSetUpdated",
			Message: subject + " is progressing.", LastUpdateTime: now(), LastTransitionTime: now()}
		if have != nil && have.Status == corev1.ConditionTrue {
			c.LastTransitionTime = have.LastTransitionTime
		}
		unset(s, appsv1.DeploymentProgressing) // its time is renewed each time
		s.Conditions = append(s.Conditions, c)
		return limit + time.Second
	case have == nil, have.Reason == "NewReplicaSetAvailable", have.Reason == "ProgressDeadlineExceeded":
		return 0
	}
	if due := time.Until(have.LastUpdateTime.Add(limit)); due >= 0 {
		return due + time.Second
	}
	set(s, appsv1.DeploymentProgressing, corev1.ConditionFalse, "ProgressDeadlineExceeded", subject+" has timed out progressing.")
	return 0
}

// replicaFailure takes over why a set could not make its pods.
func (r *rollout) replicaFailure(s *appsv1.DeploymentStatus) {
	for _, rs := range slices.Backward(r.all()) { // the current one first
		for _, c := range rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				set(s, appsv1.DeploymentReplicaFailure, c.Status, c.Reason, c.Message)
				return
			}
		}
	}
	unset(s, appsv1.DeploymentReplicaFailure)
}
