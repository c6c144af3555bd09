// SPDX-License-Identifier: Apache-2.0

package podrun

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"kaji/internal/kubelet/cgroup"
	"kaji/internal/kubelet/podspec"
)

// Memory says how this machine's kernel limits memory, and what containers may
// do with swap (KEP-2400).
type Memory struct {
	// Unified says that control groups are those of version 2.
	Unified bool
	// KillOne lets the kernel kill single processes of a container that is out
	// of memory. Version 1 always does; in version 2 the whole container ends.
	KillOne bool
	// Accounted says that swap can be limited.
	Accounted bool
	// Limited lets containers of burstable pods swap, in proportion to what memory
	// they request; it takes version 2. Otherwise no container swaps.
	Limited bool
	// Swap is the machine's, in bytes.
	Swap int64
	// HugePages are the sizes of huge pages that the machine has, as the kernel
	// writes them: "2MB".
	HugePages []string
	// Off leaves requests of memory to scheduling and limits to the kernel's bound;
	// otherwise QoS says how they count, Allocatable what a container without a
	// limit may have, in bytes.
	Off         bool
	QoS         cgroup.MemoryQoS
	Allocatable func() int64
}

// unified sets what only version 2 has a file for.
func (m Memory) unified(linux *runtimeapi.LinuxContainerResources, pod *corev1.Pod, c *corev1.Container) {
	if !m.Unified {
		return
	}
	linux.Unified = map[string]string{}
	if !m.KillOne {
		linux.Unified["memory.oom.group"] = "1"
	}
	if m.Off { // a container that an agent throttled is not any longer
		linux.Unified["memory.high"] = "max"
		return
	}
	m.qos(linux.Unified, pod, c)
}

// qos protects what a container requests, and throttles it before its limit
// (KEP-2570).
func (m Memory) qos(files map[string]string, pod *corev1.Pod, c *corev1.Container) {
	request, limit := c.Resources.Requests.Memory().Value(), c.Resources.Limits.Memory().Value()
	switch {
	case !m.QoS.Reserve || request == 0:
		files["memory.min"], files["memory.low"] = "0", "0"
	case podspec.QOS(pod) == corev1.PodQOSGuaranteed:
		files["memory.min"] = strconv.FormatInt(request, 10)
	default:
		files["memory.low"] = strconv.FormatInt(request, 10)
	}
	if limit == 0 && pod.Spec.Resources != nil && !pod.Spec.Resources.Limits.Memory().IsZero() {
		return // the pod's group throttles
	}
	if limit == 0 && m.Allocatable != nil {
		limit = m.Allocatable()
	}
	if high := m.QoS.High(request, limit); high > 0 {
		files["memory.high"] = strconv.FormatInt(high, 10)
	}
}

// swap bounds a container's swap where the kernel can.
func (m Memory) swap(linux *runtimeapi.LinuxContainerResources, pod *corev1.Pod, c *corev1.Container, capacity int64) {
	switch {
	case !m.Accounted:
	case m.Unified:
		linux.Unified["memory.swap.max"] = strconv.FormatInt(m.allowed(pod, c, capacity), 10)
	default: // memory and swap together
		linux.MemorySwapLimitInBytes = linux.MemoryLimitInBytes
	}
}

// allowed is how much a container may swap: its part of the machine's swap, if
// its pod is burstable and it may use more memory than it requests.
func (m Memory) allowed(pod *corev1.Pod, c *corev1.Container, capacity int64) int64 {
	request, limit := c.Resources.Requests.Memory(), c.Resources.Limits.Memory()
	if !m.Limited || podspec.Critical(pod) || podspec.QOS(pod) != corev1.PodQOSBurstable || request.Cmp(*limit) == 0 ||
		capacity <= 0 || request.Value() > capacity {
		return 0
	}
	return int64(float64(request.Value()) / float64(capacity) * float64(m.Swap))
}

// hugePages limits huge pages of every size that the machine has, to none unless
// the container, or else its pod, asks for some.
func (m Memory) hugePages(pod *corev1.Pod, c *corev1.Container) []*runtimeapi.HugepageLimit {
	wanted := map[string]uint64{}
	var whole corev1.ResourceList
	if pod.Spec.Resources != nil {
		whole = pod.Spec.Resources.Limits
	}
	for _, limits := range []corev1.ResourceList{whole, c.Resources.Limits} {
		for name, quantity := range limits {
			if size, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix); ok {
				wanted[kernelPageSize(size)] = uint64(quantity.Value())
			}
		}
	}
	var limits []*runtimeapi.HugepageLimit
	for _, size := range m.HugePages {
		limits = append(limits, &runtimeapi.HugepageLimit{PageSize: size, Limit: wanted[size]})
	}
	return limits
}
