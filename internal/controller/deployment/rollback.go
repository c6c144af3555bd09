// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// wanted returns the revision that the annotation of extensions/v1beta1 asks
// for, the one before the present when zero.
func (r *rollout) wanted() (revision int64, ok bool) {
	n, err := strconv.ParseInt(r.d.Annotations[appsv1.DeprecatedRollbackTo], 10, 64)
	return n, err == nil
}

// rollBack gives the Deployment the template and annotations of a revision and
// takes the annotation away, whatever came of it. Nothing is rolled out before
// that is written: sets change their numbers.
func (r *rollout) rollBack(number int64) error {
	if err := r.ensureCurrent(); err != nil {
		return err
	}
	delete(r.d.Annotations, appsv1.DeprecatedRollbackTo)
	if number == 0 {
		if number = r.lastRevision(); number == 0 {
			return r.rolledBack(corev1.EventTypeWarning, "DeploymentRollbackRevisionNotFound", "Unable to find last revision.")
		}
	}
	for _, rs := range r.all() {
		if revision(rs.Annotations) != number {
			continue
		}
		if sameTemplate(&r.d.Spec.Template, &rs.Spec.Template) {
			return r.rolledBack(corev1.EventTypeWarning, "DeploymentRollbackTemplateUnchanged", "The rollback revision contains the same template as current deployment %q", r.d.Name)
		}
		r.d.Spec.Template = *rs.Spec.Template.DeepCopy()
		delete(r.d.Spec.Template.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
		own := func(name, _ string) bool { return !notCopied[name] }
		maps.DeleteFunc(r.d.Annotations, own)
		for name, value := range rs.Annotations {
			if own(name, value) {
				r.d.Annotations[name] = value
			}
		}
		return r.rolledBack(corev1.EventTypeNormal, "DeploymentRollback", "Rolled back deployment %q to revision %d", r.d.Name, number)
	}
	return r.rolledBack(corev1.EventTypeWarning, "DeploymentRollbackRevisionNotFound", "Unable to find the revision to rollback to.")
}

// lastRevision is the greatest revision but one, zero when there is none.
func (r *rollout) lastRevision() (second int64) {
	first := int64(0)
	for _, rs := range r.all() {
		if n := revision(rs.Annotations); n > first {
			first, second = n, first
		} else if n > second {
			second = n
		}
	}
	return second
}

// rolledBack writes the Deployment and then tells of it.
func (r *rollout) rolledBack(kindOf, reason, format string, args ...any) error {
	if _, err := r.deployments.Update(r.ctx, r.d); err != nil {
		return err
	}
	r.events.Record(r.ctx, r.before, kind, kindOf, reason, format, args...)
	return nil
}
