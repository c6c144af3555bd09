// SPDX-License-Identifier: Apache-2.0

// Package toleration compares and merges the tolerations of pods. The plug-ins
// that give pods tolerations, or judge them, share it; it reads nothing.
package toleration

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Merge returns both lists as one, in their order. A toleration that another
// one covers is left out; of equal ones the first stays.
func Merge(first, second []corev1.Toleration) []corev1.Toleration {
	all := slices.Concat(first, second)
	var merged []corev1.Toleration
	for i := range all {
		t := &all[i]
		covered := slices.ContainsFunc(merged, func(m corev1.Toleration) bool { return Covers(&m, t) }) ||
			slices.ContainsFunc(all[i+1:], func(later corev1.Toleration) bool {
				return !equality.Semantic.DeepEqual(t, &later) && Covers(&later, t)
			})
		if !covered {
			merged = append(merged, *t)
		}
	}
	return merged
}

// Within says whether each toleration is covered by an allowed one. An empty
// list of allowed ones allows everything.
func Within(tolerations, allowed []corev1.Toleration) bool {
	if len(allowed) == 0 {
		return true
	}
	for i := range tolerations {
		if !slices.ContainsFunc(allowed, func(a corev1.Toleration) bool { return Covers(&a, &tolerations[i]) }) {
			return false
		}
	}
	return true
}

// Covers says whether wide tolerates everything that t does.
func Covers(wide, t *corev1.Toleration) bool {
	if equality.Semantic.DeepEqual(wide, t) {
		return true
	}
	// An empty key that exists stands for every key and value.
	if t.Key != wide.Key && (wide.Key != "" || wide.Operator != corev1.TolerationOpExists) {
		return false
	}
	if t.Effect != wide.Effect && wide.Effect != "" {
		return false
	}
	if wide.Effect == corev1.TaintEffectNoExecute && wide.TolerationSeconds != nil &&
		(t.TolerationSeconds == nil || *t.TolerationSeconds > *wide.TolerationSeconds) {
		return false
	}
	switch wide.Operator {
	case corev1.TolerationOpExists:
		return true
	case corev1.TolerationOpEqual, "":
		return t.Operator == corev1.TolerationOpEqual && t.Value == wide.Value
	}
	return false
}

// Add gives a pod a toleration; one of the same key, effect, operator and value
// is replaced.
func Add(spec *corev1.PodSpec, t corev1.Toleration) {
	for i := range spec.Tolerations {
		if spec.Tolerations[i].MatchToleration(&t) {
			spec.Tolerations[i] = t
			return
		}
	}
	spec.Tolerations = append(spec.Tolerations, t)
}
