// SPDX-License-Identifier: Apache-2.0

package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"kaji/internal/api"
)

func csiNode() *api.Kind {
	return &api.Kind{
		Group: storagev1.GroupName, Name: "CSINode", Resource: "csinodes", Singular: "csinode",
		Versions: []api.Version{{
			GroupVersion: storagev1.SchemeGroupVersion,
			New:          api.New[storagev1.CSINode], NewList: api.NewList[storagev1.CSINodeList],
		}},
		Storage: storagev1.SchemeGroupVersion,
		Prefix:  "/registry/csinodes",
		New:     api.New[storagev1.CSINode], NewList: api.NewList[storagev1.CSINodeList],
		Status: &api.Subresource{Name: "status"},
	}
}
