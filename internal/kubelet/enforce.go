// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"kaji/internal/kubelet/cgroup"
	"kaji/internal/kubelet/evict"
	"kaji/internal/kubelet/node"
	"kaji/internal/kubelet/stats"
)

// again is how long groups that the kernel would not bound are not tried.
const again = time.Minute

// Reservation is a control group outside of pods that the node agent limits.
type Reservation struct {
	// Kind is "system" or "kube".
	Kind string
	// Group is the control group's name as the configuration has it.
	Group string
	// Resources are CPU, memory and processes ("pid"); Compressible says that of
	// them CPU alone counts.
	Resources    corev1.ResourceList
	Compressible bool
}

// reserved is what pods may not have of the node: what the configuration says,
// and what would be too little to leave.
func reserved(cfg Config) corev1.ResourceList {
	out := corev1.ResourceList{}
	maps.Copy(out, cfg.Reserved)
	add := func(name corev1.ResourceName, bytes uint64) {
		total := out[name]
		total.Add(*resource.NewQuantity(int64(bytes), resource.BinarySI)) //nolint:gosec // less than the machine has
		out[name] = total
	}
	for _, t := range cfg.Eviction {
		switch {
		case t.Grace > 0:
		case t.Signal == evict.MemoryAvailable:
			add(corev1.ResourceMemory, t.Value(uint64(cfg.Machine.Memory))) //nolint:gosec // not negative
		case t.Signal == evict.NodeFsAvailable:
			add(corev1.ResourceEphemeralStorage, t.Value(uint64(cfg.Machine.Disk))) //nolint:gosec // not negative
		}
	}
	return out
}

// bound is what the kernel lets all pods together have: what the machine has
// without what is reserved. Thresholds of evictions do not count: there has to be
// room to notice.
func bound(cfg Config) corev1.ResourceList {
	processes, _ := stats.Processes()
	out := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(cfg.Machine.MilliCPU, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(cfg.Machine.Memory, resource.BinarySI),
		cgroup.PIDs:           *resource.NewQuantity(processes, resource.DecimalSI),
	}
	if cfg.Unbound {
		return out
	}
	for name, have := range out {
		have.Sub(cfg.Reserved[name])
		out[name] = have
		if have.Sign() < 0 {
			out[name] = resource.Quantity{}
		}
	}
	return out
}

// thresholds are those of evictions.
func (k *Kubelet) thresholds() []evict.Threshold {
	if k.cgroups == nil || k.cfg.Unbound {
		return k.cfg.Eviction
	}
	return evict.Allocatable(k.cfg.Eviction)
}

// enforce limits pods as a whole, and what is reserved for others. That pods are
// not limited is told (see notices) and tried again (see bound): they may have to
// be evicted first.
func (k *Kubelet) enforce() error {
	if err := k.cgroups.Bound(); err != nil {
		k.unbound = fmt.Errorf("Failed to update Node Allocatable Limits %q: %w", k.cgroups.Top(), err) //nolint:staticcheck // an event's message
	}
	for _, r := range k.cfg.Reservations {
		if err := k.cgroups.Reserve(r.Group, r.Resources, r.Compressible); err != nil {
			what := map[string]string{"system": "System", "kube": "Kube"}[r.Kind] + " Reserved"
			if r.Compressible {
				what += " Compressible"
			}
			return fmt.Errorf("Failed to enforce %s Cgroup Limits on %q: %w", what, r.Group, err) //nolint:staticcheck // as upstream says it
		}
	}
	return nil
}

// rebound tries until pods are limited as a whole.
func (k *Kubelet) rebound(ctx context.Context) error {
	for err := k.unbound; err != nil; err = k.cgroups.Bound() {
		k.log.Warn("pods together are not limited, it is tried again", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(again):
		}
	}
	return nil
}

// notices are what administrators are told when the agent starts.
func (k *Kubelet) notices() []node.Notice {
	if k.cgroups == nil {
		return nil
	}
	const reason = "NodeAllocatableEnforced"
	var all []node.Notice
	if !k.cgroups.Unified() {
		all = append(all, node.Notice{Type: corev1.EventTypeWarning, Reason: "CgroupV1",
			Message: "cgroup v1 detected. cgroup v1 support is deprecated and will be removed in a future release. " +
				"Please migrate to cgroup v2. More information at https://git.k8s.io/enhancements/keps/sig-node/5573-remove-cgroup-v1"})
	}
	if k.unbound != nil {
		all = append(all, node.Notice{Type: corev1.EventTypeWarning, Reason: "FailedNodeAllocatableEnforcement", Message: k.unbound.Error()})
	} else {
		all = append(all, node.Notice{Type: corev1.EventTypeNormal, Reason: reason, Message: "Updated Node Allocatable limit across pods"})
	}
	for _, r := range k.cfg.Reservations {
		all = append(all, node.Notice{Type: corev1.EventTypeNormal, Reason: reason, Message: fmt.Sprintf("Updated limits on %s reserved cgroup %v", r.Kind, r.Group)})
	}
	return all
}
