// SPDX-License-Identifier: Apache-2.0

// Package policy is the group policy as data: PodDisruptionBudget.
// Package catalog lists its kinds; it never reads the state of a cluster.
package policy

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		podDisruptionBudget(),
	}
}
