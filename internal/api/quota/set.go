// SPDX-License-Identifier: Apache-2.0

package quota

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Set are the evaluators of all resources. It is immutable.
type Set struct {
	special map[schema.GroupResource]*Evaluator
}

// New returns the evaluators. devices says what the evaluator of
// ResourceClaims has to look up.
func New(devices Devices) *Set {
	s := &Set{special: map[schema.GroupResource]*Evaluator{}}
	for _, e := range []*Evaluator{
		pods(), services(), volumeClaims(), resourceClaims(devices),
		counting(corev1.Resource("configmaps"), corev1.ResourceConfigMaps),
		counting(corev1.Resource("resourcequotas"), corev1.ResourceQuotas),
		counting(corev1.Resource("replicationcontrollers"), corev1.ResourceReplicationControllers),
		counting(corev1.Resource("secrets"), corev1.ResourceSecrets),
	} {
		s.special[e.Resource] = e
	}
	return s
}

// For returns what measures a resource, nil for those that quotas never limit.
func (s *Set) For(gr schema.GroupResource) *Evaluator {
	if ignored(gr) {
		return nil
	}
	if e := s.special[gr]; e != nil {
		return e
	}
	return counting(gr, "")
}

// Measuring returns what measures any of a quota's names. Names that nothing
// measures are left out.
func (s *Set) Measuring(hard corev1.ResourceList) []*Evaluator {
	var all []*Evaluator
	for _, e := range s.special {
		if len(e.Names(hard)) > 0 {
			all = append(all, e)
		}
	}
	for _, name := range Names(hard) {
		if gr, ok := Counted(name); ok && s.special[gr] == nil && !ignored(gr) {
			all = append(all, counting(gr, ""))
		}
	}
	return all
}

// ignored says that a resource is never limited: it is not stored, or, as
// events, never was.
func ignored(gr schema.GroupResource) bool {
	switch gr.Group {
	case "":
		return gr.Resource == "bindings" || gr.Resource == "componentstatuses" || gr.Resource == "events"
	case "events.k8s.io":
		return gr.Resource == "events"
	case "authentication.k8s.io":
		return gr.Resource == "tokenreviews" || gr.Resource == "selfsubjectreviews"
	case "authorization.k8s.io":
		return true // reviews, all of them
	}
	return false
}
