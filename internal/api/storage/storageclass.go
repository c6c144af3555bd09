// SPDX-License-Identifier: Apache-2.0

package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"kaji/internal/api"
)

func storageClass() *api.Kind {
	return &api.Kind{
		Group: storagev1.GroupName, Name: "StorageClass", Resource: "storageclasses", Singular: "storageclass",
		ShortNames: []string{"sc"},
		Versions: []api.Version{{
			GroupVersion: storagev1.SchemeGroupVersion,
			New:          api.New[storagev1.StorageClass], NewList: api.NewList[storagev1.StorageClassList],
		}},
		Storage: storagev1.SchemeGroupVersion,
		Prefix:  "/registry/storageclasses",
		New:     api.New[storagev1.StorageClass], NewList: api.NewList[storagev1.StorageClassList],
		AllowUnconditionalUpdate: true,
	}
}
