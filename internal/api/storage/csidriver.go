// SPDX-License-Identifier: Apache-2.0

package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"kaji/internal/api"
)

func csiDriver() *api.Kind {
	return &api.Kind{
		Group: storagev1.GroupName, Name: "CSIDriver", Resource: "csidrivers", Singular: "csidriver",
		Versions: []api.Version{{
			GroupVersion: storagev1.SchemeGroupVersion,
			New:          api.New[storagev1.CSIDriver], NewList: api.NewList[storagev1.CSIDriverList],
		}},
		Storage: storagev1.SchemeGroupVersion,
		Prefix:  "/registry/csidrivers",
		New:     api.New[storagev1.CSIDriver], NewList: api.NewList[storagev1.CSIDriverList],
	}
}
