// SPDX-License-Identifier: Apache-2.0

// Package discovery is the group discovery.k8s.io as data: EndpointSlice.
// Package catalog lists its kinds; it never reads the state of a cluster.
package discovery

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		endpointSlice(),
	}
}
