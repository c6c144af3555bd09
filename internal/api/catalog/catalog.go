// SPDX-License-Identifier: Apache-2.0

// Package catalog lists every built-in kind, as literals of the group packages.
// The API server serves what stands here, plus what definitions of custom
// resources add at run time.
package catalog

import (
	"slices"

	"kaji/internal/api"
	"kaji/internal/api/admissionregistration"
	"kaji/internal/api/apiextensions"
	"kaji/internal/api/apiregistration"
	"kaji/internal/api/apps"
	"kaji/internal/api/authentication"
	"kaji/internal/api/authorization"
	"kaji/internal/api/autoscaling"
	"kaji/internal/api/batch"
	"kaji/internal/api/certificates"
	"kaji/internal/api/coordination"
	"kaji/internal/api/core"
	"kaji/internal/api/discovery"
	"kaji/internal/api/flowcontrol"
	"kaji/internal/api/legacy"
	"kaji/internal/api/networking"
	"kaji/internal/api/node"
	"kaji/internal/api/policy"
	"kaji/internal/api/rbac"
	"kaji/internal/api/resource"
	"kaji/internal/api/scheduling"
	"kaji/internal/api/storage"
	"kaji/internal/api/storagemigration"
)

// All returns every built-in kind, new at every call, so that a caller may own
// the result.
func All() []*api.Kind {
	return legacy.Add(slices.Concat(
		admissionregistration.Kinds(),
		apiextensions.Kinds(),
		apiregistration.Kinds(),
		apps.Kinds(),
		authentication.Kinds(),
		authorization.Kinds(),
		autoscaling.Kinds(),
		batch.Kinds(),
		certificates.Kinds(),
		coordination.Kinds(),
		core.Kinds(),
		discovery.Kinds(),
		flowcontrol.Kinds(),
		networking.Kinds(),
		node.Kinds(),
		policy.Kinds(),
		rbac.Kinds(),
		resource.Kinds(),
		scheduling.Kinds(),
		storage.Kinds(),
		storagemigration.Kinds(),
	))
}

// Current is All without what is served only when it is asked for.
func Current() []*api.Kind {
	var current []*api.Kind
	for _, kind := range All() {
		kind.Versions = slices.DeleteFunc(kind.Versions, func(v api.Version) bool { return v.OptIn })
		if len(kind.Versions) > 0 {
			current = append(current, kind)
		}
	}
	return current
}
