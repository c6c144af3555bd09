// SPDX-License-Identifier: Apache-2.0

// Package storage is the group storage.k8s.io as data: storage classes, attachments and what CSI drivers publish.
// Package catalog lists its kinds; it never reads the state of a cluster.
package storage

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		storageClass(),
		volumeAttachment(),
		csiDriver(),
		csiNode(),
		csiStorageCapacity(),
		volumeAttributesClass(),
	}
}
