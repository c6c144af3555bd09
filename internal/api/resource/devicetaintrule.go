// SPDX-License-Identifier: Apache-2.0

package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"kaji/internal/api"
)

func deviceTaintRule() *api.Kind {
	return &api.Kind{
		Group: resourcev1.GroupName, Name: "DeviceTaintRule", Resource: "devicetaintrules", Singular: "devicetaintrule",
		Versions: []api.Version{{
			GroupVersion: resourcev1.SchemeGroupVersion,
			New:          api.New[resourcev1.DeviceTaintRule], NewList: api.NewList[resourcev1.DeviceTaintRuleList],
		}},
		Storage: resourcev1.SchemeGroupVersion,
		Prefix:  "/registry/devicetaintrules",
		New:     api.New[resourcev1.DeviceTaintRule], NewList: api.NewList[resourcev1.DeviceTaintRuleList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
