// SPDX-License-Identifier: Apache-2.0

package storagemigration

import (
	storagemigrationv1 "k8s.io/api/storagemigration/v1"

	"kaji/internal/api"
)

func storageVersionMigration() *api.Kind {
	return &api.Kind{
		Group: storagemigrationv1.GroupName, Name: "StorageVersionMigration", Resource: "storageversionmigrations", Singular: "storageversionmigration",
		Versions: []api.Version{{
			GroupVersion: storagemigrationv1.SchemeGroupVersion,
			New:          api.New[storagemigrationv1.StorageVersionMigration], NewList: api.NewList[storagemigrationv1.StorageVersionMigrationList],
		}},
		Storage: storagemigrationv1.SchemeGroupVersion,
		Prefix:  "/registry/storageversionmigrations",
		New:     api.New[storagemigrationv1.StorageVersionMigration], NewList: api.NewList[storagemigrationv1.StorageVersionMigrationList],
		Status: &api.Subresource{Name: "status"},
	}
}
