// SPDX-License-Identifier: Apache-2.0

package toleration

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

var (
	all      = corev1.Toleration{Operator: corev1.TolerationOpExists}
	anyA     = corev1.Toleration{Key: "a", Operator: corev1.TolerationOpExists}
	a1       = corev1.Toleration{Key: "a", Operator: corev1.TolerationOpEqual, Value: "1"}
	a1Evict  = corev1.Toleration{Key: "a", Operator: corev1.TolerationOpEqual, Value: "1", Effect: corev1.TaintEffectNoExecute}
	anyAFor5 = corev1.Toleration{Key: "a", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(5))}
	anyAFor9 = corev1.Toleration{Key: "a", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(int64(9))}
	above    = corev1.Toleration{Key: "a", Operator: "Gt", Value: "1"}
	anyB     = corev1.Toleration{Key: "b", Operator: corev1.TolerationOpExists}
)

func TestMerge(t *testing.T) {
	for _, c := range []struct{ first, second, want []corev1.Toleration }{
		{nil, nil, nil},
		{[]corev1.Toleration{a1}, []corev1.Toleration{anyB}, []corev1.Toleration{a1, anyB}},
		{[]corev1.Toleration{a1}, []corev1.Toleration{a1}, []corev1.Toleration{a1}},
		{[]corev1.Toleration{a1, anyB}, []corev1.Toleration{anyA}, []corev1.Toleration{anyB, anyA}},
		{[]corev1.Toleration{all}, []corev1.Toleration{a1, anyB}, []corev1.Toleration{all}},
		{[]corev1.Toleration{anyAFor5}, []corev1.Toleration{anyAFor9}, []corev1.Toleration{anyAFor9}},
		{[]corev1.Toleration{above}, []corev1.Toleration{a1}, []corev1.Toleration{above, a1}},
	} {
		if diff := cmp.Diff(c.want, Merge(c.first, c.second)); diff != "" {
			t.Errorf("%v and %v: %s", c.first, c.second, diff)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		given, allowed []corev1.Toleration
		want           bool
	}{
		{[]corev1.Toleration{a1}, nil, true},
		{nil, []corev1.Toleration{a1}, true},
		{[]corev1.Toleration{a1Evict}, []corev1.Toleration{a1}, true},
		{[]corev1.Toleration{a1}, []corev1.Toleration{a1Evict}, false},
		{[]corev1.Toleration{anyAFor9}, []corev1.Toleration{anyAFor5}, false},
		{[]corev1.Toleration{anyB}, []corev1.Toleration{anyA}, false},
	} {
		if got := Within(c.given, c.allowed); got != c.want {
			t.Errorf("%v within %v: %v", c.given, c.allowed, got)
		}
	}
}

func TestAdd(t *testing.T) {
	spec := corev1.PodSpec{Tolerations: []corev1.Toleration{anyAFor5}}
	Add(&spec, anyAFor9)
	Add(&spec, anyB)
	if diff := cmp.Diff([]corev1.Toleration{anyAFor9, anyB}, spec.Tolerations); diff != "" {
		t.Error(diff)
	}
}
