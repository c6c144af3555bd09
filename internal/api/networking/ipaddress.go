// SPDX-License-Identifier: Apache-2.0

package networking

import (
	networkingv1 "k8s.io/api/networking/v1"

	"kaji/internal/api"
)

func ipAddress() *api.Kind {
	return &api.Kind{
		Group: networkingv1.GroupName, Name: "IPAddress", Resource: "ipaddresses", Singular: "ipaddress",
		ShortNames: []string{"ip"},
		Versions: []api.Version{{
			GroupVersion: networkingv1.SchemeGroupVersion,
			New:          api.New[networkingv1.IPAddress], NewList: api.NewList[networkingv1.IPAddressList],
		}},
		Storage: networkingv1.SchemeGroupVersion,
		Prefix:  "/registry/ipaddresses",
		New:     api.New[networkingv1.IPAddress], NewList: api.NewList[networkingv1.IPAddressList],
		AllowUnconditionalUpdate: true,
	}
}
