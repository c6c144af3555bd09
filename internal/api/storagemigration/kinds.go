// SPDX-License-Identifier: Apache-2.0

// Package storagemigration is the group storagemigration.k8s.io as data: StorageVersionMigration.
// Package catalog lists its kinds; it never reads the state of a cluster.
package storagemigration

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		storageVersionMigration(),
	}
}
