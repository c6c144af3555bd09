// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"cmp"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"kaji/internal/controller/adopt"
)

// bounds returns how many pods may be beyond and below the wanted number. Both
// being zero would stop every rollout, so one may be missing then.
func (r *rollout) bounds() (surge, unavailable int32) {
	u := r.d.Spec.Strategy.RollingUpdate
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || u == nil {
		return 0, 0
	}
	n := int(*r.d.Spec.Replicas)
	s, _ := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(u.MaxSurge, intstr.FromInt32(0)), n, true)
	m, _ := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(u.MaxUnavailable, intstr.FromInt32(0)), n, false)
	if s == 0 && m == 0 {
		m = 1
	}
	return int32(s), int32(min(m, n))
}

func (r *rollout) surge() int32 {
	s, _ := r.bounds()
	return s
}

// resize sets a set's replicas, with an event.
func (r *rollout) resize(rs *appsv1.ReplicaSet, n int32) (*appsv1.ReplicaSet, error) {
	before := *rs.Spec.Replicas
	annotated := r.sized(rs)
	if before == n && !annotated {
		return rs, nil
	}
	*rs.Spec.Replicas = n
	updated, err := r.sets.Update(r.ctx, rs)
	if err != nil {
		return rs, err
	}
	if before != n {
		how := "up"
		if n < before {
			how = "down"
		}
		r.events.Record(r.ctx, r.d, kind, corev1.EventTypeNormal, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", how, rs.Name, before, n)
	}
	return updated.DeepCopy(), nil
}

func (r *rollout) resizeCurrent(n int32) (err error) {
	r.current, err = r.resize(r.current, n)
	return err
}

func sum(sets []*appsv1.ReplicaSet, of func(*appsv1.ReplicaSet) int32) (total int32) {
	for _, rs := range sets {
		total += of(rs)
	}
	return total
}

func wanted(rs *appsv1.ReplicaSet) int32    { return *rs.Spec.Replicas }
func available(rs *appsv1.ReplicaSet) int32 { return rs.Status.AvailableReplicas }

// lasting are the available pods that are still wanted: a set's status lags
// behind what it was just told.
func lasting(rs *appsv1.ReplicaSet) int32 { return min(available(rs), wanted(rs)) }

// roll takes one step of a rolling update: up as far as the surge allows, else
// down as far as availability allows.
func (r *rollout) roll() error {
	if err := r.ensureCurrent(); err != nil || r.current == nil {
		return err
	}
	_, unavailable := r.bounds()
	desired, total := *r.d.Spec.Replicas, sum(r.all(), wanted)
	if n := wanted(r.current); n != desired {
		if to := r.room(n); to != n {
			return r.resizeCurrent(to)
		}
	}
	if sum(r.old, wanted) == 0 {
		return nil
	}
	least := desired - unavailable
	room := total - least - (wanted(r.current) - lasting(r.current))
	if room <= 0 {
		return nil
	}
	if err := r.dropUnhealthy(room); err != nil {
		return err
	}
	return r.dropHealthy(least)
}

// room returns how many replicas the current set may have at once, if it has n.
func (r *rollout) room(n int32) int32 {
	desired := *r.d.Spec.Replicas
	if n >= desired || r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return desired
	}
	free := desired + r.surge() - sum(r.all(), wanted)
	return n + max(0, min(free, desired-n))
}

// dropUnhealthy scales old sets down by pods that are not available: nobody
// misses them.
func (r *rollout) dropUnhealthy(room int32) error {
	for i, rs := range r.old {
		if room <= 0 {
			break
		}
		if idle := wanted(rs) - lasting(rs); idle > 0 {
			n := min(room, idle)
			updated, err := r.resize(rs, wanted(rs)-n)
			if err != nil {
				return err
			}
			r.old[i] = updated
			room -= n
		}
	}
	return nil
}

