// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"kaji/internal/controller/history"
)

// hashLabel is the label of a revision with the hash of its data.
const hashLabel = "controller.kubernetes.io/hash"

// findRevisions finds or makes the revision of the present template, and finds
// the one that a rollout comes from. For a set that is being deleted none is
// made: update stays nil then.
func (u *update) findRevisions() error {
	if u.set.Status.CollisionCount != nil {
		u.collisions = *u.set.Status.CollisionCount
	}
	history.Sort(u.history)
	wanted, err := u.newRevision(history.Next(u.history))
	if err != nil {
		return err
	}
	var same []*appsv1.ControllerRevision
	for _, r := range u.history {
		if history.Equal(r, wanted) {
			same = append(same, r)
		}
	}
	switch {
	case len(same) == 0 && u.set.DeletionTimestamp != nil:
		return nil // it was taken from the set before the set goes
	case len(same) == 0:
		u.update, err = u.createRevision(wanted)
	case history.Equal(u.history[len(u.history)-1], wanted):
		u.update = u.history[len(u.history)-1]
	default: // a roll back: the old revision becomes the newest
		u.update, err = u.renumber(same[len(same)-1], wanted.Revision)
	}
	if err != nil {
		return err
	}
	u.current = u.update
	for _, r := range u.history {
		if r.Name == u.set.Status.CurrentRevision {
			u.current = r
		}
	}
	return nil
}

func (u *update) newRevision(number int64) (*appsv1.ControllerRevision, error) {
	data, err := history.Data(&u.set.Spec.Template)
	if err != nil {
		return nil, err
	}
	r := &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{Namespace: u.set.Namespace, Labels: map[string]string{}, Annotations: maps.Clone(u.set.Annotations),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(u.set, kind)}},
		Data: runtime.RawExtension{Raw: data}, Revision: number,
	}
	maps.Copy(r.Labels, u.set.Spec.Template.Labels)
	return r, nil
}

// createRevision writes a revision under the first name of its hashes that is
// free or already holds the same.
func (u *update) createRevision(r *appsv1.ControllerRevision) (*appsv1.ControllerRevision, error) {
	for {
		hash := history.Hash(r.Data.Raw, &u.collisions)
		r.Name, r.Labels[hashLabel] = history.Name(u.set.Name, hash), hash
		made, err := u.revisions.Create(u.ctx, r)
		if !apierrors.IsAlreadyExists(err) {
			return made, err
		}
		have, err := u.revisions.Get(u.ctx, r.Namespace, r.Name)
		if err != nil {
			return nil, err
		}
		if ref := metav1.GetControllerOf(have); history.Equal(have, r) && ref != nil && ref.UID == u.set.UID {
			return have, nil
		}
		u.collisions++
	}
}

func (u *update) renumber(r *appsv1.ControllerRevision, number int64) (*appsv1.ControllerRevision, error) {
	if r.Revision == number {
		return r, nil
	}
	changed := r.DeepCopy()
	changed.Revision = number
	return u.revisions.Update(u.ctx, changed)
}

func (u *update) applyRevisions() error {
	for _, apply := range []struct {
		from *appsv1.ControllerRevision
		to   **appsv1.StatefulSet
	}{{u.current, &u.currentSet}, {u.update, &u.updateSet}} {
		template, err := history.Template(apply.from)
		if err != nil {
			return err
		}
		set := u.set.DeepCopy()
		set.Spec.Template = *template
		*apply.to = set
	}
	return nil
}

// trimHistory deletes revisions beyond the limit that no pod has.
func (u *update) trimHistory() error {
	if u.set.DeletionTimestamp != nil {
		return nil
	}
	live := map[string]bool{u.current.Name: true, u.update.Name: true, u.status.CurrentRevision: true}
	for _, p := range u.pods {
		live[revisionOf(p)] = true
	}
	limit := 10
	if u.set.Spec.RevisionHistoryLimit != nil {
		limit = int(*u.set.Spec.RevisionHistoryLimit)
	}
	for _, r := range history.Surplus(u.history, limit, func(r *appsv1.ControllerRevision) bool { return live[r.Name] }) {
		if err := u.revisions.Delete(u.ctx, r.Namespace, r.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

func revisionOf(p *corev1.Pod) string { return p.Labels[appsv1.ControllerRevisionHashLabelKey] }
