// SPDX-License-Identifier: Apache-2.0

// Package apiregistration is the group apiregistration.k8s.io as data: APIService.
// Package catalog lists its kinds; it never reads the state of a cluster.
package apiregistration

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		apiService(),
	}
}
