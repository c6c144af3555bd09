// SPDX-License-Identifier: Apache-2.0

package devicetainteviction

import (
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
)

// ending is when a pod must go, and for which rules, if not for a driver's taints.
type ending struct {
	when  time.Time
	rules map[*resourcev1.DeviceTaintRule]bool
}

// tainted says whether a slice has a device that pods must leave.
func tainted(slice *resourcev1.ResourceSlice) bool {
	for i := range slice.Spec.Devices {
		for _, t := range slice.Spec.Devices[i].Taints {
			if t.Effect == resourcev1.DeviceTaintEffectNoExecute {
				return true
			}
		}
	}
	return false
}

// evicting are the rules that end pods.
func (c *Controller) evicting() (out []*resourcev1.DeviceTaintRule) {
	for _, rule := range c.rules.CachedList("", nil) {
		if rule.Spec.Taint.Effect == resourcev1.DeviceTaintEffectNoExecute {
			out = append(out, rule)
		}
	}
	return out
}

// endOf returns when a pod must go for its devices' taints, nil if it may stay.
func (c *Controller) endOf(pod *corev1.Pod, rules []*resourcev1.DeviceTaintRule) *ending {
	if pod.Spec.NodeName == "" {
		return nil
	}
	var end *ending
	for name, owned := range resourceclaim.PodClaims(pod) {
		claim, err := c.claims.Cached(pod.Namespace, name)
		if err != nil || claim.Status.Allocation == nil || owned && resourceclaim.IsForPod(pod, claim, false) != nil || !resourceclaim.IsReservedForPod(pod, claim, false) {
			continue
		}
		results := claim.Status.Allocation.Devices.Results
		for i := range results {
			end = c.endOn(&results[i], rules, end)
		}
	}
	return end
}

// endOn adds what one device's taints come to.
func (c *Controller) endOn(device *resourcev1.DeviceRequestAllocationResult, rules []*resourcev1.DeviceTaintRule, end *ending) *ending {
	add := func(taint *resourcev1.DeviceTaint, rule *resourcev1.DeviceTaintRule) {
		stay, ends := patience(device.Tolerations, taint)
		if !ends {
			return
		}
		var when time.Time
		if taint.TimeAdded != nil {
			when = taint.TimeAdded.Add(stay)
		}
		if end == nil {
			end = &ending{when: when, rules: map[*resourcev1.DeviceTaintRule]bool{}}
		}
		if when.Before(end.when) {
			end.when = when
		}
		if rule != nil {
			end.rules[rule] = true
		}
	}
	for _, t := range c.taintsOf(device) {
		if t.Effect == resourcev1.DeviceTaintEffectNoExecute {
			add(&t, nil)
		}
	}
	for _, rule := range rules {
		if selects(rule, device.Driver, device.Pool, device.Device) {
			t := rule.Spec.Taint
			add(&resourcev1.DeviceTaint{Key: t.Key, Value: t.Value, Effect: resourcev1.DeviceTaintEffectNoExecute, TimeAdded: t.TimeAdded}, rule)
		}
	}
	return end
}

// taintsOf are a device's taints by its driver, in the pool's newest generation.
func (c *Controller) taintsOf(device *resourcev1.DeviceRequestAllocationResult) []resourcev1.DeviceTaint {
	for _, slice := range c.current(device.Driver + "/" + device.Pool) {
		for i := range slice.Spec.Devices {
			if slice.Spec.Devices[i].Name == device.Device {
				return slice.Spec.Devices[i].Taints
			}
		}
	}
	return nil
}

// current are the slices of a pool's newest generation; the others are about to
// be removed by the driver.
func (c *Controller) current(pool string) (out []*resourcev1.ResourceSlice) {
	newest := int64(math.MinInt64)
	for _, slice := range c.slices.ByIndex(byPool, pool) {
		switch generation := slice.Spec.Pool.Generation; {
		case generation > newest:
			newest, out = generation, []*resourcev1.ResourceSlice{slice}
		case generation == newest:
			out = append(out, slice)
		}
	}
	return out
}

// patience is how long a taint is tolerated; ends is false if for ever.
func patience(tolerations []resourcev1.DeviceToleration, taint *resourcev1.DeviceTaint) (stay time.Duration, ends bool) {
	found := false
	for i := range tolerations {
		t := &tolerations[i]
		if t.Effect != resourcev1.DeviceTaintEffectNoExecute || !resourceclaim.ToleratesTaint(*t, *taint) {
			continue
		}
		if t.TolerationSeconds == nil {
			return 0, false
		}
		if each := time.Duration(min(max(0, *t.TolerationSeconds), math.MaxInt32)) * time.Second; !found || each < stay {
			stay, found = each, true
		}
	}
	return stay, true
}

// selects says whether a rule taints a device.
func selects(rule *resourcev1.DeviceTaintRule, driver, pool, device string) bool {
	s := rule.Spec.DeviceSelector
	return s != nil && (s.Driver == nil || *s.Driver == driver) && (s.Pool == nil || *s.Pool == pool) && (s.Device == nil || *s.Device == device)
}
