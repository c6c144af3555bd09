// SPDX-License-Identifier: Apache-2.0

package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"kaji/internal/api"
)

func deviceClass() *api.Kind {
	return &api.Kind{
		Group: resourcev1.GroupName, Name: "DeviceClass", Resource: "deviceclasses", Singular: "deviceclass",
		Versions: []api.Version{{
			GroupVersion: resourcev1.SchemeGroupVersion,
			New:          api.New[resourcev1.DeviceClass], NewList: api.NewList[resourcev1.DeviceClassList],
		}},
		Storage: resourcev1.SchemeGroupVersion,
		Prefix:  "/registry/deviceclasses",
		New:     api.New[resourcev1.DeviceClass], NewList: api.NewList[resourcev1.DeviceClassList],
		AllowUnconditionalUpdate: true,
	}
}
