// SPDX-License-Identifier: Apache-2.0

// Package flowcontrol is the group flowcontrol.apiserver.k8s.io as data: flow schemas and priority levels.
// Package catalog lists its kinds; it never reads the state of a cluster.
package flowcontrol

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		flowSchema(),
		priorityLevelConfiguration(),
	}
}
