// SPDX-License-Identifier: Apache-2.0

// Package networking is the group networking.k8s.io as data: Ingress, IngressClass, NetworkPolicy, IPAddress and ServiceCIDR.
// Package catalog lists its kinds; it never reads the state of a cluster.
package networking

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		ingress(),
		ingressClass(),
		networkPolicy(),
		ipAddress(),
		serviceCIDR(),
	}
}
