// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func limitRange() *api.Kind {
	return &api.Kind{
		Name: "LimitRange", Resource: "limitranges", Singular: "limitrange",
		ShortNames: []string{"limits"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.LimitRange], NewList: api.NewList[corev1.LimitRangeList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/limitranges",
		New:     api.New[corev1.LimitRange], NewList: api.NewList[corev1.LimitRangeList],
		AllowUnconditionalUpdate: true,
	}
}
