// SPDX-License-Identifier: Apache-2.0

package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"kaji/internal/api"
)

func volumeAttachment() *api.Kind {
	return &api.Kind{
		Group: storagev1.GroupName, Name: "VolumeAttachment", Resource: "volumeattachments", Singular: "volumeattachment",
		Versions: []api.Version{{
			GroupVersion: storagev1.SchemeGroupVersion,
			New:          api.New[storagev1.VolumeAttachment], NewList: api.NewList[storagev1.VolumeAttachmentList],
		}},
		Storage: storagev1.SchemeGroupVersion,
		Prefix:  "/registry/volumeattachments",
		New:     api.New[storagev1.VolumeAttachment], NewList: api.NewList[storagev1.VolumeAttachmentList],
		Status: &api.Subresource{Name: "status"},
	}
}
