// SPDX-License-Identifier: Apache-2.0

// Package batch is the group batch as data: Job and CronJob.
// Package catalog lists its kinds; it never reads the state of a cluster.
package batch

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		job(),
		cronJob(),
	}
}
