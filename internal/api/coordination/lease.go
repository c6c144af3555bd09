// SPDX-License-Identifier: Apache-2.0

package coordination

import (
	coordinationv1 "k8s.io/api/coordination/v1"

	"kaji/internal/api"
)

func lease() *api.Kind {
	return &api.Kind{
		Group: coordinationv1.GroupName, Name: "Lease", Resource: "leases", Singular: "lease",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: coordinationv1.SchemeGroupVersion,
			New:          api.New[coordinationv1.Lease], NewList: api.NewList[coordinationv1.LeaseList],
		}},
		Storage: coordinationv1.SchemeGroupVersion,
		Prefix:  "/registry/leases",
		New:     api.New[coordinationv1.Lease], NewList: api.NewList[coordinationv1.LeaseList],
		AllowCreateOnUpdate: true,
	}
}
