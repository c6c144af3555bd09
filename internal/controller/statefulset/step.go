// SPDX-License-Identifier: Apache-2.0

package statefulset

import (
	"cmp"
	"errors"
	"slices"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// errWait ends a step: the pod that was looked at must come further first, and
// its change wakes the set.
var errWait = errors.New("waiting for a pod")

// step brings the pods one step nearer to what the set wants: first those that
// are wanted, in order, then those that are too many, then those of an old
// revision. In order means that each waits for the one before.
func (u *update) step() error {
	replicas, condemned := u.sort()
	u.count(u.pods)
	if u.set.DeletionTimestamp != nil {
		return nil
	}
	err := u.each(replicas, u.keep)
	if err == nil {
		err = u.each(condemned, func(p *corev1.Pod) error {
			_, err := u.fixClaims(p, ordinal(p))
			return err
		})
	}
	if err == nil {
		first := u.firstUnavailable(replicas, condemned)
		err = u.each(condemned, func(p *corev1.Pod) error { return u.condemn(p, first) })
	}
	u.count(replicas, condemned)
	if err == nil && u.set.Spec.UpdateStrategy.Type != appsv1.OnDeleteStatefulSetStrategyType {
		err = u.replace(replicas)
	}
	if errors.Is(err, errWait) {
		return nil
	}
	return err
}

// ordered says whether pods come and go one after the other.
func (u *update) ordered() bool {
	return u.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
}

// sort returns the pods that are wanted, by number, those missing as they are
// to be made, and those that are not, the highest number first.
func (u *update) sort() (replicas, condemned []*corev1.Pod) {
	first := start(u.set)
	replicas = make([]*corev1.Pod, *u.set.Spec.Replicas)
	for _, p := range u.pods {
		if n := ordinal(p); inRange(u.set, n) {
			replicas[n-first] = p
		} else if n >= 0 {
			condemned = append(condemned, p)
		}
	}
	for i, p := range replicas {
		if p == nil {
			replicas[i] = u.newPod(first + i)
		}
	}
	slices.SortFunc(condemned, func(a, b *corev1.Pod) int { return cmp.Compare(ordinal(b), ordinal(a)) })
	return replicas, condemned
}

// each does something to all pods: in order, the first that has to wait ends
// it; otherwise side by side in batches that double while all succeeds.
func (u *update) each(pods []*corev1.Pod, f func(*corev1.Pod) error) error {
	if u.ordered() {
		for _, p := range pods {
			if err := f(p); err != nil {
				return err
			}
		}
		return nil
	}
	for batch, rest := 1, pods; len(rest) > 0; batch *= 2 {
		batch = min(batch, len(rest))
		errs := make([]error, batch)
		var group sync.WaitGroup
		for i, p := range rest[:batch] {
			group.Go(func() { errs[i] = f(p) })
		}
		group.Wait()
		for _, err := range errs {
			if err != nil && !errors.Is(err, errWait) {
				return err
			}
		}
		rest = rest[batch:]
	}
	return nil
}

// keep sees to one wanted pod.
func (u *update) keep(p *corev1.Pod) error {
	n := ordinal(p)
	if ended(p) {
		if !terminating(p) {
			if err := u.remove(p); err != nil {
				return err
			}
		}
		return errWait // the next one of the number is made when it is gone
	}
	if !created(p) {
		if u.stale(p, n) {
			return errWait
		}
		if err := u.create(p, n); err != nil {
			return err
		}
		return errWait
	}
	if p.Status.Phase == corev1.PodPending && !terminating(p) {
		// Its claims are owned as the policy says even if it never becomes ready.
		_, err := u.fixClaims(p, n)
		if err = errors.Join(u.ensureClaims(p, n), err); err != nil {
			return err
		}
	}
	if u.ordered() && (terminating(p) || !runningAndReady(p) || !available(p, u.set.Spec.MinReadySeconds, u.now)) {
		return errWait
	}
	if terminating(p) {
		return nil
	}
	return u.mend(p, n)
}

func (u *update) unavailable(p *corev1.Pod) bool {
	return terminating(p) || !available(p, u.set.Spec.MinReadySeconds, u.now)
}

// firstUnavailable is the pod that alone may end although it is not ready: a
// set that cannot become healthy can still shrink.
func (u *update) firstUnavailable(replicas, condemned []*corev1.Pod) *corev1.Pod {
	for _, p := range replicas {
		if u.unavailable(p) {
			return p
		}
	}
	for _, p := range slices.Backward(condemned) {
		if u.unavailable(p) {
			return p
		}
	}
	return nil
}

// condemn ends one pod that is too many.
func (u *update) condemn(p, firstUnavailable *corev1.Pod) error {
	if terminating(p) {
		return errWait
	}
	if u.ordered() && p != firstUnavailable && (!runningAndReady(p) || !available(p, u.set.Spec.MinReadySeconds, u.now)) {
		return errWait
	}
	if err := u.remove(p); err != nil {
		return err
	}
	return errWait
}

// replace ends pods of an old revision, the highest number first, as many as
// may be unavailable at once.
func (u *update) replace(replicas []*corev1.Pod) error {
	allowed := u.maxUnavailable()
	for _, p := range replicas {
		if u.unavailable(p) {
			allowed--
		}
	}
	for i := len(replicas) - 1; i >= partition(u.set) && allowed > 0; i-- {
		p := replicas[i]
		if revisionOf(p) == u.update.Name || terminating(p) || !created(p) {
			continue
		}
		if err := u.remove(p); err != nil {
			return err
		}
		allowed--
		u.status.CurrentReplicas--
	}
	return nil
}

func (u *update) maxUnavailable() int {
	r := u.set.Spec.UpdateStrategy.RollingUpdate
	if r == nil || r.MaxUnavailable == nil {
		return 1
	}
	// Percentages are rounded down here as upstream does, but never to nothing.
	n, err := intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, int(*u.set.Spec.Replicas), false)
	if err != nil {
		return 1 // validation keeps such values out
	}
	return max(n, 1)
}
