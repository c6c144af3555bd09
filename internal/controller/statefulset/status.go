// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kaji/internal/controller/podstate"
)

// count fills the status from the pods.
func (u *update) count(lists ...[]*corev1.Pod) {
	s := appsv1.StatefulSetStatus{ObservedGeneration: u.set.Generation, CurrentRevision: u.current.Name, UpdateRevision: u.update.Name,
		CollisionCount: &u.collisions, Conditions: u.set.Status.Conditions}
	u.after = 0
	for _, pods := range lists {
		for _, p := range pods {
			if !created(p) {
				continue
			}
			s.Replicas++
			if runningAndReady(p) {
				s.ReadyReplicas++
				ok, wait := podstate.Available(p, u.set.Spec.MinReadySeconds, u.now)
				if ok {
					s.AvailableReplicas++
				} else if wait > 0 && (u.after == 0 || wait < u.after) {
					u.after = wait
				}
			}
			if terminating(p) {
				continue
			}
			if revisionOf(p) == u.current.Name {
				s.CurrentReplicas++
			}
			if revisionOf(p) == u.update.Name {
				s.UpdatedReplicas++
			}
		}
	}
	u.status = s
}

// writeStatus writes the status if it differs. A rollout is complete when all
// pods are ready at the new revision; it becomes the current one then.
func (u *update) writeStatus() error {
	s, wanted := &u.status, *u.set.Spec.Replicas
	if u.set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && s.UpdatedReplicas == wanted && s.ReadyReplicas == wanted && s.Replicas == wanted {
		s.CurrentReplicas, s.CurrentRevision = s.UpdatedReplicas, s.UpdateRevision
	}
	if equality.Semantic.DeepEqual(*s, u.set.Status) {
		return nil
	}
	changed := u.set.DeepCopy()
	changed.Status = *s
	_, err := u.sets.UpdateStatus(u.ctx, changed)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
