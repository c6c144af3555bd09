// SPDX-License-Identifier: Apache-2.0

package node

import (
	nodev1 "k8s.io/api/node/v1"

	"kaji/internal/api"
)

func runtimeClass() *api.Kind {
	return &api.Kind{
		Group: nodev1.GroupName, Name: "RuntimeClass", Resource: "runtimeclasses", Singular: "runtimeclass",
		Versions: []api.Version{{
			GroupVersion: nodev1.SchemeGroupVersion,
			New:          api.New[nodev1.RuntimeClass], NewList: api.NewList[nodev1.RuntimeClassList],
		}},
		Storage: nodev1.SchemeGroupVersion,
		Prefix:  "/registry/runtimeclasses",
		New:     api.New[nodev1.RuntimeClass], NewList: api.NewList[nodev1.RuntimeClassList],
	}
}
