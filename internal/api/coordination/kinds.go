// SPDX-License-Identifier: Apache-2.0

// Package coordination is the group coordination.k8s.io as data: Lease.
// Package catalog lists its kinds; it never reads the state of a cluster.
package coordination

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		lease(),
	}
}
