// SPDX-License-Identifier: Apache-2.0

// Package authorization is the group authorization.k8s.io as data: the access reviews, which are created and never stored.
// Package catalog lists its kinds; it never reads the state of a cluster.
package authorization

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		subjectAccessReview(),
		localSubjectAccessReview(),
		selfSubjectAccessReview(),
		selfSubjectRulesReview(),
	}
}
