// SPDX-License-Identifier: Apache-2.0

package flowcontrol

import (
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"kaji/internal/api"
)

func flowSchema() *api.Kind {
	return &api.Kind{
		Group: flowcontrolv1.GroupName, Name: "FlowSchema", Resource: "flowschemas", Singular: "flowschema",
		Versions: []api.Version{{
			GroupVersion: flowcontrolv1.SchemeGroupVersion,
			New:          api.New[flowcontrolv1.FlowSchema], NewList: api.NewList[flowcontrolv1.FlowSchemaList],
		}},
		Storage: flowcontrolv1.SchemeGroupVersion,
		Prefix:  "/registry/flowschemas",
		New:     api.New[flowcontrolv1.FlowSchema], NewList: api.NewList[flowcontrolv1.FlowSchemaList],
		Status: &api.Subresource{Name: "status"},
	}
}
