// SPDX-License-Identifier: Apache-2.0

package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"kaji/internal/api"
)

func csiStorageCapacity() *api.Kind {
	return &api.Kind{
		Group: storagev1.GroupName, Name: "CSIStorageCapacity", Resource: "csistoragecapacities", Singular: "csistoragecapacity",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: storagev1.SchemeGroupVersion,
			New:          api.New[storagev1.CSIStorageCapacity], NewList: api.NewList[storagev1.CSIStorageCapacityList],
		}},
		Storage: storagev1.SchemeGroupVersion,
		Prefix:  "/registry/csistoragecapacities",
		New:     api.New[storagev1.CSIStorageCapacity], NewList: api.NewList[storagev1.CSIStorageCapacityList],
	}
}
