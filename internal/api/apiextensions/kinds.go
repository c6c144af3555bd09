// SPDX-License-Identifier: Apache-2.0

// Package apiextensions is the group apiextensions.k8s.io as data: CustomResourceDefinition.
// Package catalog lists its kinds; it never reads the state of a cluster.
package apiextensions

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		customResourceDefinition(),
	}
}
