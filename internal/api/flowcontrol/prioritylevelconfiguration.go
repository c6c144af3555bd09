// SPDX-License-Identifier: Apache-2.0

package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"kaji/internal/api"
)

func priorityLevelConfiguration() *api.Kind {
	return &api.Kind{
		Group: flowcontrolv1.GroupName, Name: "PriorityLevelConfiguration", Resource: "prioritylevelconfigurations", Singular: "prioritylevelconfiguration",
		Versions: []api.Version{{
			GroupVersion: flowcontrolv1.SchemeGroupVersion,
			New:          api.New[flowcontrolv1.PriorityLevelConfiguration], NewList: api.NewList[flowcontrolv1.PriorityLevelConfigurationList],
		}},
		Storage: flowcontrolv1.SchemeGroupVersion,
		Prefix:  "/registry/prioritylevelconfigurations",
		New:     api.New[flowcontrolv1.PriorityLevelConfiguration], NewList: api.NewList[flowcontrolv1.PriorityLevelConfigurationList],
		Status: &api.Subresource{Name: "status"},
	}
}
