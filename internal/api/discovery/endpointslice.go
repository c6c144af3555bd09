// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	discoveryv1 "k8s.io/api/discovery/v1"

	"kaji/internal/api"
)

func endpointSlice() *api.Kind {
	return &api.Kind{
		Group: discoveryv1.GroupName, Name: "EndpointSlice", Resource: "endpointslices", Singular: "endpointslice",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: discoveryv1.SchemeGroupVersion,
			New:          api.New[discoveryv1.EndpointSlice], NewList: api.NewList[discoveryv1.EndpointSliceList],
		}},
		Storage: discoveryv1.SchemeGroupVersion,
		Prefix:  "/registry/endpointslices",
		New:     api.New[discoveryv1.EndpointSlice], NewList: api.NewList[discoveryv1.EndpointSliceList],
		AllowUnconditionalUpdate: true,
		AllowCreateOnUpdate:      true,
	}
}
