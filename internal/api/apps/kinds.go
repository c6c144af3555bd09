// SPDX-License-Identifier: Apache-2.0

// Package apps is the group apps as data: the workload controllers: Deployment, ReplicaSet, StatefulSet, DaemonSet and ControllerRevision.
// Package catalog lists its kinds; it never reads the state of a cluster.
package apps

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		deployment(),
		replicaSet(),
		statefulSet(),
		daemonSet(),
		controllerRevision(),
	}
}
