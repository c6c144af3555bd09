// SPDX-License-Identifier: Apache-2.0

// Package resource is the group resource.k8s.io as data: dynamic resource allocation: device classes, claims, slices and taint rules.
// Package catalog lists its kinds; it never reads the state of a cluster.
package resource

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		deviceClass(),
		resourceClaim(),
		resourceClaimTemplate(),
		resourceSlice(),
		deviceTaintRule(),
	}
}
