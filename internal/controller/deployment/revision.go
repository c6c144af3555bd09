// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"fmt"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/controller/podstate"
)

// The annotations that a ReplicaSet tells its Deployment by, and kubectl reads.
const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history"
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation      = "deployment.kubernetes.io/max-replicas"
)

// notCopied are annotations of a Deployment that its sets do not take over.
var notCopied = map[string]bool{corev1.LastAppliedConfigAnnotation: true, revisionAnnotation: true, historyAnnotation: true,
	desiredAnnotation: true, maxAnnotation: true, appsv1.DeprecatedRollbackTo: true}

// sameTemplate compares templates but for the hash label.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	delete(a.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(b.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return equality.Semantic.DeepEqual(a, b)
}

func annotation(rs *appsv1.ReplicaSet, name string) (int32, bool) {
	n, err := strconv.ParseInt(rs.Annotations[name], 10, 32)
	return int32(n), err == nil
}

func revision(annotations map[string]string) int64 {
	n, err := strconv.ParseInt(annotations[revisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// longestHistory bounds the annotation of past revisions, in characters.
const longestHistory = 2000

// ensureCurrent finds or makes the set of the present template and numbers it.
// A new one is made with as many replicas as the strategy allows at once.
func (r *rollout) ensureCurrent() error {
	next := int64(0)
	for _, rs := range r.old {
		next = max(next, revision(rs.Annotations))
	}
	next++
	if r.current == nil {
		return r.createSet(next)
	}
	if changed := r.annotate(r.current, next); changed || r.current.Spec.MinReadySeconds != r.d.Spec.MinReadySeconds {
		r.current.Spec.MinReadySeconds = r.d.Spec.MinReadySeconds
		updated, err := r.sets.Update(r.ctx, r.current)
		if err != nil {
			return err
		}
		r.current = updated.DeepCopy()
	}
	if r.hasDeadline() && condition(&r.d.Status, appsv1.DeploymentProgressing) == nil {
		set(&r.d.Status, appsv1.DeploymentProgressing, corev1.ConditionTrue, "FoundNewReplicaSet", fmt.Sprintf("Found new replica set %q", r.current.Name))
	}
	r.numberDeployment()
	return nil
}

// numberDeployment puts the current revision on the Deployment, for kubectl.
// It is written with the status, so that it does not count as a change of the
// Deployment.
func (r *rollout) numberDeployment() {
	if want := r.current.Annotations[revisionAnnotation]; r.d.Annotations[revisionAnnotation] != want {
		if r.d.Annotations == nil {
			r.d.Annotations = map[string]string{}
		}
		r.d.Annotations[revisionAnnotation] = want
	}
}

// annotate sets a set's annotations from the Deployment; it says whether one
// changed. A set that comes back gets a new number, the old one is remembered.
func (r *rollout) annotate(rs *appsv1.ReplicaSet, next int64) bool {
	changed := false
	set := func(name, value string) {
		if rs.Annotations == nil {
			rs.Annotations = map[string]string{}
		}
		if rs.Annotations[name] != value {
			rs.Annotations[name], changed = value, true
		}
	}
	for name, value := range r.d.Annotations {
		if !notCopied[name] {
			set(name, value)
		}
	}
	if before := revision(rs.Annotations); before < next {
		if before > 0 {
			history := strings.TrimPrefix(rs.Annotations[historyAnnotation]+","+strconv.FormatInt(before, 10), ",")
			for len(history) > longestHistory {
				_, history, _ = strings.Cut(history, ",")
			}
			set(historyAnnotation, history)
		}
		set(revisionAnnotation, strconv.FormatInt(next, 10))
	}
	return changed
}

// sized notes on a set what the Deployment asked for when it was scaled.
func (r *rollout) sized(rs *appsv1.ReplicaSet) bool {
	desired, most := strconv.Itoa(int(*r.d.Spec.Replicas)), strconv.Itoa(int(*r.d.Spec.Replicas+r.surge()))
	if rs.Annotations[desiredAnnotation] == desired && rs.Annotations[maxAnnotation] == most {
		return false
	}
	if rs.Annotations == nil {
		rs.Annotations = map[string]string{}
	}
	rs.Annotations[desiredAnnotation], rs.Annotations[maxAnnotation] = desired, most
	return true
}

func (r *rollout) createSet(number int64) error {
	template := r.d.Spec.Template.DeepCopy()
	hash := podstate.TemplateHash(template, r.d.Status.CollisionCount)
	if template.Labels == nil {
		template.Labels = map[string]string{}
	}
	template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	selector := r.d.Spec.Selector.DeepCopy()
	if selector.MatchLabels == nil {
		selector.MatchLabels = map[string]string{}
	}
	selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	replicas := r.room(0)
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.d.Namespace, Name: r.d.Name + "-" + hash, Labels: template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r.d, kind)}},
		Spec: appsv1.ReplicaSetSpec{Replicas: &replicas, MinReadySeconds: r.d.Spec.MinReadySeconds, Selector: selector, Template: *template},
	}
	r.annotate(rs, number)
	r.sized(rs)
	made, err := r.sets.Create(r.ctx, rs)
	switch {
	case apierrors.IsAlreadyExists(err):
		if r.current, err = r.collided(rs.Name); err != nil {
			return err
		}
		r.numberDeployment()
		return nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return err
	case err != nil:
		r.failed = err
		if r.hasDeadline() {
			set(&r.d.Status, appsv1.DeploymentProgressing, corev1.ConditionFalse, "ReplicaSetCreateError", fmt.Sprintf("Failed to create new replica set %q: %v", rs.Name, err))
		}
		r.events.Record(r.ctx, r.d, kind, corev1.EventTypeWarning, "ReplicaSetCreateError", "Failed to create new replica set %q: %v", rs.Name, err)
		return err
	}
	r.current = made.DeepCopy()
	r.numberDeployment()
	if replicas > 0 {
		r.events.Record(r.ctx, r.d, kind, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", rs.Name, replicas)
	}
	if r.hasDeadline() {
		set(&r.d.Status, appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetCreated", fmt.Sprintf("Created new replica set %q", rs.Name))
	}
	return nil
}

// collided handles a set of the same name: it may be ours and only not in the
// informer yet; if it is another's, the next hash will differ.
func (r *rollout) collided(name string) (*appsv1.ReplicaSet, error) {
	have, err := r.sets.Get(r.ctx, r.d.Namespace, name)
	if err != nil {
		return nil, err
	}
	if ref := metav1.GetControllerOf(have); ref != nil && ref.UID == r.d.UID && sameTemplate(&have.Spec.Template, &r.d.Spec.Template) {
		return have.DeepCopy(), nil
	}
	count := int32(1)
	if r.d.Status.CollisionCount != nil {
		count = *r.d.Status.CollisionCount + 1
	}
	r.d.Status.CollisionCount = &count
	if _, err := r.deployments.UpdateStatus(r.ctx, r.d); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("the name %s is taken by another ReplicaSet", name)
}
