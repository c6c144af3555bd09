// SPDX-License-Identifier: Apache-2.0

package core

import (
	corev1 "k8s.io/api/core/v1"

	"kaji/internal/api"
)

func persistentVolume() *api.Kind {
	return &api.Kind{
		Name: "PersistentVolume", Resource: "persistentvolumes", Singular: "persistentvolume",
		ShortNames: []string{"pv"},
		Versions: []api.Version{{
			GroupVersion: corev1.SchemeGroupVersion,
			New:          api.New[corev1.PersistentVolume], NewList: api.NewList[corev1.PersistentVolumeList],
		}},
		Storage: corev1.SchemeGroupVersion,
		Prefix:  "/registry/persistentvolumes",
		New:     api.New[corev1.PersistentVolume], NewList: api.NewList[corev1.PersistentVolumeList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
