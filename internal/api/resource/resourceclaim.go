// SPDX-License-Identifier: Apache-2.0

package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"kaji/internal/api"
)

func resourceClaim() *api.Kind {
	return &api.Kind{
		Group: resourcev1.GroupName, Name: "ResourceClaim", Resource: "resourceclaims", Singular: "resourceclaim",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: resourcev1.SchemeGroupVersion,
			New:          api.New[resourcev1.ResourceClaim], NewList: api.NewList[resourcev1.ResourceClaimList],
		}},
		Storage: resourcev1.SchemeGroupVersion,
		Prefix:  "/registry/resourceclaims",
		New:     api.New[resourcev1.ResourceClaim], NewList: api.NewList[resourcev1.ResourceClaimList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
