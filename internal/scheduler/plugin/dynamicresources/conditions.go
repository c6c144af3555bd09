// SPDX-License-Identifier: Apache-2.0

package dynamicresources

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"kaji/internal/scheduler/plugin"
)

// Some devices must be attached to the node after they were allocated. Their
// drivers name conditions of the claim's device status that must be true before
// the pod is bound, and those that say that it failed (KEP-5007).

var (
	errBindingTimeout = errors.New("device binding timeout")
	errBindingFailed  = errors.New("device binding failed")
)

// conditionsEvery is how often a waiting pod's claims are looked at.
const conditionsEvery = 5 * time.Second

// conditional says whether any device of the claim has binding conditions.
func conditional(claim *resourcev1.ResourceClaim) bool {
	if claim.Status.Allocation == nil {
		return false
	}
	for i := range claim.Status.Allocation.Devices.Results {
		if len(claim.Status.Allocation.Devices.Results[i].BindingConditions) > 0 {
			return true
		}
	}
	return false
}

// attached says whether all binding conditions of a claim are true; the error
// is that one of its devices failed.
func attached(claim *resourcev1.ResourceClaim) (bool, error) {
	if claim.Status.Allocation == nil {
		return false, nil
	}
	for i := range claim.Status.Allocation.Devices.Results {
		r := &claim.Status.Allocation.Devices.Results[i]
		if len(r.BindingConditions) == 0 {
			continue
		}
		conditions, known := deviceConditions(claim, r)
		if !known {
			return false, nil
		}
		for _, name := range r.BindingFailureConditions {
			if c := meta.FindStatusCondition(conditions, name); c != nil && c.Status == metav1.ConditionTrue {
				return false, fmt.Errorf("%w: claim=%s, reason=%s, message=%q", errBindingFailed, claim.Name, c.Reason, c.Message)
			}
		}
		for _, name := range r.BindingConditions {
			if !meta.IsStatusConditionTrue(conditions, name) {
				return false, nil
			}
		}
	}
	return true, nil
}

func deviceConditions(claim *resourcev1.ResourceClaim, r *resourcev1.DeviceRequestAllocationResult) ([]metav1.Condition, bool) {
	for i := range claim.Status.Devices {
		if d := &claim.Status.Devices[i]; d.Driver == r.Driver && d.Pool == r.Pool && d.Device == r.Device {
			return d.Conditions, true
		}
	}
	return nil, false
}

// overdue says whether a claim has waited longer than it may.
func (p *Plugin) overdue(claim *resourcev1.ResourceClaim) bool {
	return conditional(claim) && claim.Status.Allocation.AllocationTimestamp != nil &&
		time.Since(claim.Status.Allocation.AllocationTimestamp.Time) > p.bindingTimeout
}

// lost says whether an allocation must be given up: its devices failed, or
// were not attached in time.
func (p *Plugin) lost(claim *resourcev1.ResourceClaim) bool {
	if !conditional(claim) {
		return false
	}
	ready, err := attached(claim)
	return err != nil || !ready && p.overdue(claim)
}

// await waits beside the loop until the devices of the claims are attached. An
// error ends the attempt; the next one finds out that the claims are lost.
func (p *Plugin) await(ctx context.Context, pod *corev1.Pod, claims []*resourcev1.ResourceClaim, nodeName string) *plugin.Status {
	var waiting []*resourcev1.ResourceClaim
	for _, claim := range claims {
		if conditional(claim) {
			waiting = append(waiting, claim)
		}
	}
	if len(waiting) == 0 {
		return nil
	}
	p.h.Event(pod, nil, corev1.EventTypeNormal, "BindingConditionsPending", "Scheduling",
		"waiting for binding conditions for device on node "+nodeName)
	err := wait.PollUntilContextTimeout(ctx, conditionsEvery, p.bindingTimeout, true, func(context.Context) (bool, error) {
		return p.allAttached(waiting)
	})
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", errBindingTimeout, err)
	}
	return plugin.AsStatus(Name, err)
}

func (p *Plugin) allAttached(claims []*resourcev1.ResourceClaim) (bool, error) {
	for _, claim := range claims {
		now, err := p.claims.Cached(claim.Namespace, claim.Name)
		if err != nil {
			return false, err
		}
		ready, err := attached(now)
		if err != nil {
			return false, err
		}
		if !ready {
			if p.overdue(now) {
				return false, fmt.Errorf("%w: claim=%s", errBindingTimeout, now.Name)
			}
			return false, nil
		}
	}
	return true, nil
}
