// SPDX-License-Identifier: Apache-2.0

package networking

import (
	networkingv1 "k8s.io/api/networking/v1"

	"kaji/internal/api"
)

func serviceCIDR() *api.Kind {
	return &api.Kind{
		Group: networkingv1.GroupName, Name: "ServiceCIDR", Resource: "servicecidrs", Singular: "servicecidr",
		Versions: []api.Version{{
			GroupVersion: networkingv1.SchemeGroupVersion,
			New:          api.New[networkingv1.ServiceCIDR], NewList: api.NewList[networkingv1.ServiceCIDRList],
		}},
		Storage: networkingv1.SchemeGroupVersion,
		Prefix:  "/registry/servicecidrs",
		New:     api.New[networkingv1.ServiceCIDR], NewList: api.NewList[networkingv1.ServiceCIDRList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
