// SPDX-License-Identifier: Apache-2.0

package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"kaji/internal/api"
)

func resourceSlice() *api.Kind {
	return &api.Kind{
		Group: resourcev1.GroupName, Name: "ResourceSlice", Resource: "resourceslices", Singular: "resourceslice",
		Versions: []api.Version{{
			GroupVersion: resourcev1.SchemeGroupVersion,
			New:          api.New[resourcev1.ResourceSlice], NewList: api.NewList[resourcev1.ResourceSliceList],
		}},
		Storage: resourcev1.SchemeGroupVersion,
		Prefix:  "/registry/resourceslices",
		New:     api.New[resourcev1.ResourceSlice], NewList: api.NewList[resourcev1.ResourceSliceList],
		AllowUnconditionalUpdate: true,
	}
}
