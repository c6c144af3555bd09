// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Names returns the names of a list, sorted.
func Names(list corev1.ResourceList) []corev1.ResourceName {
	return slices.Sorted(maps.Keys(list))
}

// Equal says whether two lists have the same names with equal values.
func Equal(a, b corev1.ResourceList) bool {
	return maps.EqualFunc(a, b, func(x, y resource.Quantity) bool { return x.Cmp(y) == 0 })
}

// Add returns the sum of two lists, of all their names.
func Add(a, b corev1.ResourceList) corev1.ResourceList {
	sum := make(corev1.ResourceList, len(a))
	for name, q := range a {
		sum[name] = q.DeepCopy()
	}
	for name, q := range b {
		total, ok := sum[name]
		if !ok {
			sum[name] = q.DeepCopy()
			continue
		}
		total.Add(q)
		sum[name] = total
	}
	return sum
}

// Growth returns by how much a list is above another, name by name; nothing is
// below zero.
func Growth(now, before corev1.ResourceList) corev1.ResourceList {
	grown := corev1.ResourceList{}
	for name, q := range now {
		more := q.DeepCopy()
		if b, ok := before[name]; ok {
			more.Sub(b)
		}
		if more.Sign() > 0 {
			grown[name] = more
		}
	}
	return grown
}

// Positive returns a list without its zero values.
func Positive(list corev1.ResourceList) corev1.ResourceList {
	left := make(corev1.ResourceList, len(list))
	for name, q := range list {
		if !q.IsZero() {
			left[name] = q
		}
	}
	return left
}

// Mask returns only the named values of a list.
func Mask(list corev1.ResourceList, names []corev1.ResourceName) corev1.ResourceList {
	left := corev1.ResourceList{}
	for _, name := range names {
		if q, ok := list[name]; ok {
			left[name] = q.DeepCopy()
		}
	}
	return left
}

// Exceeding returns the names whose value in list is above that in limit,
// sorted.
func Exceeding(list, limit corev1.ResourceList) []corev1.ResourceName {
	var over []corev1.ResourceName
	for _, name := range Names(limit) {
		if q, ok := list[name]; ok && q.Cmp(limit[name]) > 0 {
			over = append(over, name)
		}
	}
	return over
}

// Negative returns the names with a value below zero, sorted.
func Negative(list corev1.ResourceList) []corev1.ResourceName {
	var below []corev1.ResourceName
	for _, name := range Names(list) {
		if q := list[name]; q.Sign() < 0 {
			below = append(below, name)
		}
	}
	return below
}
