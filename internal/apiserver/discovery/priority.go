// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
)

// groupPriority is where a built-in group stands among the groups, the highest
// first; kubectl takes the first group that has a resource of a name.
func groupPriority(group string) int32 {
	switch group {
	case "":
		return 18000
	case "apps":
		return 17800
	case "events.k8s.io":
		return 17750
	case "authentication.k8s.io":
		return 17700
	case "authorization.k8s.io":
		return 17600
	case "autoscaling":
		return 17500
	case "batch":
		return 17400
	case "certificates.k8s.io":
		return 17300
	case "networking.k8s.io":
		return 17200
	case "extensions": // what took the place of its kinds comes first
		return 17150
	case "policy":
		return 17100
	case "rbac.authorization.k8s.io":
		return 17000
	case "storage.k8s.io":
		return 16800
	case "admissionregistration.k8s.io", "apiextensions.k8s.io":
		return 16700
	case "scheduling.k8s.io":
		return 16600
	case "coordination.k8s.io":
		return 16500
	case "node.k8s.io":
		return 16300
	case "discovery.k8s.io", "resource.k8s.io":
		return 16200
	case "flowcontrol.apiserver.k8s.io":
		return 16100
	case "internal.apiserver.k8s.io":
		return 16000
	case "storagemigration.k8s.io":
		return 15800
	case "metrics.k8s.io":
		return 100
	case "apiregistration.k8s.io":
		return 20000
	}
	return CustomGroupPriority
}

// The priorities of the groups and versions of custom resources.
const (
	CustomGroupPriority   = 1000
	CustomVersionPriority = 100
)

// Priority returns the place of a version served by this server: that of its
// group among the groups and its own in the group, both the highest first.
func Priority(gv schema.GroupVersion) (group, own int32) {
	group = groupPriority(gv.Group)
	switch {
	case group == CustomGroupPriority:
		return group, CustomVersionPriority
	case gv.Group == "":
		return group, 1
	case gv.Group == "metrics.k8s.io":
		return group, 100
	case gv == schema.GroupVersion{Group: "autoscaling", Version: "v2"}:
		return group, 30
	case gv.Version == "v1" && (gv.Group == "flowcontrol.apiserver.k8s.io" || gv.Group == "resource.k8s.io"):
		return group, 21
	case gv.Version == "v1":
		return group, 15
	}
	return group, 9
}

// compareVersions orders versions by stability and number: v2, v1, v1beta1.
func compareVersions(a, b string) int { return version.CompareKubeAwareVersionStrings(a, b) }
