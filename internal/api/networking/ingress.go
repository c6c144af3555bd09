// SPDX-License-Identifier: Apache-2.0

package networking

import (
	networkingv1 "k8s.io/api/networking/v1"

	"kaji/internal/api"
)

func ingress() *api.Kind {
	return &api.Kind{
		Group: networkingv1.GroupName, Name: "Ingress", Resource: "ingresses", Singular: "ingress",
		ShortNames: []string{"ing"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: networkingv1.SchemeGroupVersion,
			New:          api.New[networkingv1.Ingress], NewList: api.NewList[networkingv1.IngressList],
		}},
		Storage: networkingv1.SchemeGroupVersion,
		Prefix:  "/registry/ingress",
		New:     api.New[networkingv1.Ingress], NewList: api.NewList[networkingv1.IngressList],
		AllowUnconditionalUpdate: true,
		Status:                   &api.Subresource{Name: "status"},
	}
}
