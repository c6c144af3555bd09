// SPDX-License-Identifier: Apache-2.0

package daemonset

import (
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kaji/internal/controller/podstate"
)

// writeStatus writes the status if it differs. acted says that the set's
// present generation was worked on.
func (r *round) writeStatus(acted bool) error {
	s := *r.ds.Status.DeepCopy()
	s.DesiredNumberScheduled, s.CurrentNumberScheduled, s.NumberMisscheduled, s.NumberReady, s.UpdatedNumberScheduled, s.NumberAvailable = 0, 0, 0, 0, 0, 0
	for _, node := range r.nodes {
		pods := r.placed[node.Name]
		if !fits(r.ds, node).run {
			if len(pods) > 0 {
				s.NumberMisscheduled++
			}
			continue
		}
		s.DesiredNumberScheduled++
		if len(pods) == 0 {
			continue
		}
		s.CurrentNumberScheduled++
		r.sortPods(pods)
		p := pods[0]
		if _, ready := podstate.Ready(p); ready {
			s.NumberReady++
			ok, wait := podstate.Available(p, r.ds.Spec.MinReadySeconds, r.now)
			if ok {
				s.NumberAvailable++
			} else if wait > 0 {
				r.again(wait)
			}
		}
		if r.current(p) {
			s.UpdatedNumberScheduled++
		}
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
	if acted {
		s.ObservedGeneration = r.ds.Generation
	}
	if equality.Semantic.DeepEqual(s, r.ds.Status) {
		return nil
	}
	changed := r.ds.DeepCopy()
	changed.Status = s
	_, err := r.sets.UpdateStatus(r.ctx, changed)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
