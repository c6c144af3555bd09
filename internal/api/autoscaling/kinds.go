// SPDX-License-Identifier: Apache-2.0

// Package autoscaling is the group autoscaling as data: HorizontalPodAutoscaler in
// versions 1 and 2, and in 2beta1, which was removed.
// Package catalog lists its kinds; it never reads the state of a cluster.
package autoscaling

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		horizontalPodAutoscaler(),
	}
}
