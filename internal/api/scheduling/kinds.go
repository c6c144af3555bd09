// SPDX-License-Identifier: Apache-2.0

// Package scheduling is the group scheduling.k8s.io as data: PriorityClass.
// Package catalog lists its kinds; it never reads the state of a cluster.
package scheduling

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		priorityClass(),
	}
}
