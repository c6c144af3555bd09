// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"errors"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// errStale lets a set come again when what it decided on has changed.
var errStale = errors.New("the pod has changed meanwhile")

// create makes a pod and before it its claims.
func (u *update) create(p *corev1.Pod, n int) error {
	if err := u.ensureClaims(p, n); err != nil {
		u.podEvent("create", p, err)
		return err
	}
	made, err := u.Controller.pods.Create(u.ctx, p)
	if apierrors.IsAlreadyExists(err) {
		return err
	}
	u.podEvent("create", p, err)
	if err != nil {
		return err
	}
	u.pending.Create(u.set.UID, made.UID, func() bool {
		seen, err := u.Controller.pods.Cached(made.Namespace, made.Name)
		return err == nil && seen.UID == made.UID
	})
	return nil
}

// mend gives a pod back its labels and volumes, and its claims their owners.
func (u *update) mend(p *corev1.Pod, n int) error {
	claims, err := u.fixClaims(p, n)
	if err != nil {
		u.podEvent("update", p, err)
		return err
	}
	if identified(p) && stored(u.set, p, n) {
		if claims { // upstream writes the pod as it is and says so
			u.podEvent("update", p, nil)
		}
		return nil
	}
	changed := p.DeepCopy()
	identify(u.set, changed, n)
	store(u.set, changed, n)
	_, err = u.Controller.pods.Update(u.ctx, changed)
	if apierrors.IsConflict(err) {
		return err
	}
	u.podEvent("update", p, err)
	return err
}

// remove deletes a pod, if it is still the one that was looked at.
func (u *update) remove(p *corev1.Pod) error {
	u.pending.Delete(u.set.UID, p.UID)
	uid := p.UID
	err := u.Controller.pods.Delete(u.ctx, p.Namespace, p.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	switch {
	case err == nil:
	case apierrors.IsNotFound(err):
		u.pending.Gone(u.set.UID, p.UID)
		return nil
	case apierrors.IsConflict(err):
		u.pending.Gone(u.set.UID, p.UID)
		return errStale
	default:
		u.pending.Gone(u.set.UID, p.UID)
	}
	u.podEvent("delete", p, err)
	return err
}

func (u *update) podEvent(verb string, p *corev1.Pod, err error) {
	title := strings.ToUpper(verb[:1]) + verb[1:]
	if err != nil {
		u.events.Record(u.ctx, u.set, kind, corev1.EventTypeWarning, "Failed"+title, "%s Pod %s in StatefulSet %s failed error: %s", title, p.Name, u.set.Name, err)
		return
	}
	u.events.Record(u.ctx, u.set, kind, corev1.EventTypeNormal, "Successful"+title, "%s Pod %s in StatefulSet %s successful", title, p.Name, u.set.Name)
}

func (u *update) claimEvent(p *corev1.Pod, c *corev1.PersistentVolumeClaim, err error) {
	if err != nil {
		u.events.Record(u.ctx, u.set, kind, corev1.EventTypeWarning, "FailedCreate", "Create Claim %s for Pod %s in StatefulSet %s failed error: %s", c.Name, p.Name, u.set.Name, err)
		return
	}
	u.events.Record(u.ctx, u.set, kind, corev1.EventTypeNormal, "SuccessfulCreate", "Create Claim %s Pod %s in StatefulSet %s success", c.Name, p.Name, u.set.Name)
}
