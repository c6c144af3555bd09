// SPDX-License-Identifier: Apache-2.0

package networking

import (
	networkingv1 "k8s.io/api/networking/v1"

	"kaji/internal/api"
)

func networkPolicy() *api.Kind {
	return &api.Kind{
		Group: networkingv1.GroupName, Name: "NetworkPolicy", Resource: "networkpolicies", Singular: "networkpolicy",
		ShortNames: []string{"netpol"},
		Namespaced: true,
		Versions: []api.Version{{
			GroupVersion: networkingv1.SchemeGroupVersion,
			New:          api.New[networkingv1.NetworkPolicy], NewList: api.NewList[networkingv1.NetworkPolicyList],
		}},
		Storage: networkingv1.SchemeGroupVersion,
		Prefix:  "/registry/networkpolicies",
		New:     api.New[networkingv1.NetworkPolicy], NewList: api.NewList[networkingv1.NetworkPolicyList],
		AllowUnconditionalUpdate: true,
	}
}
