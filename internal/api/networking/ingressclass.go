// SPDX-License-Identifier: Apache-2.0

package networking

import (
	networkingv1 "k8s.io/api/networking/v1"

	"kaji/internal/api"
)

func ingressClass() *api.Kind {
	return &api.Kind{
		Group: networkingv1.GroupName, Name: "IngressClass", Resource: "ingressclasses", Singular: "ingressclass",
		Versions: []api.Version{{
			GroupVersion: networkingv1.SchemeGroupVersion,
			New:          api.New[networkingv1.IngressClass], NewList: api.NewList[networkingv1.IngressClassList],
		}},
		Storage: networkingv1.SchemeGroupVersion,
		Prefix:  "/registry/ingressclasses",
		New:     api.New[networkingv1.IngressClass], NewList: api.NewList[networkingv1.IngressClassList],
		AllowUnconditionalUpdate: true,
	}
}
