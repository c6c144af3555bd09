// SPDX-License-Identifier: Apache-2.0

package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"kaji/internal/api"
)

func volumeAttributesClass() *api.Kind {
	return &api.Kind{
		Group: storagev1.GroupName, Name: "VolumeAttributesClass", Resource: "volumeattributesclasses", Singular: "volumeattributesclass",
		ShortNames: []string{"vac"},
		Versions: []api.Version{{
			GroupVersion: storagev1.SchemeGroupVersion,
			New:          api.New[storagev1.VolumeAttributesClass], NewList: api.NewList[storagev1.VolumeAttributesClassList],
		}},
		Storage: storagev1.SchemeGroupVersion,
		Prefix:  "/registry/volumeattributesclasses",
		New:     api.New[storagev1.VolumeAttributesClass], NewList: api.NewList[storagev1.VolumeAttributesClassList],
		AllowUnconditionalUpdate: true,
	}
}
