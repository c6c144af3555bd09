// SPDX-License-Identifier: Apache-2.0

package dynamicresources

import (
	resourcev1 "k8s.io/api/resource/v1"
)

// tainted returns the slices with the taints that rules put on their devices
// (KEP-5055). Slices without such devices are returned as they are.
func tainted(list []*resourcev1.ResourceSlice, rules []*resourcev1.DeviceTaintRule) []*resourcev1.ResourceSlice {
	if len(rules) == 0 {
		return list
	}
	out := make([]*resourcev1.ResourceSlice, 0, len(list))
	for _, s := range list {
		changed := s
		for _, rule := range rules {
			for i := range s.Spec.Devices {
				if !applies(rule.Spec.DeviceSelector, s, s.Spec.Devices[i].Name) {
					continue
				}
				if changed == s {
					changed = s.DeepCopy()
				}
				d := &changed.Spec.Devices[i]
				d.Taints = append(d.Taints, rule.Spec.Taint)
			}
		}
		out = append(out, changed)
	}
	return out
}

// applies says whether a selector means a device. None means no device, an
// empty one all.
func applies(sel *resourcev1.DeviceTaintSelector, s *resourcev1.ResourceSlice, device string) bool {
	if sel == nil {
		return false
	}
	is := func(want *string, have string) bool { return want == nil || *want == have }
	return is(sel.Driver, s.Spec.Driver) && is(sel.Pool, s.Spec.Pool.Name) && is(sel.Device, device)
}
