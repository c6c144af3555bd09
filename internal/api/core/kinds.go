// SPDX-License-Identifier: Apache-2.0

// Package core is the core group as data: the kinds that every cluster is made
// of, from Pod to Event, with their defaults, validation and printers. The rules
// of pod templates and volumes, which other groups need too, are in packages
// podspec and volume. Package catalog lists the kinds; nothing here reads the
// state of a cluster.
package core

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		pod(),
		podTemplate(),
		service(),
		endpoints(),
		node(),
		namespace(),
		configMap(),
		secret(),
		serviceAccount(),
		persistentVolume(),
		persistentVolumeClaim(),
		replicationController(),
		resourceQuota(),
		limitRange(),
		event(),
		componentStatus(),
		binding(),
	}
}
