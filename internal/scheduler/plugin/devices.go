// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"

	"kaji/internal/client"
	"kaji/internal/scheduler/snapshot"
)

// Device classes may stand for extended resources (KEP-5004): a pod that
// requests one of those gets devices of the class on nodes that have no such
// resource of their own.

// MayBeDevice says whether a resource's name is one that a device class can
// stand for.
func MayBeDevice(name corev1.ResourceName) bool {
	s := string(name)
	if strings.HasPrefix(s, resourcev1.ResourceDeviceClassPrefix) {
		return true
	}
	return strings.Contains(s, "/") && !strings.Contains(s, corev1.ResourceDefaultNamespacePrefix) &&
		!strings.HasPrefix(s, corev1.DefaultResourceRequestsPrefix)
}

// DeviceClassOf returns the class that stands for an extended resource, nil for
// none. Of several that name the same resource it is the newest; among equals
// that with the lower name.
func DeviceClassOf(classes client.Typed[*resourcev1.DeviceClass], name corev1.ResourceName) *resourcev1.DeviceClass {
	if !MayBeDevice(name) {
		return nil
	}
	if own, ok := strings.CutPrefix(string(name), resourcev1.ResourceDeviceClassPrefix); ok {
		if c, err := classes.Cached("", own); err == nil {
			return c
		}
		return nil
	}
	var best *resourcev1.DeviceClass
	for _, c := range classes.CachedList("", nil) {
		if c.Spec.ExtendedResourceName == nil || *c.Spec.ExtendedResourceName != string(name) {
			continue
		}
		if best == nil || best.CreationTimestamp.Before(&c.CreationTimestamp) ||
			best.CreationTimestamp.Equal(&c.CreationTimestamp) && c.Name < best.Name {
			best = c
		}
	}
	return best
}

// RequestsDevices says whether a class stands for any resource of the pod.
func RequestsDevices(s *snapshot.Snapshot, p *snapshot.Pod, classes client.Typed[*resourcev1.DeviceClass]) bool {
	for id, amount := range p.Requests.Scalars {
		if amount != 0 && DeviceClassOf(classes, s.ScalarName(id)) != nil {
			return true
		}
	}
	return false
}
