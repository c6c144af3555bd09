// SPDX-License-Identifier: Apache-2.0

// Package node is the group node.k8s.io as data: RuntimeClass.
// Package catalog lists its kinds; it never reads the state of a cluster.
package node

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		runtimeClass(),
	}
}
