// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/dump"
	"k8s.io/apimachinery/pkg/util/rand"
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

// templateHash is upstream's hash, so that sets of an existing cluster are
// found again by their names.
func templateHash(template *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(*template))
	if collisions != nil {
		h.Write([]byte{byte(*collisions), byte(*collisions >> 8), byte(*collisions >> 16), byte(*collisions >> 24), 0, 0, 0, 0})
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
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

// ensureCurrent finds or makes the set of the present template and numbers it.
// It is made with no replicas; scaling comes next.
func (r *rollout) ensureCurrent() error {
	next := int64(0)
	for _, rs := range r.old {
		next = max(next, revision(rs.Annotations))
	}
	next++
	if r.current == nil {
		if err := r.createSet(next); err != nil {
			return err
		}
	} else if changed := r.annotate(r.current, next); changed || r.current.Spec.MinReadySeconds != r.d.Spec.MinReadySeconds {
		r.current.Spec.MinReadySeconds = r.d.Spec.MinReadySeconds
		updated, err := r.sets.Update(r.ctx, r.current)
		if err != nil {
			return err
		}
		r.current = updated.DeepCopy()
	}
	return r.numberDeployment()
}

// numberDeployment puts the current revision on the Deployment, for kubectl.
func (r *rollout) numberDeployment() error {
	want := r.current.Annotations[revisionAnnotation]
	if r.d.Annotations[revisionAnnotation] == want {
		return nil
	}
	if r.d.Annotations == nil {
		r.d.Annotations = map[string]string{}
	}
	r.d.Annotations[revisionAnnotation] = want
	updated, err := r.deployments.Update(r.ctx, r.d)
	if err != nil {
		return err
	}
	r.d = updated.DeepCopy()
	return nil
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
			history := rs.Annotations[historyAnnotation]
			set(historyAnnotation, strings.TrimPrefix(history+","+strconv.FormatInt(before, 10), ","))
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
	hash := templateHash(template, r.d.Status.CollisionCount)
	if template.Labels == nil {
		template.Labels = map[string]string{}
	}
	template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	selector := r.d.Spec.Selector.DeepCopy()
	if selector.MatchLabels == nil {
		selector.MatchLabels = map[string]string{}
	}
	selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	none := int32(0)
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.d.Namespace, Name: r.d.Name + "-" + hash, Labels: template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r.d, kind)}},
		Spec: appsv1.ReplicaSetSpec{Replicas: &none, MinReadySeconds: r.d.Spec.MinReadySeconds, Selector: selector, Template: *template},
	}
	r.annotate(rs, number)
	r.sized(rs)
	made, err := r.sets.Create(r.ctx, rs)
	if apierrors.IsAlreadyExists(err) {
		return r.collided(rs.Name)
	}
	if err != nil {
		r.failed = err
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
		r.events.Record(r.ctx, r.d, kind, corev1.EventTypeWarning, "ReplicaSetCreateError", "Failed to create new replica set %q: %v", rs.Name, err)
		return err
	}
	r.current = made.DeepCopy()
	return nil
}

// collided handles a set of the same name: it may be ours and only not in the
// informer yet; if it is another's, the next hash will differ.
func (r *rollout) collided(name string) error {
	have, err := r.sets.Get(r.ctx, r.d.Namespace, name)
	if err != nil {
		return err
	}
	if ref := metav1.GetControllerOf(have); ref != nil && ref.UID == r.d.UID && sameTemplate(&have.Spec.Template, &r.d.Spec.Template) {
		r.current = have.DeepCopy()
		return nil
	}
	count := int32(1)
	if r.d.Status.CollisionCount != nil {
		count = *r.d.Status.CollisionCount + 1
	}
	r.d.Status.CollisionCount = &count
	if _, err := r.deployments.UpdateStatus(r.ctx, r.d); err != nil {
		return err
	}
	return fmt.Errorf("the name %s is taken by another ReplicaSet", name)
}
