// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"bytes"
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"kaji/internal/controller/history"
	"kaji/internal/controller/podstate"
)

// findRevision finds or makes the revision of the present template. One that
// was old becomes the newest; of several that hold the same one stays.
func (r *round) findRevision(all []*appsv1.ControllerRevision, pods []*corev1.Pod) error {
	data, err := history.Data(&r.ds.Spec.Template)
	if err != nil {
		return err
	}
	history.Sort(all)
	var same []*appsv1.ControllerRevision
	for _, rev := range all {
		if bytes.Equal(rev.Data.Raw, data) {
			same = append(same, rev)
		} else {
			r.old = append(r.old, rev)
		}
	}
	number := history.Next(r.old)
	if len(same) == 0 {
		made, err := r.createRevision(data, number)
		if err == nil {
			r.hash = made.Labels[appsv1.ControllerRevisionHashLabelKey]
		}
		return err
	}
	keep := same[len(same)-1]
	changed := keep.DeepCopy()
	changed.Revision = max(keep.Revision, number)
	if changed.Labels == nil {
		changed.Labels = map[string]string{}
	}
	if changed.Labels[appsv1.ControllerRevisionHashLabelKey] == "" {
		changed.Labels[appsv1.ControllerRevisionHashLabelKey] = keep.Name
	}
	r.hash = changed.Labels[appsv1.ControllerRevisionHashLabelKey]
	if changed.Revision != keep.Revision || len(changed.Labels) != len(keep.Labels) {
		if _, err := r.revisions.Update(r.ctx, changed); err != nil {
			return err
		}
	}
	return r.merge(same[:len(same)-1], pods)
}

// merge relabels the pods of doubles of the present revision and deletes them.
func (r *round) merge(doubles []*appsv1.ControllerRevision, pods []*corev1.Pod) error {
	for _, double := range doubles {
		for _, p := range pods {
			if p.Labels[appsv1.ControllerRevisionHashLabelKey] != double.Labels[appsv1.ControllerRevisionHashLabelKey] || r.ofHash(p) {
				continue
			}
			patch := map[string]any{"metadata": map[string]any{"uid": p.UID, "labels": map[string]string{appsv1.ControllerRevisionHashLabelKey: r.hash}}}
			if _, err := r.pods.MergePatch(r.ctx, p.Namespace, p.Name, patch, ""); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		if err := r.revisions.Delete(r.ctx, double.Namespace, double.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

func (r *round) createRevision(data []byte, number int64) (*appsv1.ControllerRevision, error) {
	hash := podstate.TemplateHash(&r.ds.Spec.Template, r.ds.Status.CollisionCount)
	rev := &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.ds.Namespace, Name: r.ds.Name + "-" + hash, Labels: map[string]string{}, Annotations: maps.Clone(r.ds.Annotations),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r.ds, kind)}},
		Data: runtime.RawExtension{Raw: data}, Revision: number,
	}
	maps.Copy(rev.Labels, r.ds.Spec.Template.Labels)
	rev.Labels[appsv1.ControllerRevisionHashLabelKey] = hash
	made, err := r.revisions.Create(r.ctx, rev)
	if !apierrors.IsAlreadyExists(err) {
		return made, err
	}
	have, err := r.revisions.Get(r.ctx, rev.Namespace, rev.Name)
	if err != nil {
		return nil, err
	}
	if ref := metav1.GetControllerOf(have); bytes.Equal(have.Data.Raw, data) && ref != nil && ref.UID == r.ds.UID {
		return have, nil
	}
	changed := r.ds.DeepCopy()
	count := int32(1)
	if r.ds.Status.CollisionCount != nil {
		count = *r.ds.Status.CollisionCount + 1
	}
	changed.Status.CollisionCount = &count
	if _, err := r.sets.UpdateStatus(r.ctx, changed); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("the name %s is taken by another revision", rev.Name)
}

// trimHistory deletes revisions beyond the limit that no pod has.
func (r *round) trimHistory() error {
	live := map[string]bool{}
	for _, pods := range r.placed {
		for _, p := range pods {
			live[p.Labels[appsv1.ControllerRevisionHashLabelKey]] = true
		}
	}
	limit := 10
	if r.ds.Spec.RevisionHistoryLimit != nil {
		limit = int(*r.ds.Spec.RevisionHistoryLimit)
	}
	// What lives counts towards the limit, but is not deleted.
	used := func(rev *appsv1.ControllerRevision) bool {
		return live[rev.Labels[appsv1.ControllerRevisionHashLabelKey]]
	}
	kept := 0
	for _, rev := range r.old {
		if used(rev) {
			kept++
		}
	}
	for _, rev := range history.Surplus(r.old, max(0, limit-kept), used) {
		if err := r.revisions.Delete(r.ctx, rev.Namespace, rev.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("failed to clean up revisions of DaemonSet: %w", err)
		}
	}
	return nil
}
