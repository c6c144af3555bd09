// SPDX-License-Identifier: Apache-2.0

package resource

import (
	resourcev1 "k8s.io/api/resource/v1"

	"kaji/internal/api"
)

func resourceClaimTemplate() *api.Kind {
	return &api.Kind{
		Group: resourcev1.GroupName, Name: "ResourceClaimTemplate", Resource: "resourceclaimtemplates", Singular: "resourceclaimtemplate",
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: resourcev1.SchemeGroupVersion,
			New:          api.New[resourcev1.ResourceClaimTemplate], NewList: api.NewList[resourcev1.ResourceClaimTemplateList],
		}},
		Storage: resourcev1.SchemeGroupVersion,
		Prefix:  "/registry/resourceclaimtemplates",
		New:     api.New[resourcev1.ResourceClaimTemplate], NewList: api.NewList[resourcev1.ResourceClaimTemplateList],
		AllowUnconditionalUpdate: true,
	}
}
