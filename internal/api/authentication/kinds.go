// SPDX-License-Identifier: Apache-2.0

// Package authentication is the group authentication.k8s.io as data: the reviews of tokens and of the user himself, which are created and never stored.
// Package catalog lists its kinds; it never reads the state of a cluster.
package authentication

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		tokenReview(),
		selfSubjectReview(),
	}
}
