// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func event() *api.Kind {
	return &api.Kind{
		Name: "Event", Resource: "events", Singular: "event",
		ShortNames: []string{"ev"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.Event], NewList: api.NewList[corev1.EventList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/events",
		New:     api.New[corev1.Event], NewList: api.NewList[corev1.EventList],
		AllowUnconditionalUpdate: true,
		GarbageCollection:        api.GCUnsupported,
	}
}
