// SPDX-License-Identifier: Apache-2.0

// Package rbac is the group rbac.authorization.k8s.io as data: roles and their bindings.
// Package catalog lists its kinds; it never reads the state of a cluster.
package rbac

import "kaji/internal/api"

// Kinds returns the kinds of the group, new at every call.
func Kinds() []*api.Kind {
	return []*api.Kind{
		role(),
		roleBinding(),
		clusterRole(),
		clusterRoleBinding(),
	}
}
