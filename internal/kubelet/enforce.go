// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"kaji/internal/kubelet/cgroup"
	"kaji/internal/kubelet/evict"
	"kaji/internal/kubelet/node"
	"kaji/internal/kubelet/podspec"
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
	for size, bytes := range cfg.Machine.HugePages {
		out[corev1.ResourceName(corev1.ResourceHugePagesPrefix+size)] = *resource.NewQuantity(bytes, resource.BinarySI)
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
	all, conflict := evict.Layers(k.cfg.Eviction)
	if conflict {
		k.log.Error("thresholds of containerfs follow those of nodefs or imagefs, those that were given do not count")
	}
	if k.cgroups == nil || k.cfg.Unbound {
		return all
	}
	return evict.Allocatable(all)
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

// shareEvery is how often groups above pods are brought up to date: what pods
// request counts against what others do, which matters when all want more.
const shareEvery = time.Minute

// share weighs the pods that run, as often and as soon as they are others, until
// ctx ends.
func (k *Kubelet) share(ctx context.Context) error {
	if k.cgroups == nil {
		return nil
	}
	tick := time.NewTicker(shareEvery)
	defer tick.Stop()
	for {
		if err := k.cgroups.Share(k.others("")); err != nil {
			k.log.Warn("the groups of pods are not weighed", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.reshare:
		case <-tick.C:
		}
	}
}

// shared has pods weighed anew: one came, went or was resized.
func (k *Kubelet) shared() {
	select {
	case k.reshare <- struct{}{}:
	default:
	}
}

// exclusive says whether a container of a pod has processors for itself.
func (k *Kubelet) exclusive(pod *corev1.Pod) bool {
	for _, c := range podspec.Containers(pod) {
		if len(k.cpus.Exclusive(pod.UID, c.Name)) > 0 {
			return true
		}
	}
	return false
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

// systemUse is what groups besides single pods take, by the names that the
// summary API has for them.
func (k *Kubelet) systemUse() map[string]cgroup.Use {
	tree := k.cgroups
	if tree == nil {
		var err error
		if tree, err = cgroup.Open(cgroup.Config{Root: "/"}); err != nil {
			return nil
		}
	}
	out := map[string]cgroup.Use{}
	add := func(name, cpu, memory string) {
		if cpu == "" || memory == "" {
			return
		}
		u, err := tree.Used(cpu, memory)
		if err != nil {
			k.log.Debug("Failed to get system container stats", "containerName", name, "err", err)
			return
		}
		out[name] = u
	}
	cpu, memory := k.cfg.KubeletCgroup, k.cfg.KubeletCgroup
	if cpu == "" {
		var err error
		if cpu, memory, err = tree.Own(); err != nil {
			k.log.Debug("Failed to find cgroups of kubelet", "err", err)
		}
	}
	add(statsapi.SystemContainerKubelet, cpu, memory)
	add(statsapi.SystemContainerRuntime, k.cfg.RuntimeCgroup, k.cfg.RuntimeCgroup)
	add(statsapi.SystemContainerMisc, k.cfg.SystemCgroup, k.cfg.SystemCgroup)
	if k.cgroups != nil {
		add(statsapi.SystemContainerPods, tree.Pods(), tree.Pods())
	}
	return out
}