// dropHealthy scales old sets down while enough pods stay available.
func (r *rollout) dropHealthy(least int32) error {
	room := sum(r.all(), lasting) - least
	for i, rs := range r.old {
		if room <= 0 {
			return nil
		}
		if n := min(room, wanted(rs)); n > 0 {
			updated, err := r.resize(rs, wanted(rs)-n)
			if err != nil {
				return err
			}
			r.old[i] = updated
			room -= n
		}
	}
	return nil
}

// recreate ends all old pods before it makes new ones.
func (r *rollout) recreate() error {
	for i, rs := range r.old {
		if wanted(rs) > 0 {
			updated, err := r.resize(rs, 0)
			if err != nil {
				return err
			}
			r.old[i] = updated
		}
	}
	for _, rs := range r.old {
		for _, pod := range adopt.Owned(r.pods, rs.UID) {
			if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
				return nil // its end wakes us
			}
		}
	}
	if err := r.ensureCurrent(); err != nil || r.current == nil {
		return err
	}
	return r.resizeCurrent(*r.d.Spec.Replicas)
}

// proportion spreads a changed number over the sets of a rollout in progress,
// each in proportion to its size, so that scaling does not undo the rollout.
func (r *rollout) proportion() error {
	var active []*appsv1.ReplicaSet
	for _, rs := range r.all() {
		if wanted(rs) > 0 {
			active = append(active, rs)
		}
	}
	switch {
	case len(active) == 0 && r.current != nil:
		return r.resizeCurrent(*r.d.Spec.Replicas)
	case len(active) == 0 && len(r.old) > 0 && r.d.Spec.Paused:
		_, err := r.resize(r.old[len(r.old)-1], *r.d.Spec.Replicas)
		return err
	case len(active) == 0:
		return nil
	case len(active) == 1:
		_, err := r.resize(active[0], *r.d.Spec.Replicas)
		return err
	case r.saturated():
		for i, rs := range r.old {
			if wanted(rs) > 0 {
				updated, err := r.resize(rs, 0)
				if err != nil {
					return err
				}
				r.old[i] = updated
			}
		}
		return nil
	case r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		return nil
	}
	allowed := int32(0)
	if *r.d.Spec.Replicas > 0 {
		allowed = *r.d.Spec.Replicas + r.surge()
	}
	total := sum(active, wanted)
	toAdd := allowed - total
	// The largest first, so that what is left over goes there; of equal ones
	// the newest when growing, the oldest when shrinking.
	slices.SortStableFunc(active, func(a, b *appsv1.ReplicaSet) int {
		byAge := b.CreationTimestamp.Compare(a.CreationTimestamp.Time)
		if toAdd < 0 {
			byAge = -byAge
		}
		return cmp.Or(cmp.Compare(wanted(b), wanted(a)), byAge)
	})
	added := int32(0)
	sizes := make([]int32, len(active))
	for i, rs := range active {
		share := int32(0)
		if toAdd != 0 {
			share = r.share(rs, allowed) - wanted(rs)
			if toAdd > 0 {
				share = min(share, toAdd-added)
			} else {
				share = max(share, toAdd-added)
			}
		}
		added += share
		sizes[i] = wanted(rs) + share
	}
	sizes[0] = max(0, sizes[0]+toAdd-added)
	for i, rs := range active {
		if _, err := r.resize(rs, sizes[i]); err != nil {
			return err
		}
	}
	return nil
}

// share is a set's part of the new total.
func (r *rollout) share(rs *appsv1.ReplicaSet, allowed int32) int32 {
	if *r.d.Spec.Replicas == 0 {
		return 0
	}
	before, ok := annotation(rs, maxAnnotation)
	if !ok || before == 0 {
		before = max(r.d.Status.Replicas, 1)
	}
	return int32(float64(wanted(rs))*float64(allowed)/float64(before) + 0.5)
}

// saturated says whether the current set alone does what is wanted.
func (r *rollout) saturated() bool {
	if r.current == nil {
		return false
	}
	noted, ok := annotation(r.current, desiredAnnotation)
	n := *r.d.Spec.Replicas
	return ok && noted == n && wanted(r.current) == n && available(r.current) == n
}
